"""What a description and a server's metadata make of a model: its tensors, and why it may be refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collage.model_info import ModelInfo
from frontend.workers import Reply, TargetError, WorkerFailure, read_description
from frontend.workers.fleet import Form
from inference import open_inference_pb2 as oip
from tests.frontend.fakes import LABELS, SIZE, classify, detect, image
from tests.frontend.fleet_workers import (
    COLLAGE,
    MEAN,
    S_CNN,
    STD,
    OtherMake,
    TensorMetadata,
    collage_metadata,
    detections,
    pixels_of,
    s_cnn_metadata,
    tensor,
)


def form(metadata: oip.ModelMetadataResponse | None = None, **said: Any) -> Form:
    return Form(ModelInfo.from_content({**S_CNN, **said}), metadata or s_cnn_metadata())


COLOURED = np.stack([np.full((SIZE, SIZE), value, np.uint8) for value in (10, 100, 200)], -1)
COLOURED[0, 1] = 7  # row 0, column 1


@pytest.mark.parametrize(
    ("datatype", "shape", "said", "sent"),
    [
        ("UINT8", (-1, SIZE, SIZE, 3), {}, COLOURED),
        ("UINT8", (1, SIZE, SIZE, 3), {"colours": "BGR"}, COLOURED[:, :, ::-1]),
        ("UINT8", (SIZE, SIZE, 3), {}, COLOURED),
        ("UINT8", (-1, 3, SIZE, SIZE), {}, COLOURED.transpose(2, 0, 1)),
        ("UINT8", (-1, -1, -1, -1), {"layout": "NCHW"}, COLOURED.transpose(2, 0, 1)),
        ("FP32", (-1, SIZE, SIZE, 3), {}, COLOURED / 255),
        (
            "FP32",
            (-1, 3, SIZE, SIZE),
            {"mean": MEAN, "std": STD},
            ((COLOURED / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1),
        ),
        (
            "FP32",
            (-1, 3, -1, -1),
            {"mean": MEAN, "std": STD, "colours": "BGR"},
            ((COLOURED[:, :, ::-1] / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1),
        ),
        ("FP16", (3, SIZE, SIZE), {"mean": [0, 0, 0], "std": STD}, (COLOURED / 255 / np.array(STD)).transpose(2, 0, 1)),
    ],
)
def test_a_model_gets_pixels_as_it_wants_them(
    datatype: str, shape: tuple[int, ...], said: dict[str, Any], sent: np.ndarray
) -> None:
    request = form(s_cnn_metadata(tensor("x", datatype, *shape)), **said).request(COLOURED, "mine")
    (given,) = request.inputs
    batch = [1] if len(shape) == 4 else []
    assert (given.name, given.datatype, list(given.shape)) == ("x", datatype, [*batch, *sent.shape])
    assert len(request.raw_input_contents) == 1
    np.testing.assert_allclose(pixels_of(request), sent, rtol=2e-3 if datatype == "FP16" else 1e-5, atol=1e-6)
    assert (request.model_name, request.model_version, request.id) == ("s", "1", "mine")
    assert [output.name for output in request.outputs] == ["logits"]


@pytest.mark.parametrize(
    ("versions", "told"), [((), ""), (("3",), "3"), (("9", "10", "2"), "10")], ids=["none", "one", "many"]
)
def test_the_latest_version_is_asked(versions: tuple[str, ...], told: str) -> None:
    one = form(s_cnn_metadata(versions=versions))
    assert (one.info.version, one.request(COLOURED, "").model_version) == (told, told)


@pytest.mark.parametrize(
    ("image_tensor", "scores", "said", "problem"),
    [
        (
            tensor("x", "UINT8", -1, 9, 9, 3),
            None,
            {},
            r"is 'x' UINT8 \[-1, 9, 9, 3\]: it needs one, .* \[N, 8, 8, 3\]",
        ),
        (tensor("x", "UINT8", 2, 8, 8, 3), None, {}, "its input is 'x'"),
        (tensor("x", "UINT8", -1, -1, 8, 8, 3), None, {}, "its input is 'x'"),
        (tensor("x", "INT64", -1, 8, 8, 3), None, {}, "its input is 'x' INT64 .* it needs one, uint8 or float32"),
        (tensor("x", "UINT8", -1, 8, 8, 3), None, {"layout": "NCHW"}, "layout is NCHW, and the graph takes NHWC"),
        (None, None, {"mean": MEAN, "std": STD}, "leave out mean and std"),
        (None, tensor("logits", "FP32", -1, 11), {}, r"its output is 'logits' FP32 \[-1, 11\], .* shape \[10\]"),
        (None, tensor("logits", "INT8", -1, 10), {}, "its output is 'logits' INT8"),
        (None, tensor("logits", "FP32", -1, 10, 1, 1), {}, "its output is 'logits'"),
    ],
)
def test_metadata_that_contradict_the_description_are_refused(
    image_tensor: TensorMetadata | None, scores: TensorMetadata | None, said: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        form(s_cnn_metadata(image_tensor, scores), **said)


def test_metadata_without_tensors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"of 's' has no inputs, .* name the tensors in its configuration"):
        form(oip.ModelMetadataResponse(name="s"))
    two = oip.ModelMetadataResponse(inputs=[tensor("a", "FP32", -1), tensor("b", "FP32", -1)])
    with pytest.raises(ValueError, match="has 2 inputs, and it needs one"):
        form(two)


def test_one_of_many_outputs_must_have_the_usual_name() -> None:
    metadata = s_cnn_metadata()
    metadata.outputs.append(tensor("features", "FP32", -1, 64))
    with pytest.raises(ValueError, match="its outputs are 'logits', 'features': a s-cnn needs scores"):
        form(metadata)
    metadata.outputs[0].name = "scores"
    assert [output.name for output in form(metadata).request(COLOURED, "").outputs] == ["scores"]


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_answers_are_read_from_raw_and_typed_contents(typed: bool, datatype: str) -> None:
    metadata = s_cnn_metadata(scores=tensor("logits", datatype, -1, len(LABELS)))
    one, server = form(metadata), OtherMake(metadata, typed=typed)
    reply = one.reply(server.answer(one.request(image(3), "")), 0.25)
    assert isinstance(reply, Reply)
    np.testing.assert_array_equal(reply.outputs[0], classify(image(3))[0])
    assert (reply.outputs[0].dtype, reply.queue_s, reply.inference_s) == (np.float32, 0.0, 0.25)
    assert one.info.problem(reply.outputs) is None


def test_half_precision_scores_become_float32() -> None:
    metadata = s_cnn_metadata(scores=tensor("logits", "FP16", len(LABELS)))
    one = form(metadata)
    reply = one.reply(OtherMake(metadata).answer(one.request(image(3), "")), 0.1)
    assert isinstance(reply, Reply)
    assert one.info.problem(reply.outputs) is None


def test_probabilities_become_logits() -> None:
    shares = np.array([0.7, 0.3, 0, 0, 0, 0, 0, 0, 0, 0], np.float32)
    one = form(scores="probabilities")
    server = OtherMake(s_cnn_metadata(), run=lambda pixels: (shares,))
    reply = one.reply(server.answer(one.request(image(3), "")), 0.1)
    assert isinstance(reply, Reply)
    np.testing.assert_allclose(np.exp(reply.outputs[0]), shares, atol=1e-6)
    assert np.isfinite(reply.outputs[0]).all()


def test_detections_are_put_in_order_and_are_no_scores() -> None:
    one = Form(ModelInfo.from_content({**COLLAGE, "scores": "probabilities"}), collage_metadata())
    collage = np.tile(image(4), (2, 2, 1))
    reply = one.reply(OtherMake(collage_metadata(), detections).answer(one.request(collage, "")), 0.1)
    assert isinstance(reply, Reply)
    for output, want in zip(reply.outputs, detect(collage), strict=True):
        np.testing.assert_array_equal(output, want)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda r: r.outputs[0].CopyFrom(type(r.outputs[0])(name="other", datatype="FP32", shape=[1, 10])),
            "no output",
        ),
        (lambda r: r.raw_output_contents.append(b"1234"), "has 1 outputs and contents of 2"),
        (lambda r: r.raw_output_contents.__setitem__(0, bytes(36)), "of shape [1, 10] has 9 numbers"),
        (lambda r: r.raw_output_contents.__setitem__(0, bytes(37)), "cannot be read"),
        (lambda r: r.outputs[0].shape.__setitem__(0, -1), "is 'FP32' [-1, 10]"),
        (lambda r: r.outputs[0].shape.extend([1, 1, 1]), "is 'FP32'"),
        (lambda r: setattr(r.outputs[0], "datatype", "BYTES"), "is 'BYTES'"),
        (lambda r: (r.ClearField("raw_output_contents"), setattr(r.outputs[0], "datatype", "FP16")), "no contents"),
    ],
)
def test_an_answer_that_cannot_be_read_is_garbage(change: Any, problem: str) -> None:
    one = form()
    response = OtherMake(s_cnn_metadata()).answer(one.request(image(3), ""))
    change(response)
    failure = one.reply(response, 0.1)
    assert isinstance(failure, WorkerFailure)
    assert failure.code == "GARBAGE"
    assert problem in str(failure)


def test_a_batch_that_nobody_asked_for_is_not_the_models_answer() -> None:
    one = form()
    response = OtherMake(s_cnn_metadata()).answer(one.request(image(3), ""))
    response.outputs[0].shape[0] = 2
    response.raw_output_contents[0] *= 2
    reply = one.reply(response, 0.1)
    assert isinstance(reply, Reply)
    assert one.info.problem(reply.outputs) == "scores is float32 [2, 10] instead of scores float32 [10]"


@pytest.mark.parametrize(
    ("image_tensor", "said", "assumed"),
    [
        (tensor("x", "FP32", -1, 3, SIZE, SIZE), {}, ["the input is float and there is no mean and std"]),
        (tensor("x", "FP32", -1, 3, SIZE, SIZE), {"mean": MEAN, "std": STD}, []),
        (tensor("x", "FP32", -1, -1, -1, -1), {"mean": MEAN, "std": STD}, ["the graph leaves its layout open"]),
        (None, {}, []),
    ],
)
def test_what_had_to_be_assumed_is_told(
    image_tensor: TensorMetadata | None, said: dict[str, Any], assumed: list[str]
) -> None:
    told = form(s_cnn_metadata(image_tensor), **said).assumed
    assert [text[: len(start)] for text, start in zip(told, assumed, strict=True)] == assumed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "a model description is a JSON object"),
        ("{", "cannot be used: Expecting"),
        ('{"name": "s"}', "a model description is a JSON object with name, kind, labels, size"),
        ('{"name": "s", "kind": "s-cnn", "labels": ["a"], "size": 8, "layout": "CHWN"}', "layout must be NHWC or NCHW"),
        ('{"name": "s", "kind": "s-cnn", "labels": ["a"], "size": 8, "shape": 1}', "a model description is a JSON"),
    ],
)
def test_descriptions_that_cannot_be_used(text: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text(text)
    with pytest.raises(TargetError, match=problem) as caught:
        read_description(file)
    assert str(caught.value).startswith(f"the description {file} cannot be used: ")
    assert "\n" not in str(caught.value)
    with pytest.raises(TargetError, match="No such file"):
        read_description(tmp_path / "other.json")
