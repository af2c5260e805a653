"""Descriptions of models that take, or give, something for every member of a group."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from collage.model_info import LOCALISATION, CodeInfo, ModelInfo, ModelKind, TensorSpec
from collage.v1 import model_pb2

LABELS = ("T-shirt/top", "Trouser")
KEYED = ModelInfo.make("k", ModelKind.PARITY, LABELS, 32, code=CodeInfo("linear", 2, weights=(0.5, 0.5), keys=(0, 4)))
CONCATENATION = ModelInfo.make("c", ModelKind.PARITY, LABELS, 32, code=CodeInfo("concatenation", 4, heads=True))
STACKED = ModelInfo.make("s", ModelKind.PARITY, LABELS, 32, code=CodeInfo("stacked", 3, heads=True, stacked=True))


@pytest.mark.parametrize("info", [KEYED, CONCATENATION, STACKED], ids=["keys", "heads", "stacked"])
def test_json_and_the_wire_keep_them(info: ModelInfo) -> None:
    assert ModelInfo.from_json(info.to_json()) == info
    message = model_pb2.GetModelInfoResponse.FromString(info.to_proto().SerializeToString())
    assert ModelInfo.from_proto(message) == info


def test_inputs_and_outputs_of_models_with_something_for_every_member() -> None:
    boxes = ModelInfo.make("b", ModelKind.PARITY, (), 32, task=LOCALISATION, code=STACKED.code)
    for info, given, gives in (
        (KEYED, (32, 32, 3), (2,)),
        (CONCATENATION, (32, 32, 3), (4, 2)),
        (STACKED, (3, 32, 32, 3), (3, 2)),
        (boxes, (3, 32, 32, 3), (3, 4)),
    ):
        assert (info.input.shape, info.outputs[0].shape, info.size) == (given, gives, 32)
    with pytest.raises(ValueError, match=r"must be uint8 \[3, size, size, 3\], not uint8 \[32, 32, 3\]"):
        replace(STACKED, input=TensorSpec("image", "uint8", (32, 32, 3)))
    with pytest.raises(ValueError, match=r"must be uint8 \[size, size, 3\], not uint8 \[3, 32, 32, 3\]"):
        replace(CONCATENATION, input=TensorSpec("image", "uint8", (3, 32, 32, 3)))


def test_every_member_needs_a_score() -> None:
    rows = np.zeros((4, 2), np.float32)
    assert CONCATENATION.problem([rows]) is None
    rows[2] = -np.inf
    assert CONCATENATION.problem([rows]) == "a score is no number, or all are minus infinity"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"keys": [0]}, "the code needs 2 keys, one per member, or none: not 1"),
        ({"keys": [0, 8]}, "a key of the code must be a whole number from 0 to 7, not 8"),
        ({"keys": 4}, "the code's keys must be a list of numbers"),
        ({"heads": 1}, "the code's heads must be true or false, not 1"),
        ({"stacked": "yes"}, "the code's stacked must be true or false, not 'yes'"),
        ({"members": 17, "keys": [], "weights": [], "heads": True}, "must be a whole number from 1 to 16, not 17"),
        ({"members": 17, "keys": [], "weights": [], "stacked": True}, "must be a whole number from 1 to 16, not 17"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], told: str) -> None:
    content = json.loads(KEYED.to_json())
    content["code"] |= change
    with pytest.raises(ValueError, match=told):
        ModelInfo.from_json(json.dumps(content))
