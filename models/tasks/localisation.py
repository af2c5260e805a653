"""Localisation of the object in an image, as a localiser does it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.tasks.task import SingleTask


class LocaliseObjects(SingleTask):
    """One image in, the box of its object out, ``[4]`` as in ``models.boxes``; targets are boxes ``[M, 4]``."""

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """What boxes lack to be the targets, in their overlap and in the sum of their sides' absolute errors.

        Boxes that do not touch their target have the second part to go by.
        """
        return (1 - overlap(out, targets)).mean() + 4 * F.l1_loss(out, targets)

    def right(self, out: Tensor, truth: Tensor) -> Tensor:
        """Intersection over union, of the boxes as a caller gets them: see ``encoder.tasks.Localisation``."""
        return overlap(out.view(-1, 2, 2).sort(1).values.flatten(1).clamp(0, 1), truth)

    def moved(self, targets: Tensor, own: Tensor, share: float) -> Tensor:
        """Boxes nearer to a model's."""
        return targets + share * (own - targets)


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes and as many others, both float32 ``[M, 4]``; ``[M]``.

    The area of a box whose right side is not beyond its left one, or bottom not below its top, is 0.
    """
    sides = torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])
    shared = sides.clamp(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1) + (others[:, 2:] - others[:, :2]).clamp(min=0).prod(1)
    return shared / (areas - shared).clamp(min=1e-6)
