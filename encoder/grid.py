"""Geometry of a K x K collage (Collage inference, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Grid:
    """A square collage of ``size`` pixels divided into ``k`` x ``k`` cells, numbered row by row.

    Cell edges lie at ``round(i * size / k)``, so neighbouring cells differ by at most one pixel.
    """

    k: int
    size: int

    def __post_init__(self) -> None:
        if self.k < 1 or self.size < self.k:
            raise ValueError(f"a grid needs 1 <= k <= size, got k={self.k}, size={self.size}")

    @property
    def cells(self) -> int:
        """N, the number of cells."""
        return self.k * self.k

    @cached_property
    def edges(self) -> tuple[int, ...]:
        """The k + 1 pixel coordinates between cells, the same for rows and columns."""
        return tuple((2 * i * self.size + self.k) // (2 * self.k) for i in range(self.k + 1))

    def box(self, cell: int) -> tuple[int, int, int, int]:
        """Pixel box ``(left, top, right, bottom)`` of a cell; right and bottom are exclusive."""
        if not 0 <= cell < self.cells:
            raise IndexError(f"cell {cell} is outside a {self.k} x {self.k} grid")
        return self._pixel_boxes[cell]

    @cached_property
    def _pixel_boxes(self) -> tuple[tuple[int, int, int, int], ...]:
        spans = list(pairwise(self.edges))
        return tuple((left, top, right, bottom) for top, bottom in spans for left, right in spans)

    def cell_size(self, cell: int) -> tuple[int, int]:
        """Width and height of a cell in pixels."""
        left, top, right, bottom = self.box(cell)
        return right - left, bottom - top

    @cached_property
    def boxes(self) -> NDArray[np.float32]:
        """Ground-truth boxes as float32 ``[N, 4]`` (left, top, right, bottom), in shares of the collage's side."""
        boxes = np.array([self.box(cell) for cell in range(self.cells)], np.float32) / np.float32(self.size)
        boxes.flags.writeable = False
        return boxes
