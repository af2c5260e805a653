"""What is decoded where answers are lost, with models whose right answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder.berrut import ApproxIferCode
from encoder.code import Outputs
from encoder.heads import StackedCode
from encoder.linear import LinearCode, mean_weights
from models.data import Split
from models.lost import CodeAtWork, accuracy, batched, degraded, metrics_of, outputs_of

CLASSES, SIZE = 6, 4
WEIGHTS = np.random.default_rng(0).normal(size=(SIZE * SIZE * 3, CLASSES)).astype(np.float32)


def linear(pixels: NDArray[np.uint8]) -> Outputs:
    """A base model that is linear."""
    return [pixels.reshape(len(pixels), -1).astype(np.float32) / 255 @ WEIGHTS]


def split(images: int) -> Split:
    """Images whose means are whole numbers, of which the base model is right about every second one."""
    rng = np.random.default_rng(1)
    pixels = (12 * rng.integers(0, 21, (images, SIZE, SIZE, 3))).astype(np.uint8)
    first = linear(pixels)[0].argmax(1)
    return Split(pixels, np.where(np.arange(images) % 2, first, (first + 1) % CLASSES), tuple(map(str, range(images))))


@pytest.mark.parametrize(("members", "inputs"), [(2, 1), (3, 1), (3, 2), (2, 2)])
def test_a_linear_base_model_loses_nothing(members: int, inputs: int) -> None:
    images = split(50)
    own = outputs_of(linear, images)
    work = CodeAtWork("", LinearCode(mean_weights(members, inputs)), [linear] * inputs, inputs)
    assert accuracy(own, images).tolist() == [0.5]
    found = degraded(work, images, own, seed=0, losses=range(1, inputs + 1))
    assert found.tolist() == [[0.5]] * inputs, "fifty images do not fill the last group of 3: those there count once"


@pytest.mark.parametrize("members", [2, 9])
def test_a_students_answers_are_those_to_each_image_of_the_group(members: int) -> None:
    images = split(50)
    asked: list[tuple[int, ...]] = []

    def student(pixels: NDArray[np.uint8]) -> Outputs:
        asked.append(pixels.shape)
        return linear(pixels)

    work = batched(student, members, "student")
    assert degraded(work, images, outputs_of(linear, images), seed=0).tolist() == [[0.5]]
    assert asked == [(-(-50 // members) * members, SIZE, SIZE, 3)]
    assert work.batch == members


def test_an_answer_that_cannot_be_decoded_is_wrong() -> None:
    images = split(20)
    work = CodeAtWork("", LinearCode(mean_weights(2, 1)), [linear], 1)
    assert degraded(work, images, outputs_of(linear, images), seed=0, losses=(1, 2)).tolist() == [[0.5], [0.0]]


def test_metrics_count_labels_among_the_first_classes() -> None:
    images = split(40)
    own = outputs_of(linear, images)
    order = np.argsort(-own, 1)
    labels = order[np.arange(40), np.arange(40) % 6]
    images = replace(images, labels=labels)
    assert accuracy(own, images, ("top1", "top5")).tolist() == [7 / 40, 34 / 40]
    work = CodeAtWork("", LinearCode(mean_weights(2, 1)), [linear], 1)
    found = degraded(work, images, own, 0, metrics=("top1", "top5"))
    np.testing.assert_allclose(found, [[7 / 40, 34 / 40]])
    assert metrics_of(images, 99) == ("top1",)
    assert metrics_of(images, 100) == ("top1", "top5")


def test_boxes_are_judged_by_their_overlap() -> None:
    images = split(20)
    own = np.tile(np.array([0, 0, 1, 1], np.float32), (20, 1))
    boxes = np.tile(np.array([0, 0, 0.5, 1], np.float32), (20, 1))
    boxes[::2, 2] = 1
    images = replace(images, boxes=boxes)

    def whole(pixels: NDArray[np.uint8]) -> Outputs:
        return [own[: len(pixels)]]

    assert metrics_of(images, 4) == ("iou",)
    assert accuracy(own, images, ("iou",)).tolist() == [0.75]
    work = CodeAtWork("", LinearCode(mean_weights(2, 1)), [whole], 1)
    assert degraded(work, images, own, 0, (1, 2), ("iou",)).tolist() == [[0.75], [0.0]]


def test_every_group_asks_each_model_for_its_own_input() -> None:
    asked: list[Sequence[int]] = []

    def heads(stacked: NDArray[np.uint8]) -> Outputs:
        asked.append(stacked.shape)
        return [linear(stacked.reshape(-1, SIZE, SIZE, 3))[0].reshape(len(stacked), 2, -1)]

    images = split(130)
    found = degraded(CodeAtWork("", StackedCode(2), [heads], 1), images, outputs_of(linear, images), seed=3)
    assert found.tolist() == [[0.5]]
    assert asked == [(64, 2, SIZE, SIZE, 3), (1, 2, SIZE, SIZE, 3)]


def test_members_that_are_not_sent_alone_are_all_decoded() -> None:
    images = split(30)
    work = CodeAtWork("", ApproxIferCode(2, 3), [linear] * 3, 1, alone=False)
    nothing = np.full((30, CLASSES), np.nan, np.float32)  # which nobody may look at
    whole, degraded_ = degraded(work, images, nothing, seed=0, losses=(0, 1))[:, 0]
    assert 0.2 < degraded_ <= whole <= 0.6
    assert degraded_ == pytest.approx(0.5, abs=0.15), (
        "two points of a straight line, but what leaves 0 to 255 is cut off"
    )
