"""Learned codes, with networks that stand for others: a mean, and the matrix that takes it apart again."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder.code import GroupShape, Source
from encoder.learned import LearnedCode, Networks

APART = np.array([[0, -1, 2], [-1, 0, 2]], np.float32)
"""Of own outputs and the mean's, with zeros for the one that is missing, what is missing."""


def mean(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    made: NDArray[np.uint8] = images.mean(0, keepdims=True).astype(np.uint8)
    return made


def apart(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(invalid="ignore"):
        decoded: NDArray[np.float32] = APART @ outputs
    return decoded


def running(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums of all rows up to each, for the last three of five."""
    sums: NDArray[Any] = np.cumsum(outputs, 0)[2:]
    return sums


CODE = LearnedCode(Networks(2, 1, mean, apart), "v1")
ONE, TWO = np.float32([1, 5]), np.float32([3, -1])


def test_the_encoder_gets_the_group_and_gives_its_redundant_inputs() -> None:
    first, second = np.full((4, 4, 3), 10, np.uint8), np.full((4, 4, 3), 30, np.uint8)
    (redundant,) = CODE.encode([first, second])
    assert (redundant == 20).all()
    assert redundant.shape == (4, 4, 3)
    for group in ([first, None], [first], [first, second[:2]]):
        with pytest.raises(ValueError, match="2 inputs of one shape"):
            CODE.encode(group)


@pytest.mark.parametrize("lost", [0, 1])
def test_the_decoder_gets_zeros_for_what_is_missing(lost: int) -> None:
    decoded = CODE.decode({1 - lost: (ONE, TWO)[1 - lost]}, {0: [(ONE + TWO) / 2]}, [0, 1])
    assert decoded.keys() == {lost}
    np.testing.assert_allclose(decoded[lost].output, (ONE, TWO)[lost])
    assert decoded[lost].confidence is None


def test_outputs_are_in_their_rows_whichever_are_there() -> None:
    code = LearnedCode(Networks(3, 2, lambda images: images[:2], running))
    decoded = code.decode({2: ONE}, {0: [10 * ONE], 1: [100 * ONE]}, [0, 1, 2])
    np.testing.assert_array_equal(decoded[0].output, ONE)
    np.testing.assert_array_equal(decoded[1].output, 11 * ONE)
    decoded = code.decode({0: ONE, 2: ONE}, {1: [100 * ONE]}, [0, 1, 2])
    np.testing.assert_array_equal(decoded[1].output, 2 * ONE)


def test_what_cannot_be_decoded_has_no_entry() -> None:
    assert CODE.decode({}, {0: [ONE]}, [0, 1]) == {}
    assert CODE.decode({0: ONE}, {}, [0, 1]) == {}
    assert CODE.decode({0: ONE, 1: TWO}, {0: [ONE]}, [0, 1]) == {}
    assert CODE.decode({0: ONE}, {0: [ONE]}, [0]) == {}
    assert CODE.decode({0: ONE * np.float32(np.inf)}, {0: [ONE]}, [0, 1]) == {}


def test_its_groups_are_full_and_any_n_outputs_are_enough() -> None:
    assert CODE.shape == GroupShape(2, 1, needed=2, fewest=2)
    assert (CODE.source, CODE.base, CODE.quick([])) == (Source.CODED, "v1", False)
