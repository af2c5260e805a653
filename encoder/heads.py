"""Codes whose model answers for every member: images reduced and side by side, or whole and one behind the other.

The first is the concatenation of Learning-based coded computation (its released encoders), a collage without boxes. The
second drops no pixel, and its redundant input is as large as all members' together.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoder.code import Decoding, GroupShape, Outputs, Source
from encoder.image import Pixels, shrink

MOST_HEADS = 16


class HeadsCode(ABC):
    """One redundant input for N members, of which the model gives N outputs, float32 ``[N, m]`` by place.

    A member's answer is its row, whatever became of the others. Places without a member are black.
    """

    name: str
    source = Source.PARITY

    def __init__(self, members: int, base: str = "") -> None:
        if not 2 <= members <= MOST_HEADS:
            raise ValueError(f"the code {self.name} has 2 to {MOST_HEADS} members, not {members}")
        self.shape, self.base = GroupShape.collage(members), base

    @abstractmethod
    def encode(self, inputs: Sequence[Pixels | None]) -> list[Pixels]:
        """The one redundant input."""

    @abstractmethod
    def quick(self, inputs: Sequence[Pixels | None]) -> bool:
        """See ``Code``."""

    def decode(
        self, own: Mapping[int, NDArray[np.float32]], coded: Mapping[int, Outputs], filled: Sequence[int]
    ) -> Mapping[int, Decoding]:
        """The rows of members that have no answer of their own; a row that is not finite has no entry."""
        if 0 not in coded:
            return {}
        rows = coded[0][0]
        return {place: Decoding(rows[place]) for place in filled if place not in own and np.isfinite(rows[place]).all()}

    def _side(self, inputs: Sequence[Pixels | None]) -> int:
        """The inputs' width and height in pixels; raises ValueError unless there are N places of one square shape."""
        shapes = {each.shape for each in inputs if each is not None}
        if len(inputs) != self.shape.members or len(shapes) != 1:
            raise ValueError(f"a group of this code has {self.shape.members} places, and inputs of one shape")
        height, width = map(int, shapes.pop()[:2])
        if height != width:
            raise ValueError(f"the inputs of this code are square, not {width} x {height}")
        return width


class ConcatenationCode(HeadsCode):
    """Images reduced by a box filter until all fit into one of their size: uint8 ``[size, size, 3]``.

    Two lie one above the other, four in quadrants; in general there are ``columns`` columns, filled row by row. Raises
    ValueError for a number of members that fills no such rectangle.
    """

    name = "concatenation"

    def __init__(self, members: int, base: str = "") -> None:
        super().__init__(members, base)
        self.columns = math.isqrt(members)
        self.rows = members // self.columns
        if self.rows * self.columns != members:
            raise ValueError(f"{members} images do not fill a rectangle of {self.columns} columns")

    def box(self, place: int, size: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a place in pixels; right and bottom are exclusive."""
        row, column = divmod(place, self.columns)
        return (
            column * size // self.columns,
            row * size // self.rows,
            (column + 1) * size // self.columns,
            (row + 1) * size // self.rows,
        )

    def quick(self, inputs: Sequence[Pixels | None]) -> bool:
        """Never: images are resized."""
        return False

    def encode(self, inputs: Sequence[Pixels | None]) -> list[Pixels]:
        """One picture of the inputs' size."""
        size = self._side(inputs)
        picture = np.zeros((size, size, 3), np.uint8)
        for place, image in enumerate(inputs):
            if image is not None:
                left, top, right, bottom = self.box(place, size)
                cell = picture[top:bottom, left:right]
                if size % self.rows == size % self.columns == 0:
                    _mean_of_blocks(image, self.rows, self.columns, cell)
                else:
                    cell[:] = shrink(image, right - left, bottom - top, Image.Resampling.BOX)
        return [picture]


def _mean_of_blocks(image: Pixels, rows: int, columns: int, out: Pixels) -> None:
    """Write an image of which ``rows x columns`` pixels became one: many times as fast as Pillow does it."""
    sums = image[::rows].astype(np.uint16)
    for row in range(1, rows):
        sums += image[row::rows]
    if columns > 1:
        lines, sums = sums, np.empty(out.shape, np.uint16)
        for colour in range(3):  # long runs of numbers are added up faster than three at a time
            *others, last = (lines[:, column::columns, colour] for column in range(columns))
            np.add(reduce(np.add, others), last, out=sums[..., colour])
    sums += rows * columns // 2
    np.floor_divide(sums, rows * columns, out=out, casting="unsafe")


class StackedCode(HeadsCode):
    """All images as they are, one behind the other: uint8 ``[N, size, size, 3]``, the channels of one wide input."""

    name = "stacked"

    def quick(self, inputs: Sequence[Pixels | None]) -> bool:
        """Always: it only copies."""
        return True

    def encode(self, inputs: Sequence[Pixels | None]) -> list[Pixels]:
        """One array of N inputs."""
        size = self._side(inputs)
        black = np.zeros((size, size, 3), np.uint8)
        return [np.stack([black if each is None else each for each in inputs])]
