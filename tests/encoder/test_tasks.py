"""What outputs mean."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.tasks import TASKS, TaskName

CLASSES, BOX = TASKS["classification"], TASKS["localisation"]


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_every_name_has_a_task() -> None:
    assert TASKS.keys() == set(TaskName)


@given(st.lists(st.one_of(st.floats(-80, 80), st.just(-math.inf)), min_size=1, max_size=12))
def test_classes_are_answered_with_probabilities(values: list[float]) -> None:
    logits = np.append(array(*values), np.float32(1.0))
    answer = CLASSES.answer(logits)
    assert answer.dtype == np.float32
    assert answer.sum() == pytest.approx(1, abs=1e-5)
    assert answer.argmax() == logits.argmax()
    assert CLASSES.confidence(logits) == pytest.approx(answer.max())


def test_large_logits_do_not_overflow() -> None:
    np.testing.assert_allclose(CLASSES.answer(array(1000, 1000, 0)), [0.5, 0.5, 0])


def test_classes_agree_by_the_first_and_score_by_the_truth() -> None:
    assert CLASSES.agree(array(1, 3, 2), array(0, 9, 0))
    assert CLASSES.agree(array(1, 3, 2), array(2, 9, 0))
    assert not CLASSES.agree(array(1, 3, 2), array(9, 0, 0))
    assert [CLASSES.score(array(1, 3, 2), truth) for truth in (0, 1, 2)] == [0, 1, 0]


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ((-0.5, 0.25, 1.5, 0.75), (0, 0.25, 1, 0.75)),
        ((0.75, 0.25, 0.5, 1.5), (0.5, 0.25, 0.75, 1)),
        ((0, 1.25, 1, 0.5), (0, 0.5, 1, 1)),
    ],
)
def test_a_box_is_answered_within_its_image_and_in_order(output: tuple[float, ...], answer: tuple[float, ...]) -> None:
    found = BOX.answer(array(*output))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, answer)


@pytest.mark.parametrize(("box", "confidence"), [((0, 0, 1, 1), 1), ((0.5, 0, 0.5, 1), 0), ((0, 0.6, 1, 0.4), 0)])
def test_a_box_that_is_none_is_not_trusted(box: tuple[float, ...], confidence: float) -> None:
    assert BOX.confidence(array(*box)) == confidence


@pytest.mark.parametrize(
    ("one", "other", "score"),
    [
        ((0, 0, 1, 1), (0, 0, 1, 1), 1),
        ((0, 0, 0.5, 1), (0.5, 0, 1, 1), 0),
        ((0, 0, 0.25, 1), (0.5, 0, 1, 1), 0),
        ((0, 0, 0.5, 1), (0, 0, 1, 1), 0.5),
        ((0, 0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75), 1 / 7),
        ((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5), 0),
        ((0.6, 0.6, 0.4, 0.4), (0, 0, 1, 1), 0.04),
    ],
)
def test_boxes_score_by_intersection_over_union(one: tuple[float, ...], other: tuple[float, ...], score: float) -> None:
    assert BOX.score(array(*one), array(*other)) == pytest.approx(score)
    assert BOX.score(array(*other), array(*one)) == pytest.approx(score)
    assert BOX.agree(array(*one), array(*other)) == (score >= 0.5)


def test_the_outputs_have_the_names_of_the_open_inference_protocol() -> None:
    assert (CLASSES.output, BOX.output) == ("probabilities", "box")
