"""Models describe themselves, strangers have sidecars, and what cannot be served is refused in one line."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from collage.model_files import version
from collage.model_info import LOCALISATION, CodeInfo, ModelKind, TensorSpec
from tests import onnx_models
from tests.onnx_models import COLOURS, solid
from worker.model import ModelError, ServedModel

SIDECAR: dict[str, Any] = {"name": "stranger", "kind": "s-cnn", "labels": list(COLOURS), "size": 8}
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
Load = Callable[[Path], ServedModel]


@pytest.fixture
async def load() -> AsyncIterator[Load]:
    models = []

    def loaded(path: Path) -> ServedModel:
        models.append(ServedModel(path))
        return models[-1]

    yield loaded
    for model in models:
        model.close()
        model.close()


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


async def test_a_plain_classifier_is_normalised_as_its_sidecar_says(load: Load, tmp_path: Path) -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    file = onnx_models.save_plain(tmp_path / "m.onnx", sidecar={**SIDECAR, "extra": {"mean": mean, "std": std}})
    model = load(file)
    await model.warm_up()
    (scores,) = await model.run(IMAGE)
    np.testing.assert_allclose(scores, ((IMAGE / 255 - mean) / std).mean((0, 1)), rtol=1e-4)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_inference_has_the_threads_that_it_was_given(tmp_path: Path, threads: int) -> None:
    model = ServedModel(onnx_models.save_s_cnn(tmp_path / "m.onnx"), threads)
    options = model._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    model.close()


async def test_a_plain_classifier_sees_rows_as_rows(load: Load, tmp_path: Path) -> None:
    model = load(onnx_models.save_plain(tmp_path / "plain.onnx", sidecar=SIDECAR))
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    np.testing.assert_allclose(model._plain_input(image)[0, 1], image[:, :, 1] / 255, atol=1e-6)


async def test_outputs_are_told_by_their_names_whatever_their_order_in_the_graph(load: Load, tmp_path: Path) -> None:
    path = onnx_models.save_collage_cnn(tmp_path / "collage.onnx")
    graph = onnx.load(path)
    turned = list(graph.graph.output)[::-1]
    del graph.graph.output[:]
    graph.graph.output.extend(turned)
    onnx.save(graph, path)
    model = load(path)
    await model.warm_up()
    assert [spec.name for spec in model.info.outputs] == ["boxes", "confidences", "class_probabilities"]
    outputs = await model.run(solid("red", 8))
    assert [output.shape for output in outputs] == [(4, 4), (4,), (4, 3)]


async def test_probabilities_become_scores_by_their_logarithm(load: Load, tmp_path: Path) -> None:
    sidecar = {**SIDECAR, "extra": {"scores": "probabilities"}}
    model = load(onnx_models.save_plain(tmp_path / "m.onnx", softmax=True, sidecar=sidecar))
    await model.warm_up()
    (scores,) = await model.run(IMAGE)
    logits = IMAGE.mean((0, 1)) / 255
    np.testing.assert_allclose(np.exp(scores), np.exp(logits) / np.exp(logits).sum(), rtol=1e-5)


async def test_a_sidecar_corrects_what_the_metadata_say(load: Load, tmp_path: Path) -> None:
    file = onnx_models.save_s_cnn(tmp_path / "m.onnx", extra={"dataset": "colours", "seed": 3})
    beside = tmp_path / "m.onnx.json"
    beside.write_text('\ufeff{"labels": ["rouge", "vert", "bleu"], "extra": {"seed": 4}}', "utf-8")
    info = load(file).info
    assert (info.name, info.labels, info.extra) == (
        "colours",
        ("rouge", "vert", "bleu"),
        {"dataset": "colours", "seed": 4},
    )
    for text, told in (
        ("not even JSON", "Expecting value"),
        ("[]", "name, kind, labels, size"),
        ('{"size": 9}', "has inputs"),
    ):
        beside.write_text(text)
        with pytest.raises(ModelError, match=told):
            load(file)


def external(folder: Path, value: float, location: str = "m.onnx.data") -> Path:
    """A plain classifier whose scores are scaled by data in a file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = onnx_models.save_plain(folder / "m.onnx", sidecar=SIDECAR)
    model = onnx.load(file)
    model.graph.node[-1].output[0] = "unscaled"
    model.graph.node.append(helper.make_node("Mul", ["unscaled", "scale"], ["y"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full(300, value, np.float32)[:3].copy(), "scale"))
    (folder / location).unlink(missing_ok=True)
    onnx.save(model, file, save_as_external_data=True, location=location, size_threshold=0)
    return file


@pytest.mark.parametrize("location", ["m.onnx.data", "weights.bin", "w" * 200])
async def test_the_version_covers_what_is_beside_the_file(load: Load, tmp_path: Path, location: str) -> None:
    one, other = (external(tmp_path / name, value, location) for name, value in (("a", 1.0), ("b", 2.0)))
    assert one.read_bytes() == other.read_bytes()
    versions = [load(file).info.version for file in (one, other, one)]
    assert versions[0] == versions[2] != versions[1]
    assert versions[0] != hashlib.sha256(one.read_bytes()).hexdigest()[:12]
    beside = tmp_path / "a" / "m.onnx.json"
    beside.write_text(json.dumps({**SIDECAR, "extra": {"mean": [0.5, 0.5, 0.5]}}))
    assert load(one).info.version not in versions
    (tmp_path / "a" / "readme.txt").write_text("no part of the model")
    (tmp_path / "c").mkdir()
    moved = [path.rename(tmp_path / "c" / path.name) for path in (one, beside, one.parent / location)]
    assert re.fullmatch("[0-9a-f]{12}", load(moved[0]).info.version)


async def test_a_file_that_is_alone_has_the_version_of_its_content(load: Load, tmp_path: Path) -> None:
    file = onnx_models.save_s_cnn(tmp_path / "m.onnx", name=b"\n\x08location\x12\x06m.json".hex())
    assert load(file).info.version == hashlib.sha256(file.read_bytes()).hexdigest()[:12]


@pytest.mark.parametrize(
    "tail", [b"", b"\x05", b"\xff", b"\xff\x01" + b"x" * 255, b"\x01\x00", b"\x02\xff\xff", b"\x02.."]
)
def test_bytes_that_only_look_like_the_name_of_a_file_do_no_harm(tmp_path: Path, tail: bytes) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(b"\n\x08location\x12" + tail)
    assert version(file) == hashlib.sha256(file.read_bytes()).hexdigest()[:12]


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
        ([("image", TensorProto.UINT8, ["N", 9, 9, 3])], [("scores", ["N", 9, 9, 3])], "uint8 [N, 8, 8, 3]"),
        ([("image", TensorProto.UINT8, ["N", 3, 8, 8])], [("scores", ["N", 3, 8, 8])], "tensor(uint8)"),
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


@pytest.mark.parametrize(
    ("sidecar", "told"),
    [
        (None, "does not describe itself: write "),
        ({}, "name, kind, labels, size"),
        ({**SIDECAR, "typo": 1}, "name, kind, labels, size"),
        ({**SIDECAR, "kind": "cnn"}, "kind must be s-cnn, collage-cnn, parity, not 'cnn'"),
        ({**SIDECAR, "kind": "parity"}, "a parity model needs a code"),
        ({**SIDECAR, "kind": "collage-cnn"}, "have boxes, confidences, class_probabilities"),
        ({**SIDECAR, "labels": 3}, "labels must be"),
        ({**SIDECAR, "size": 0}, "size must be"),
        ({**SIDECAR, "extra": {"mean": [0.5]}}, "lists of three numbers"),
        ({**SIDECAR, "extra": {"mean": "grey"}}, "lists of three numbers"),
        ({**SIDECAR, "extra": {"std": [1, 0, 1]}}, "extra.std positive"),
        ({**SIDECAR, "extra": {"std": [1, 1e-320, 1]}}, "extra.std positive"),
        ({**SIDECAR, "extra": {"std": [1, 1e300, 1]}}, "extra.std positive"),
        ({**SIDECAR, "extra": {"std": [1, math.nan, 1]}}, "extra.std positive"),
        ({**SIDECAR, "extra": {"mean": [1, math.nan, 1]}}, "must be finite"),
        ({**SIDECAR, "extra": {"mean": [1, 1e39, 1]}}, "must be finite"),
        ({**SIDECAR, "extra": {"mean": [10**400, 0, 0]}}, "lists of three numbers"),
        ({**SIDECAR, "extra": {"mean": {"r": 0}}}, "lists of three numbers"),
        ({**SIDECAR, "extra": {"mean": [[1], 2, 3]}}, "lists of three numbers"),
        ({**SIDECAR, "extra": {"scores": "x" * 5000}}, "xxx..."),
        ({**SIDECAR, "size": 2**32}, "size must be"),
        ({**SIDECAR, "labels": ["a", "b", "\ud800"]}, "half a surrogate"),
        ({**SIDECAR, "labels": ["a", "b", "c" * 1025]}, "of at most 1024 characters"),
        ({**SIDECAR, "labels": ["a", "b", ["c"]]}, "labels must be"),
        ({**SIDECAR, "labels": {"a": 1}}, "labels must be"),
        ({**SIDECAR, "name": "\ud800"}, "name must be"),
        ({**SIDECAR, "kind": {}}, "kind must be"),
        ({**SIDECAR, "task": {}}, "task must be"),
        ({**SIDECAR, "extra": [[]]}, "extra must be"),
        ({**SIDECAR, "accept_threshold": math.nan}, "accept_threshold must be"),
        ({**SIDECAR, "accept_threshold": [1]}, "accept_threshold must be"),
        ({**SIDECAR, "detection_threshold": math.nan}, "detection_threshold must be"),
        ({**SIDECAR, "k": 2**32}, "k must be"),
        ({**SIDECAR, "code": {"name": "linear", "members": 2**32}}, "the code's members must be"),
        ({**SIDECAR, "code": {"name": "linear", "members": 2, "weights": [[], []]}}, "a weight of the code must be"),
        ({**SIDECAR, "extra": {"scores": "odds"}}, "logits or probabilities"),
    ],
)
def test_an_unusable_sidecar_is_refused(tmp_path: Path, sidecar: dict[str, Any] | None, told: str) -> None:
    with pytest.raises(ModelError) as caught:
        ServedModel(onnx_models.save_plain(tmp_path / "m.onnx", sidecar=sidecar))
    assert told in str(caught.value)
    assert str(tmp_path / "m.onnx") in str(caught.value)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"extra": ' * 50_000, "nested too deeply"),
        (b"\xff\xfe", "can't decode"),
        (b'{"size": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b"", "Expecting value"),
        (b"null", "name, kind, labels, size"),
    ],
)
def test_a_sidecar_that_is_no_description_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    file = onnx_models.save_plain(tmp_path / "m.onnx")
    (tmp_path / "m.onnx.json").write_bytes(content)
    with pytest.raises(ModelError, match=told):
        ServedModel(file)


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
