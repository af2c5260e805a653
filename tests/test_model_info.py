"""A model's description survives JSON and the wire, and a wrong one is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from collage.model_info import ModelInfo, ModelKind
from collage.v1 import worker_pb2

INFO = ModelInfo(
    name="fashion",
    kind=ModelKind.COLLAGE_CNN,
    labels=("T-shirt/top", "Trouser"),
    size=96,
    k=3,
    detection_threshold=0.25,
    accept_threshold=0.75,
    version="0123456789ab",
    extra={"top1": 0.93, "data": {"train": 60000}},
)


@pytest.mark.parametrize("kind", list(ModelKind))
def test_json_and_back(kind: ModelKind) -> None:
    info = replace(INFO, kind=kind)
    assert ModelInfo.from_json(info.to_json()) == info


@pytest.mark.parametrize("kind", list(ModelKind))
def test_the_wire_and_back_without_extra(kind: ModelKind) -> None:
    info = replace(INFO, kind=kind)
    message = worker_pb2.GetModelInfoResponse.FromString(info.to_proto().SerializeToString())
    assert ModelInfo.from_proto(message) == replace(info, extra={})


def test_four_fields_are_enough() -> None:
    info = ModelInfo.from_json('{"name": "m", "kind": "s-cnn", "labels": ["a"], "size": 32}')
    assert info == ModelInfo("m", ModelKind.S_CNN, ("a",), 32)
    assert (info.k, info.detection_threshold, info.accept_threshold, info.extra) == (1, 0.15, 1.0, {})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": ...}, "name, kind, labels, size"),
        ({"kind": ...}, "name, kind, labels, size"),
        ({"size": ...}, "name, kind, labels, size"),
        ({"sise": 32}, "known: accept_threshold, "),
        ({"kind": "yolo"}, "'yolo' is not a valid ModelKind"),
        ({"labels": []}, "labels must be"),
        ({"labels": "ab"}, "labels must be"),
        ({"labels": [1, 2]}, "labels must be"),
        ({"size": 0}, "size must be"),
        ({"size": "32"}, "size must be"),
        ({"k": 0}, "k must be"),
        ({"extra": []}, "extra must be"),
    ],
)
def test_a_wrong_description_is_refused_by_name(change: dict[str, Any], told: str) -> None:
    content = {**json.loads(INFO.to_json()), **change}
    text = json.dumps({key: value for key, value in content.items() if value is not ...})
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is checked below
        ModelInfo.from_json(text)
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["", "labels", "[]", "3", "null"])
def test_what_is_no_description_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own texts
        ModelInfo.from_json(text)


def test_an_unknown_kind_on_the_wire_is_refused() -> None:
    message = INFO.to_proto()
    message.kind = worker_pb2.MODEL_KIND_UNSPECIFIED
    with pytest.raises(ValueError, match="'fashion' has an unknown kind"):
        ModelInfo.from_proto(message)
