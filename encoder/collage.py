"""The collage code: images side by side in one picture, detections back to cells (Collage inference, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoder.code import Prediction
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

    def __init__(self, grid: Grid, detection_threshold: float = 0.15) -> None:
        self.grid = grid
        self.detection_threshold = detection_threshold

    @property
    def members(self) -> int:
        """N = K * K."""
        return self.grid.cells

    def fits(self, images: Sequence[Pixels | None]) -> bool:
        """Whether all images have their cell's size, so that ``encode`` only copies them."""
        return all(
            image is None or image.shape[1::-1] == self.grid.cell_size(cell) for cell, image in enumerate(images)
        )

    def encode(self, images: Sequence[Pixels | None]) -> list[Pixels]:
        """One collage, uint8 ``[size, size, 3]``; images that have not their cell's size are resized by a box filter.

        That takes a third of the time of Lanczos, and no accuracy that could be seen (docs/speed.md).
        """
        if len(images) != self.members:
            raise ValueError(f"a group has {self.members} members (None where empty), got {len(images)}")
        collage = np.zeros((self.grid.size, self.grid.size, 3), np.uint8)
        for cell, image in enumerate(images):
            if image is not None:
                left, top, right, bottom = self.grid.box(cell)
                collage[top:bottom, left:right] = shrink(image, *self.grid.cell_size(cell), Image.Resampling.BOX)
        return [collage]

    def decode(
        self,
        outputs: Sequence[Detections | None],
        filled: Sequence[bool],
        scores: Mapping[int, NDArray[np.float32]] | None = None,
    ) -> list[Prediction | None]:
        """Assign every confident detection to the cell it overlaps most; the most confident one wins a cell.

        Detections below the threshold, outside the collage or not finite are ignored; cells without one, and cells
        that are not ``filled``, have no prediction.
        """
        (found,) = outputs
        predictions: list[Prediction | None] = [None] * self.members
        if found is None:
            return predictions
        usable = (found.confidences >= self.detection_threshold) & np.isfinite(found.boxes).all(-1)
        candidates = np.flatnonzero(usable)
        if not len(candidates):
            return predictions
        overlap = overlaps(found.boxes[candidates], self.grid.boxes)
        cells, shares = overlap.argmax(-1).tolist(), overlap.max(-1).tolist()
        rows = candidates.tolist()
        for index in np.argsort(-found.confidences[candidates], kind="stable").tolist():
            cell, row = cells[index], rows[index]
            if shares[index] > 0 and filled[cell] and predictions[cell] is None:
                probabilities = found.class_probabilities[row]
                confidence = float(found.confidences[row] * probabilities.max())
                predictions[cell] = Prediction(probabilities, confidence)
        return predictions
