"""Classification of all images of a collage at once, as a collage-cnn does it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from encoder.grid import Grid
from models.augment import tile
from models.collage_cnn import cell_scores, collage_loss
from models.tasks.task import Ask, TrainingBatch, top1


class ClassifyCollages:
    """K x K images in, detections of all of them out; targets are class probabilities ``[M, classes]``.

    A share ``blank`` of the cells is left empty in training, as in a group that was closed early.
    """

    def __init__(self, grid: Grid, blank: float) -> None:
        self.grid, self.blank = grid, blank
        self.boxes = torch.from_numpy(grid.boxes.copy())

    @property
    def members(self) -> int:
        """N, the number of cells."""
        return self.grid.cells

    def batch(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> TrainingBatch:
        """Collages with some empty cells, and the loss of ``models.collage_cnn``."""
        filled = torch.from_numpy(rng.random(len(images)) >= self.blank).to(images.device)
        collages = tile(images * filled[:, None, None, None], self.grid)
        wanted = targets.view(len(collages), self.members, -1)
        return TrainingBatch(collages, lambda out: collage_loss(out, wanted, filled, self.boxes.to(out.device)))

    def outputs(self, ask: Ask, images: Tensor) -> Tensor:
        """Class scores at every image's own cell, float32 ``[M, classes]``."""
        out = ask(tile(images, self.grid))
        return cell_scores(out, self.boxes.to(out.device)).reshape(len(images), -1)

    def score(self, ask: Ask, images: Tensor, labels: Tensor) -> Tensor:
        """Top-1 at every image's own cell: an estimate of what decoding finds."""
        return top1(self.outputs(ask, images), labels)
