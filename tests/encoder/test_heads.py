"""Codes whose model has an output for every member: what it is given, and whose answer is whose."""

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder.code import GroupShape, Source
from encoder.heads import ConcatenationCode, HeadsCode, StackedCode


def images(count: int, size: int = 12) -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(count).integers(0, 256, (count, size, size, 3), np.uint8))


@pytest.mark.parametrize(("members", "columns", "rows"), [(2, 1, 2), (3, 1, 3), (4, 2, 2), (6, 2, 3), (9, 3, 3)])
def test_concatenated_images_are_means_of_blocks_in_their_own_places(members: int, columns: int, rows: int) -> None:
    group = images(members)
    (picture,) = ConcatenationCode(members).encode(group)
    assert picture.dtype == np.uint8
    assert picture.shape == (12, 12, 3)
    height, width = 12 // rows, 12 // columns
    for place, image in enumerate(group):
        row, column = divmod(place, columns)
        found = picture[row * height : (row + 1) * height, column * width : (column + 1) * width]
        blocks = image.astype(float).reshape(height, rows, width, columns, 3).mean((1, 3))
        assert np.abs(found - blocks).max() <= 1, place


def test_places_that_do_not_divide_the_side_still_cover_it() -> None:
    code, group = ConcatenationCode(6), [np.full((31, 31, 3), 40 * (place + 1), np.uint8) for place in range(6)]
    (picture,) = code.encode(group)
    for place in range(6):
        left, top, right, bottom = code.box(place, 31)
        assert (picture[top:bottom, left:right] == 40 * (place + 1)).all()
    assert picture.all()


def test_stacked_images_are_whole_and_in_order() -> None:
    group = images(3)
    (stacked,) = StackedCode(3).encode(group)
    np.testing.assert_array_equal(stacked, np.array(group))
    assert stacked.dtype == np.uint8


@pytest.mark.parametrize("code", [ConcatenationCode(2), StackedCode(2)], ids=["concatenation", "stacked"])
def test_places_without_a_member_are_black(code: HeadsCode) -> None:
    white = np.full((4, 4, 3), 255, np.uint8)
    for place in (0, 1):
        (encoded,) = code.encode([white if place == 0 else None, white if place == 1 else None])
        (black,) = code.encode([white * 0, white]) if place else code.encode([white, white * 0])
        np.testing.assert_array_equal(encoded, black)
        assert encoded.max() == 255


@pytest.mark.parametrize("code", [ConcatenationCode(4), StackedCode(4)], ids=["concatenation", "stacked"])
def test_every_missing_answer_is_its_own_row(code: HeadsCode) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    own = {1: np.zeros(3, np.float32)}
    decoded = code.decode(own, {0: [rows]}, [0, 1, 3])
    assert decoded.keys() == {0, 3}
    for place, found in decoded.items():
        np.testing.assert_array_equal(found.output, rows[place])
        assert found.confidence is None
    assert code.decode(own, {}, range(4)) == {}


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_no_answer(wrong: float) -> None:
    rows = np.array([[1, wrong], [1, 2]], np.float32)
    assert StackedCode(2).decode({}, {0: [rows]}, [0, 1]).keys() == {1}


def test_one_output_is_enough_for_a_group_of_half_the_places() -> None:
    assert ConcatenationCode(4, "v1").shape == StackedCode(4).shape == GroupShape(4, 1, needed=1, fewest=2)
    assert ConcatenationCode(4, "v1").base == "v1"
    assert ConcatenationCode.source is StackedCode.source is Source.PARITY
    assert StackedCode(2).quick([]) and not ConcatenationCode(2).quick([])  # noqa: PT018 - one thought


def test_what_cannot_be_a_group_is_refused() -> None:
    square, wide = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)
    for code in (ConcatenationCode(2), StackedCode(2)):
        for group in ([square], [square, wide], [None, None], [square] * 3):
            with pytest.raises(ValueError, match="2 places, and inputs of one shape"):
                code.encode(group)
        with pytest.raises(ValueError, match="square, not 6 x 4"):
            code.encode([wide, wide])
    for members in (1, 17):
        with pytest.raises(ValueError, match="2 to 16 members"):
            StackedCode(members)
    with pytest.raises(ValueError, match="5 images do not fill a rectangle of 2 columns"):
        ConcatenationCode(5)
