"""A model's description survives JSON and the wire, and a wrong one is refused by name."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from collage.model_info import ANSWER_EXTRA_BYTES, LOCALISATION, CodeInfo, ErrorRate, ModelInfo, ModelKind, TensorSpec
from collage.v1 import model_pb2, tensor_pb2

LABELS = ("T-shirt/top", "Trouser")
EXTRA: dict[str, Any] = {"top1": 0.93, "data": {"train": 60000}}
COLLAGE = ModelInfo.collage("fashion", LABELS, 96, 3, 0.25, accept_threshold=0.7, version="0123456789ab", extra=EXTRA)
ERRORS = (ErrorRate(0.0, 0.25, 0.0625, 0.5), ErrorRate(0.5, 0.0, 0.125, 0.0))
CODE = CodeInfo("linear", 3, 2, 1, weights=(0.2, 0.3, 0.5), base="ba5e")
MODELS = {
    "s-cnn": ModelInfo.make("s", ModelKind.S_CNN, LABELS, 32, extra=EXTRA),
    "localiser": ModelInfo.make("l", ModelKind.S_CNN, (), 32, task=LOCALISATION),
    "collage": COLLAGE,
    "collage with errors": replace(COLLAGE, errors=ERRORS),
    "collage with a base": replace(COLLAGE, code=CodeInfo("collage", 9, k=3, base="ba5e")),
    "parity": ModelInfo.make("p", ModelKind.PARITY, LABELS, 32, code=CODE),
    "parity of boxes": ModelInfo.make("p", ModelKind.PARITY, (), 32, task=LOCALISATION, code=CODE),
    "parity with keys": ModelInfo.make("p", ModelKind.PARITY, LABELS, 32, code=replace(CODE, keys=(0, 4, 7))),
    "parity with heads": ModelInfo.make(
        "p", ModelKind.PARITY, LABELS, 32, code=CodeInfo("stacked", 3, heads=True, stacked=True)
    ),
    "parity without weights": ModelInfo.make("p", ModelKind.PARITY, LABELS, 32, code=CodeInfo("learned", 2)),
}
RATE = {"confidence": 0, "errors": 0.125, "standard_error": 0.125, "differs": 0.5}
OLD = {"name", "kind", "labels", "size", "k", "detection_threshold", "accept_threshold", "version", "extra"}


@pytest.mark.parametrize("info", MODELS.values(), ids=list(MODELS))
def test_json_and_back(info: ModelInfo) -> None:
    assert ModelInfo.from_json(info.to_json()) == info


@pytest.mark.parametrize("info", MODELS.values(), ids=list(MODELS))
def test_the_wire_and_back_without_extra(info: ModelInfo) -> None:
    message = model_pb2.GetModelInfoResponse.FromString(info.to_proto().SerializeToString())
    assert ModelInfo.from_proto(message) == replace(info, extra={})


def test_files_that_were_written_before_codes_and_tasks_are_read_and_written_alike() -> None:
    for info in (MODELS["s-cnn"], COLLAGE):
        assert json.loads(info.to_json()).keys() == OLD
    old = {
        "name": "fashion",
        "kind": "collage-cnn",
        "labels": list(LABELS),
        "size": 96,
        "k": 3,
        "detection_threshold": 0.25,
        "accept_threshold": 0.7,
        "version": "0123456789ab",
        "extra": EXTRA,
    }
    assert COLLAGE.to_json() == json.dumps(old, sort_keys=True)
    assert json.loads(MODELS["localiser"].to_json()).keys() == OLD | {"task"}
    assert json.loads(MODELS["parity"].to_json()).keys() == OLD - {"k", "detection_threshold"} | {"code"}


def test_four_fields_are_enough() -> None:
    info = ModelInfo.from_json('{"name": "m", "kind": "s-cnn", "labels": ["a"], "size": 32}')
    assert info == ModelInfo.make("m", ModelKind.S_CNN, ("a",), 32)
    assert (info.size, info.k, info.detection_threshold, info.accept_threshold, info.extra) == (32, 1, 0.15, 1.0, {})
    assert (info.code, info.input) == (None, TensorSpec("image", "uint8", (32, 32, 3)))
    assert info.outputs == (TensorSpec("scores", "float32", (1,)),)


def test_k_makes_the_code_of_a_collage() -> None:
    assert COLLAGE.code == CodeInfo("collage", 9, 1, 0, 3, (), 0.25, "")
    assert [spec.shape for spec in COLLAGE.outputs] == [(-1, 4), (-1,), (-1, 2)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": ...}, "name, kind, labels, size"),
        ({"kind": ...}, "name, kind, labels, size"),
        ({"size": ...}, "name, kind, labels, size"),
        ({"sise": 32}, "known: accept_threshold, "),
        ({"name": "two\nlines"}, "name must be one line of 1 to 256 characters"),
        ({"name": 3}, "name must be"),
        ({"kind": "yolo"}, "kind must be s-cnn, collage-cnn, parity, not 'yolo'"),
        ({"kind": ["s-cnn"]}, "kind must be"),
        ({"kind": "parity", "k": 1}, "a parity model needs a code"),
        ({"kind": "s-cnn"}, "k is for collage-cnns: a s-cnn has none"),
        ({"labels": []}, "labels must be"),
        ({"labels": "ab"}, "labels must be"),
        ({"labels": [1, 2]}, "labels must be"),
        ({"labels": ["a"] * 65537}, "labels must be"),
        ({"size": 0}, "size must be a whole number from 1 to 8192, not 0"),
        ({"size": 8193}, "size must be"),
        ({"size": "32"}, "size must be"),
        ({"size": 32.0}, "size must be"),
        ({"size": True}, "size must be"),
        ({"k": 0}, "k must be a whole number from 1 to 16, not 0"),
        ({"k": 17}, "k must be"),
        ({"k": "x" * 1000}, "x..."),
        ({"detection_threshold": -0.1}, "detection_threshold must be a number from 0 to 1"),
        ({"detection_threshold": "low"}, "detection_threshold must be"),
        ({"accept_threshold": math.nan}, "accept_threshold must be a number from 0 to 1, not nan"),
        ({"accept_threshold": math.inf}, "accept_threshold must be"),
        ({"accept_threshold": None}, "accept_threshold must be"),
        ({"errors": 0.5}, "errors must be a list of JSON objects with confidence, differs, errors, standard_error"),
        ({"errors": [{"confidence": 0, "errors": 0.1}]}, "errors must be a list of JSON objects"),
        ({"errors": [{**RATE, "kind": 1}]}, "errors must be a list of JSON objects"),
        ({"errors": [{**RATE, "errors": 1.5}]}, "errors of an error rate must be a number from 0 to 1, not 1.5"),
        ({"errors": [{**RATE, "differs": None}]}, "differs of an error rate must be"),
        ({"errors": [{**RATE, "confidence": 0.5}]}, "whose confidences rise from 0 on"),
        ({"errors": [RATE, RATE]}, "whose confidences rise from 0 on"),
        ({"errors": [RATE, {**RATE, "confidence": 0.5, "errors": 0.2}]}, "and errors do not"),
        ({"errors": [{**RATE, "confidence": step / 65} for step in range(65)]}, "at most 64"),
        ({"version": 7}, "version must be"),
        ({"extra": []}, "extra must be"),
        ({"task": "ranking"}, "task must be classification or localisation"),
        ({"task": ["classification"]}, "task must be"),
        ({"task": LOCALISATION}, "a localiser has no labels, and a collage-cnn is none"),
        ({"code": 3}, "code must be a JSON object with name, members"),
        ({"code": {"name": "collage"}}, "code must be"),
        ({"code": {"name": "collage", "members": 9, "kk": 3}}, "known: base, "),
        ({"code": {"name": "collage", "members": 9}}, "k is 3, and the code's k is 0"),
        ({"code": {"name": "collage", "members": 8, "k": 3}}, "a collage of 3 x 3 cells has 9 members and 1 input"),
    ],
)
def test_a_wrong_description_is_refused_by_name(change: dict[str, Any], told: str) -> None:
    content = {**json.loads(COLLAGE.to_json()), **change}
    text = json.dumps({key: value for key, value in content.items() if value is not ...})
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is checked below
        ModelInfo.from_json(text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"members": 0}, "the code's members must be a whole number from 1 to 4096"),
        ({"members": 4097, "weights": []}, "the code's members must be"),
        ({"members": 3.0}, "the code's members must be"),
        ({"inputs": 0}, "the code's inputs must be a whole number from 1 to 64"),
        ({"inputs": 65}, "the code's inputs must be"),
        ({"row": 2}, "the code's row must be a whole number from 0 to 1, not 2"),
        ({"row": -1}, "the code's row must be"),
        ({"weights": [0.5, 0.5]}, "the code needs 3 weights, one per member, or none: not 2"),
        ({"weights": [0.5, 0.5, math.nan]}, "a weight of the code must be a number"),
        ({"weights": [0.5, 0.5, "0"]}, "a weight of the code must be"),
        ({"weights": 1}, "the code's weights must be a list"),
        ({"name": ""}, "the code's name must be"),
        ({"base": "v" * 65}, "the code's base must be"),
        ({"k": 2}, "a collage of 2 x 2 cells has 4 members and 1 input"),
    ],
)
def test_a_wrong_code_is_refused_by_name(change: dict[str, Any], told: str) -> None:
    content = json.loads(MODELS["parity"].to_json())
    content["code"] |= change
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is checked below
        ModelInfo.from_json(json.dumps(content))
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["", "labels", "[]", "3", "null"])
def test_what_is_no_description_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own texts
        ModelInfo.from_json(text)


FLOAT32 = tensor_pb2.DATA_TYPE_FLOAT32


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": 0}, "'fashion' has an unknown kind"),
        ({"kind": 9}, "'fashion' has an unknown kind (9)"),
        ({"task": 0}, "'fashion' has an unknown task"),
        ({"name": ""}, "name must be"),
        ({"accept_threshold": 1.5}, "accept_threshold must be"),
        ({"errors": [{"errors": -0.5}]}, "errors of an error rate must be"),
        ({"errors": [{"confidence": 0.5}]}, "whose confidences rise from 0 on"),
        ({"input": {}}, "tensor '' has an unknown data type"),
        (
            {"input": {"name": "x", "data_type": FLOAT32, "shape": [96, 96, 3]}},
            "the input must be uint8 [size, size, 3]",
        ),
        ({"input": {"name": "x", "data_type": 1, "shape": [96, 95, 3]}}, "the input must be"),
        ({"input": {"name": "x", "data_type": 1, "shape": []}}, "the input must be"),
        ({"input": {"name": "x", "data_type": 1, "shape": [-1, -1, 3]}}, "the input must be"),
        ({"input": {"name": "x", "data_type": 1, "shape": [9000, 9000, 3]}}, "size must be"),
        ({"input": {"name": "x", "data_type": 1, "shape": [1] * 9}}, "9 dimensions: at most 8"),
        ({"input": {"name": "x", "data_type": 1, "shape": [0, 0, 3]}}, "an extent of tensor 'x'"),
        ({"outputs": []}, "a collage-cnn model has 3 outputs, not 0"),
        ({"labels": ["a", "b", "c"]}, "class_probabilities float32 [any, 2] does not go with 3 labels"),
        ({"code": None}, "a collage-cnn model needs a code"),
        ({"code": {"name": "linear", "members": 2, "inputs": 1}}, "a collage-cnn needs k"),
        ({"code": {"name": "collage", "members": 4, "k": 2}}, "the code's inputs must be"),
    ],
)
def test_a_wrong_description_on_the_wire_is_refused_by_name(change: dict[str, Any], told: str) -> None:
    message = COLLAGE.to_proto()
    for name, value in change.items():
        message.ClearField(name)  # type: ignore[arg-type]
        if value is not None:
            message.MergeFrom(model_pb2.GetModelInfoResponse(**{name: value}))
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is checked below
        ModelInfo.from_proto(message)
    assert told in str(caught.value)


def test_detections_of_two_numbers_are_refused() -> None:
    boxes, confidences, classes = COLLAGE.outputs
    few = replace(confidences, shape=(7,))
    assert replace(COLLAGE, outputs=(boxes, few, classes)).outputs[1] is few
    with pytest.raises(ValueError, match="differ in their number of detections"):
        replace(COLLAGE, outputs=(replace(boxes, shape=(8, 4)), few, classes))


def floats(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ([floats(1, -3)], None),
        ([floats(1, -math.inf)], None),
        ([floats(-math.inf, -math.inf)], "all are minus infinity"),
        ([floats(1, math.nan)], "a score is no number"),
        ([floats(1, math.inf)], "a score is no number"),
        ([floats(1, 2, 3)], "scores is float32 [3] instead of scores float32 [2]"),
        ([np.array([1, 2], np.uint8)], "scores is uint8 [2] instead of"),
        ([np.array([[1, 2]], np.float32)], "scores is float32 [1, 2] instead of"),
        ([], "there are 0 outputs instead of 1"),
        ([floats(1, 2), floats(1, 2)], "there are 2 outputs instead of 1"),
    ],
)
def test_what_keeps_scores_from_being_an_s_cnns(outputs: list[NDArray[Any]], told: str | None) -> None:
    for kind in ("s-cnn", "parity"):
        problem = MODELS[kind].problem(outputs)
        assert problem is None if told is None else told in str(problem)


@pytest.mark.parametrize(
    ("box", "told"),
    [
        (floats(-0.5, 0, 1.5, 1), None),
        (floats(0, 0, 1, -math.inf), "no finite number"),
        (floats(0, 0, 1, math.nan), "no finite number"),
        (floats(0, 0, 1), "box is float32 [3] instead of box float32 [4]"),
    ],
)
def test_what_keeps_a_box_from_being_a_localisers(box: NDArray[Any], told: str | None) -> None:
    problem = MODELS["localiser"].problem([box])
    assert problem is None if told is None else told in str(problem)


BOXES, CONFIDENCES, CLASSES = np.zeros((2, 4), np.float32), floats(0, 1), np.array([[0.3, 0.7], [1, 0]], np.float32)


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ((BOXES, CONFIDENCES, CLASSES), None),
        ((BOXES[:0], CONFIDENCES[:0], CLASSES[:0]), None),
        ((BOXES - 9, CONFIDENCES, CLASSES), None),
        ((BOXES, CONFIDENCES, 1.009 * CLASSES), None),
        ((BOXES, CONFIDENCES, 0.98 * CLASSES), "do not sum to 1"),
        ((BOXES, CONFIDENCES, np.array([[1.5, -0.5]] * 2, np.float32)), "a class probability is not from 0 to 1"),
        ((BOXES, CONFIDENCES, CLASSES * math.nan), "a class probability is not"),
        ((BOXES, CONFIDENCES - 0.5, CLASSES), "a confidence is not from 0 to 1"),
        ((BOXES, CONFIDENCES + 0.5, CLASSES), "a confidence is not from 0 to 1"),
        ((BOXES, CONFIDENCES + math.nan, CLASSES), "a confidence is not"),
        ((BOXES + math.inf, CONFIDENCES, CLASSES), "a side of a box is no finite number"),
        ((BOXES[:1], CONFIDENCES, CLASSES), "there are 1 boxes, 2 confidences and 2 rows of classes"),
        ((BOXES, CONFIDENCES[:1], CLASSES), "there are 2 boxes, 1 confidences"),
        ((BOXES, CONFIDENCES, CLASSES[:1]), "and 1 rows of classes"),
        ((BOXES, CONFIDENCES, CLASSES[:, :1]), "class_probabilities is float32 [2, 1] instead of"),
        ((BOXES[:, :3], CONFIDENCES, CLASSES), "boxes is float32 [2, 3] instead of boxes float32 [any, 4]"),
        ((BOXES, CONFIDENCES), "there are 2 outputs instead of 3"),
    ],
)
def test_what_keeps_detections_from_being_a_collage_cnns(outputs: Any, told: str | None) -> None:
    problem = COLLAGE.problem(outputs)
    assert problem is None if told is None else told in str(problem)


@pytest.mark.parametrize(("k", "most"), [(2, 16384), (8, 16384), (9, 12945), (16, 4096)])
def test_an_answer_has_no_more_detections_than_a_frontend_can_place(k: int, most: int) -> None:
    info = ModelInfo.collage("many", LABELS, 64, k)
    assert info.most_detections == most
    assert info.answer_bytes == ANSWER_EXTRA_BYTES + 4 * most * (4 + 1 + 2)
    outputs = [
        np.zeros((most + 1, 4), np.float32),
        np.ones(most + 1, np.float32),
        np.ones((most + 1, 2), np.float32) / 2,
    ]
    assert info.problem([output[:-1] for output in outputs]) is None
    assert info.problem(outputs) == f"there are {most + 1} detections: at most {most} make sense"
    boxes, *others = info.outputs
    assert replace(info, outputs=(replace(boxes, shape=(most, 4)), *others)).outputs[0].shape == (most, 4)
    with pytest.raises(ValueError, match=f"{most + 1} detections are too many: at most {most} in one collage"):
        replace(info, outputs=(replace(boxes, shape=(most + 1, 4)), *others))


def test_labels_that_cannot_be_sent_are_refused() -> None:
    assert ModelInfo.make("s", ModelKind.S_CNN, ("x" * 1024, ""), 32).labels[1] == ""
    for labels, told in ((("x" * 1025,), "at most 1024 characters"), (("\udc80",), "half a surrogate")):
        with pytest.raises(ValueError, match=told):
            ModelInfo.make("s", ModelKind.S_CNN, labels, 32)


@pytest.mark.parametrize("row", [(-0.2, 0.6, 0.6), (-0.3, -0.3, 1.6)])
def test_class_probabilities_that_sum_to_1_may_still_be_none(row: tuple[float, ...]) -> None:
    model = ModelInfo.collage("three", ("a", "b", "c"), 8, 2)
    outputs = (BOXES[:1], CONFIDENCES[:1], np.array([row], np.float32))
    assert model.problem(outputs) == "a class probability is not from 0 to 1"
