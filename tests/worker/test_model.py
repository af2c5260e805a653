"""Models describe themselves, strangers have sidecars, and what cannot be served is refused in one line."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from collage.model_info import LOCALISATION, CodeInfo, ModelKind, TensorSpec
from encoder.heads import ConcatenationCode, HeadsCode, StackedCode
from tests import onnx_models
from tests.onnx_models import COLOURS, solid
from tests.worker.conftest import Load
from worker.model import ModelError, ServedModel

SIDECAR: dict[str, Any] = {"name": "stranger", "kind": "s-cnn", "labels": list(COLOURS), "size": 8}
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


async def test_a_model_describes_itself(load: Load, tmp_path: Path) -> None:
    file = onnx_models.save_s_cnn(tmp_path / "m.onnx", size=16, labels=("a", "b", "c", "d"), name="four")
    model = load(file)
    await model.warm_up()
    assert (model.info.name, model.info.kind, model.info.size, model.info.k) == ("four", ModelKind.S_CNN, 16, 1)
    assert model.info.version == hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    (scores,) = await model.run(solid("red", 16))
    assert scores.dtype == np.float32
    assert scores.tolist() == [1, 0, 0, 1]


async def test_a_collage_cnn_gives_three_outputs_in_a_fixed_order(load: Load, tmp_path: Path) -> None:
    model = load(onnx_models.save_collage_cnn(tmp_path / "m.onnx", k=3, cell=2))
    await model.warm_up()
    boxes, confidences, probabilities = await model.run(solid("blue", 6))
    assert (boxes.shape, confidences.shape, probabilities.shape) == ((9, 4), (9,), (9, 3))
    assert boxes[8].tolist() == pytest.approx([2 / 3, 2 / 3, 1, 1])
    assert confidences.tolist() == [1] * 9
    assert (probabilities.argmax(axis=1) == 2).all()


async def test_a_read_only_image_is_taken(load: Load, tmp_path: Path) -> None:
    for file in (
        onnx_models.save_s_cnn(tmp_path / "m.onnx"),
        onnx_models.save_plain(tmp_path / "p.onnx", sidecar=SIDECAR),
    ):
        image = np.frombuffer(IMAGE.tobytes(), np.uint8).reshape(8, 8, 3)
        (scores,) = await load(file).run(image)
        np.testing.assert_allclose(scores, IMAGE.mean((0, 1)) / 255, rtol=1e-5)


async def test_cancelling_stops_the_session(load: Load, endless: Path) -> None:
    model = load(endless)
    running = asyncio.create_task(model.run(solid("red", 8)))
    await asyncio.sleep(0)
    running.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await running
        second = asyncio.create_task(model.run(solid("red", 8)))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second


def graph(path: Path, inputs: list[tuple[str, int, list[Any]]], outputs: list[tuple[str, list[Any]]]) -> Path:
    """An s-cnn's description on a graph of other inputs and outputs, all taken from the first input."""
    nodes = [helper.make_node("Cast", [inputs[0][0]], ["pixels"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Identity", ["pixels"], [name]) for name, _ in outputs]
    made = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return onnx_models.save_described(path, model, name="odd", labels=COLOURS, size=8)


IMAGE_INPUT = ("image", TensorProto.UINT8, ["N", 8, 8, 3])


@pytest.mark.parametrize(
    ("inputs", "outputs", "told"),
    [
        (
            [("image", TensorProto.UINT8, ["N", 9, 9, 3])],
            [("scores", ["N", 9, 9, 3])],
            "uint8 or float32 [N, 8, 8, 3] or [N, 3, 8, 8]",
        ),
        ([("image", TensorProto.INT64, ["N", 8, 8, 3])], [("scores", ["N", 8, 8, 3])], "tensor(int64)"),
        ([("image", TensorProto.UINT8, [4, 8, 8, 3])], [("scores", [4, 8, 8, 3])], "[4, 8, 8, 3]"),
        ([IMAGE_INPUT, ("more", TensorProto.FLOAT, [1])], [("scores", ["N", 8, 8, 3])], "it needs one"),
        ([IMAGE_INPUT], [("scores", ["N", 8, 8, 3])], "gives 'scores' [8, 8, 3] for one image: models of kind s-cnn"),
        (
            [IMAGE_INPUT],
            [("one", ["N", 8, 8, 3]), ("two", ["N", 8, 8, 3])],
            "outputs 'one', 'two': models",
        ),
    ],
)
def test_odd_inputs_and_outputs_are_refused(tmp_path: Path, inputs: Any, outputs: Any, told: str) -> None:
    with pytest.raises(ModelError) as caught:
        ServedModel(graph(tmp_path / "odd.onnx", inputs, outputs))
    assert told in str(caught.value)
    assert str(tmp_path / "odd.onnx") in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_outputs_that_the_graph_did_not_foretell_are_refused_by_the_warm_up(load: Load, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Unique", ["pixels"], ["values"]),  # as many as there are
        helper.make_node("Unsqueeze", ["values", "first"], ["scores"]),
    ]
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", "C"])
    first = onnx.numpy_helper.from_array(np.array([0]), "first")
    made = helper.make_graph(nodes, "odd", [helper.make_tensor_value_info(*IMAGE_INPUT)], [scores], [first])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file = onnx_models.save_described(tmp_path / "odd.onnx", model, name="odd", labels=COLOURS, size=8)
    odd = load(file)
    assert odd.info.outputs[0].shape == (3,)
    with pytest.raises(ModelError, match=r"of a black image, scores is float32 \[1\] instead of .* \[3\]"):
        await odd.warm_up()


def test_labels_that_do_not_go_with_the_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gives 'y' \[3\] for one image: .* with 2 labels give \[2\]"):
        ServedModel(onnx_models.save_plain(tmp_path / "m.onnx", sidecar={**SIDECAR, "labels": ["a", "b"]}))


def test_names_that_would_garble_a_log_are_refused(tmp_path: Path) -> None:
    file = onnx_models.save_plain(tmp_path / "odd.onnx", sidecar=SIDECAR)
    model = onnx.load(file)
    model.graph.node[-1].output[0] = model.graph.output[0].name = "sco\nres"
    onnx.save(model, file)
    with pytest.raises(ModelError, match=r"odd\.onnx cannot be served: a tensor's name must be one line"):
        ServedModel(file)
    (tmp_path / "odd.onnx.json").write_text(json.dumps({**SIDECAR, "labels": ["a"]}))
    with pytest.raises(ModelError, match=r"gives 'sco\\nres' \[3\]"):
        ServedModel(file)


async def test_the_graph_names_inputs_and_outputs(load: Load, tmp_path: Path) -> None:
    plain = load(onnx_models.save_plain(tmp_path / "p.onnx", sidecar=SIDECAR)).info
    assert (plain.input, plain.outputs) == (
        TensorSpec("x", "uint8", (8, 8, 3)),
        (TensorSpec("y", "float32", (3,)),),
    )
    collage = load(onnx_models.save_collage_cnn(tmp_path / "c.onnx", k=3, cell=2)).info
    assert [spec.shape for spec in collage.outputs] == [(9, 4), (9,), (9, 3)]


async def test_a_localiser_gives_a_box(load: Load, tmp_path: Path) -> None:
    model = load(onnx_models.save_linear(tmp_path / "m.onnx", task=LOCALISATION))
    await model.warm_up()
    assert (model.info.task, model.info.labels) == (LOCALISATION, ())
    (box,) = await model.run(IMAGE)
    assert box.tolist() == onnx_models.linear_outputs(IMAGE, 4).tolist()


async def test_a_parity_model_says_what_it_takes_and_is_exact(load: Load, tmp_path: Path) -> None:
    model = load(onnx_models.save_parity(tmp_path / "m.onnx", weights=(0.25, 0.75), inputs=2, row=1, base="abc"))
    await model.warm_up()
    assert model.info.kind is ModelKind.PARITY
    assert model.info.code == CodeInfo("linear", 2, 2, 1, weights=(0.25, 0.75), base="abc")
    first, second = (np.random.default_rng(seed).integers(0, 64, (8, 8, 3), np.uint8) * 4 for seed in (1, 2))
    mean = first // 4 + second // 4 * 3
    (said,) = await model.run(mean)
    own, other = (onnx_models.linear_outputs(image) for image in (first, second))
    assert (4 * said - 3 * other).tolist() == own.tolist()


@pytest.mark.parametrize("code", [StackedCode(2), ConcatenationCode(2)], ids=["stacked", "concatenation"])
async def test_a_model_with_heads_answers_for_every_member(load: Load, tmp_path: Path, code: HeadsCode) -> None:
    model = load(onnx_models.save_heads(tmp_path / "m.onnx", code=code.name))
    await model.warm_up()
    assert model.info.outputs == (TensorSpec("scores", "float32", (2, 3)),)
    group = [np.random.default_rng(seed).integers(0, 256, (4, 8, 3), np.uint8).repeat(2, 0) for seed in (1, 2)]
    (encoded,) = code.encode(group)
    assert encoded.shape == model.info.input.shape
    (rows,) = await model.run(encoded)
    for row, image in zip(rows, group, strict=True):
        np.testing.assert_allclose(row, onnx_models.linear_outputs(image), rtol=1e-5, atol=1e-4)


async def test_a_graph_without_the_heads_that_it_is_said_to_have_is_refused(tmp_path: Path) -> None:
    file = onnx_models.save_linear(
        tmp_path / "m.onnx", kind=ModelKind.PARITY, code=CodeInfo("concatenation", 2, heads=True)
    )
    with pytest.raises(ModelError, match=r"gives 'scores' \[3\] for one image: .* give \[2, 3\]"):
        ServedModel(file)


async def test_a_model_that_fails_is_refused_by_the_warm_up(load: Load, tmp_path: Path) -> None:
    sidecar = {**SIDECAR, "size": 4}
    file = onnx_models.save_plain(tmp_path / "m.onnx", sidecar=sidecar)
    model = onnx.load(file)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "W"
    model.graph.node.insert(0, helper.make_node("Reshape", ["x", "eight"], ["eights"]))
    model.graph.node[1].input[0] = "eights"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 3, 8, 8]), "eight"))
    onnx.save(model, file)
    with pytest.raises(ModelError, match=r"fails on its first image: .*Reshape"):
        await load(file).warm_up()


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model file"):
        ServedModel(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="there is no model file"):
        ServedModel(tmp_path)
    (tmp_path / "words.onnx").write_text("not a model")
    with pytest.raises(ModelError, match="cannot be loaded"):
        ServedModel(tmp_path / "words.onnx")
    (tmp_path / "words.onnx.json").write_bytes(b"\xff\xfe")
    onnx_models.save_plain(tmp_path / "words.onnx")
    with pytest.raises(ModelError, match=r"words\.onnx\.json cannot be used"):
        ServedModel(tmp_path / "words.onnx")
