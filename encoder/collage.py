"""The collage code: images side by side in one picture, detections back to cells (Collage inference, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoder.code import Decoding, GroupShape, Outputs, Source
from encoder.grid import Grid
from encoder.image import Pixels, shrink


@dataclass(frozen=True)
class Detections:
    """M detected objects: what a collage-cnn says of one collage.

    ``boxes`` float32 ``[M, 4]`` (left, top, right, bottom in shares of the collage's side), ``confidences`` float32
    ``[M]`` from 0 to 1, ``class_probabilities`` float32 ``[M, classes]``. In any order.
    """

    boxes: NDArray[np.float32]
    confidences: NDArray[np.float32]
    class_probabilities: NDArray[np.float32]


def overlaps(boxes: NDArray[np.float32], cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of every box with every cell: ``[M, 4]`` and ``[N, 4]`` to float32 ``[M, N]``."""
    corner = np.maximum(boxes[:, None, :2], cells[None, :, :2])
    opposite = np.minimum(boxes[:, None, 2:], cells[None, :, 2:])
    shared = _area(np.maximum(opposite - corner, 0))
    area = _area(np.maximum(boxes[:, 2:] - boxes[:, :2], 0))
    union = area[:, None] + _area(cells[:, 2:] - cells[:, :2]) - shared
    result: NDArray[np.float32] = shared / union
    return result


def _area(sides: NDArray[np.float32]) -> NDArray[np.float32]:
    area: NDArray[np.float32] = sides[..., 0] * sides[..., 1]
    return area


class CollageCode:
    """One redundant input per group: image i, reduced to cell i of a K x K collage; empty cells stay black."""

    name = "collage"
    source = Source.COLLAGE

    def __init__(self, grid: Grid, detection_threshold: float = 0.15, base: str = "") -> None:
        self.grid, self.detection_threshold, self.base = grid, detection_threshold, base
        self.shape = GroupShape.collage(grid.cells)

    def quick(self, inputs: Sequence[Pixels | None]) -> bool:
        """Whether all images have their cell's size, so that ``encode`` only copies them."""
        return all(
            image is None or image.shape[1::-1] == self.grid.cell_size(cell) for cell, image in enumerate(inputs)
        )

    def encode(self, inputs: Sequence[Pixels | None]) -> list[Pixels]:
        """One collage, uint8 ``[size, size, 3]``; images of another size than their cell's are resized by a box filter.

        A box filter takes a third of the time of Lanczos, and no accuracy that could be seen (docs/speed.md).
        """
        if len(inputs) != self.grid.cells:
            raise ValueError(f"a group has {self.grid.cells} members (None where empty), got {len(inputs)}")
        collage = np.zeros((self.grid.size, self.grid.size, 3), np.uint8)
        for cell, image in enumerate(inputs):
            if image is not None:
                left, top, right, bottom = self.grid.box(cell)
                collage[top:bottom, left:right] = shrink(image, *self.grid.cell_size(cell), Image.Resampling.BOX)
        return [collage]

    def decode(
        self, own: Mapping[int, NDArray[np.float32]], coded: Mapping[int, Outputs], filled: Sequence[int]
    ) -> Mapping[int, Decoding]:
        """Assign every confident detection to the cell it overlaps most; the most confident one wins a cell.

        ``coded[0]`` is what ``Detections`` has. Detections below the threshold, outside the collage or not finite are
        ignored; cells without one, and members with an answer of their own, have no entry. The confidence is that of
        the detection times the largest class probability. What models compute a little below 0 or above 1 counts as
        that.
        """
        if 0 not in coded:
            return {}
        found = Detections(*coded[0])
        usable = (found.confidences >= self.detection_threshold) & np.isfinite(found.boxes).all(-1)
        candidates = np.flatnonzero(usable)
        if not len(candidates):
            return {}
        overlap = overlaps(found.boxes[candidates], self.grid.boxes)
        cells, shares = overlap.argmax(-1).tolist(), overlap.max(-1).tolist()
        rows = candidates.tolist()
        wanted = set(filled) - own.keys()
        decoded: dict[int, Decoding] = {}
        for index in np.argsort(-found.confidences[candidates], kind="stable").tolist():
            cell, row = cells[index], rows[index]
            if shares[index] > 0 and cell in wanted and cell not in decoded:
                probabilities = found.class_probabilities[row].clip(0, 1)
                confidence = min(1.0, float(found.confidences[row] * probabilities.max()))
                with np.errstate(divide="ignore"):  # of probability 0: minus infinity, as logits have it
                    decoded[cell] = Decoding(np.log(probabilities), confidence)
        return decoded
