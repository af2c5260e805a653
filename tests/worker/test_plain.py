"""Classifiers of any origin: fed as their sidecar says, and what nobody says is told to the operator."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from collage.model_files import sidecar
from collage.plain import PlainFormat, PlainInput
from tests import onnx_models
from tests.onnx_models import COLOURS
from tests.worker.conftest import Launch, Load
from worker.model import ModelError, ServedModel

SIDECAR: dict[str, Any] = {"name": "stranger", "kind": "s-cnn", "labels": list(COLOURS), "size": 8}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
MEANS: NDArray[np.float64] = IMAGE.mean((0, 1)) / 255
PIXELS = {"NCHW": ["N", 3, 8, 8], "NHWC": ["N", 8, 8, 3], "open": ["N", "A", "B", "C"]}
_BYTE, _FLOAT = TensorProto.UINT8, TensorProto.FLOAT


def channel_means(path: Path, kind: int, shape: list[Any], axes: list[int], told: dict[str, Any]) -> Path:
    """A classifier whose scores are the means of what it is fed, over some axes."""
    nodes = [
        helper.make_node("Cast", ["x"], ["pixels"], to=_FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["y"], axes=axes, keepdims=0),
    ]
    entries = [helper.make_tensor_value_info("x", kind, shape)], [helper.make_tensor_value_info("y", _FLOAT, ["N", 3])]
    model = helper.make_model(
        helper.make_graph(nodes, "means", *entries), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    onnx.save(model, path)
    sidecar(path).write_text(json.dumps({**SIDECAR, **told}))
    return path


NORMAL, SWAPPED = {"mean": MEAN, "std": STD}, {"mean": MEAN[::-1], "std": STD[::-1], "colours": "BGR"}
WHOLE = {"mean": [0, 0, 0], "std": [1 / 255] * 3}


@pytest.mark.parametrize("kind", [_FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE])
@pytest.mark.parametrize(
    ("layout", "told", "scores"),
    [
        ("NCHW", NORMAL, (MEANS - MEAN) / STD),
        ("NHWC", NORMAL, (MEANS - MEAN) / STD),
        ("NCHW", SWAPPED, ((MEANS - MEAN) / STD)[::-1]),
        ("NHWC", SWAPPED, ((MEANS - MEAN) / STD)[::-1]),
        ("NCHW", {"layout": "NCHW"}, MEANS),
        ("NHWC", {"layout": "NHWC"}, MEANS),
        ("NCHW", WHOLE, 255 * MEANS),
    ],
)
async def test_pixels_are_made_as_the_sidecar_says(
    load: Load, tmp_path: Path, kind: int, layout: str, told: dict[str, Any], scores: NDArray[np.float64]
) -> None:
    axes = [2, 3] if layout == "NCHW" else [1, 2]
    model = load(channel_means(tmp_path / "m.onnx", kind, PIXELS[layout], axes, told))
    await model.warm_up()
    (found,) = await model.run(IMAGE)
    np.testing.assert_allclose(found, scores, rtol=3e-3 if kind == TensorProto.FLOAT16 else 1e-4, atol=2e-4)


@pytest.mark.parametrize("kind", ["tensor(float)", "tensor(uint8)"])
def test_rows_stay_rows(kind: str) -> None:
    feed = PlainInput(PlainFormat(layout="NCHW"), kind, PIXELS["NCHW"], (8, 8, 3))
    white = 1 if kind == "tensor(uint8)" else 255
    np.testing.assert_allclose(feed(IMAGE[None])[0, 1], IMAGE[:, :, 1] / white, atol=1e-6)


def test_images_one_behind_the_other_have_their_channels_put_first_too() -> None:
    shape = ["N", 2, 3, 8, 8]
    feed = PlainInput(PlainFormat(**NORMAL), "tensor(float)", shape, (2, 8, 8, 3))
    fed = feed(np.stack([IMAGE, IMAGE[::-1]])[None])
    assert fed.shape == (1, 2, 3, 8, 8)
    np.testing.assert_allclose(fed[0, 1, 2], (IMAGE[::-1, :, 2] / 255 - MEAN[2]) / STD[2], atol=1e-5)
    with pytest.raises(ValueError, match=r"uint8 or float32 \[N, 2, 8, 8, 3\] or \[N, 2, 3, 8, 8\]"):
        PlainInput(PlainFormat(), "tensor(float)", ["N", 3, 8, 8], (2, 8, 8, 3))


@pytest.mark.parametrize(
    ("layout", "told", "scores"),
    [
        ("NHWC", {}, MEANS),
        ("NCHW", {}, MEANS),
        ("open", {}, MEANS),
        ("NCHW", {"colours": "BGR"}, MEANS[::-1]),
        ("NHWC", {"colours": "BGR"}, MEANS[::-1]),
    ],
)
async def test_whole_pixels_are_only_put_in_order(
    load: Load, tmp_path: Path, layout: str, told: dict[str, Any], scores: NDArray[np.float64]
) -> None:
    axes = [2, 3] if layout == "NCHW" else [1, 2]
    model = load(channel_means(tmp_path / "m.onnx", _BYTE, PIXELS[layout], axes, told))
    await model.warm_up()
    (found,) = await model.run(IMAGE)
    np.testing.assert_allclose(found, 255 * scores, rtol=1e-5)
    assert model.assumed == []


def test_whole_pixels_cannot_be_normalised(tmp_path: Path) -> None:
    file = channel_means(tmp_path / "m.onnx", _BYTE, PIXELS["NHWC"], [1, 2], NORMAL)
    with pytest.raises(ModelError, match=r"takes uint8 pixels, so that nothing is normalised before it: leave"):
        ServedModel(file)


@pytest.mark.parametrize(("told", "axes"), [({}, [2, 3]), ({"layout": "NHWC"}, [1, 2]), ({"layout": "NCHW"}, [2, 3])])
async def test_an_open_layout_is_told_or_assumed(
    load: Load, tmp_path: Path, told: dict[str, Any], axes: list[int]
) -> None:
    model = load(channel_means(tmp_path / "m.onnx", _FLOAT, PIXELS["open"], axes, {**NORMAL, **told}))
    (found,) = await model.run(IMAGE)
    np.testing.assert_allclose(found, (MEANS - MEAN) / STD, rtol=1e-4, atol=1e-5)
    assert model.assumed == ([] if told else ["the graph leaves its layout open: NCHW is assumed; give layout"])


async def test_probabilities_become_scores_by_their_logarithm(load: Load, tmp_path: Path) -> None:
    told = {**SIDECAR, **NORMAL, "scores": "probabilities"}
    model = load(onnx_models.save_plain(tmp_path / "m.onnx", softmax=True, sidecar=told))
    await model.warm_up()
    (scores,) = await model.run(IMAGE)
    logits = (MEANS - MEAN) / STD
    np.testing.assert_allclose(np.exp(scores), np.exp(logits) / np.exp(logits).sum(), rtol=1e-4)
    assert model.assumed == []


async def test_scores_that_are_no_probabilities_are_refused(load: Load, tmp_path: Path) -> None:
    told = {**SIDECAR, **NORMAL, "scores": "probabilities"}
    model = load(onnx_models.save_plain(tmp_path / "m.onnx", sidecar=told))
    with pytest.raises(ModelError, match=r"probabilities, and those of a black image sum to 3e-12"):
        await model.warm_up()


@pytest.mark.parametrize(
    ("softmax", "told", "words"),
    [
        (False, NORMAL, []),
        (False, {}, ["no mean and std: pixels are divided by 255 and not normalised"]),
        (True, NORMAL, ["the scores of a black image sum to 1, and logits are assumed"]),
        (True, {**NORMAL, "scores": "logits"}, []),
        (True, {**NORMAL, "scores": "probabilities"}, []),
    ],
)
async def test_what_nobody_says_is_a_warning(
    launch: Launch, tmp_path: Path, caplog: pytest.LogCaptureFixture, softmax: bool, told: dict[str, Any],
    words: list[str],
) -> None:  # fmt: skip
    file = onnx_models.save_plain(tmp_path / "m.onnx", softmax=softmax, sidecar={**SIDECAR, **told})
    with caplog.at_level(logging.WARNING, "collage.worker"):
        await launch(file)
    found = [record.getMessage() for record in caplog.records if record.name == "collage.worker"]
    assert len(found) == len(words)
    for message, word in zip(found, words, strict=True):
        assert message.startswith("stranger: ")
        assert word in message


async def test_weights_in_other_files_are_a_warning(load: Load, tmp_path: Path) -> None:
    file = onnx_models.save_plain(tmp_path / "m.onnx", sidecar={**SIDECAR, **NORMAL})
    model = onnx.load(file)
    model.graph.node[-1].output[0] = "unscaled"
    model.graph.node.append(helper.make_node("Mul", ["unscaled", "scale"], ["y"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "scale"))
    onnx.save(model, file, save_as_external_data=True, location="m.data", size_threshold=0)
    assert load(file).assumed == ["its weights are in m.data, which must stay beside it"]
