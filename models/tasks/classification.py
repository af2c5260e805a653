"""Classification of single images, as an s-cnn does it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from models.tasks.task import SingleTask, top1


class ClassifyImages(SingleTask):
    """One image in, the scores of its classes out; targets are class probabilities ``[M, classes]``."""

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy."""
        return F.cross_entropy(out, targets)

    def right(self, out: Tensor, truth: Tensor) -> Tensor:
        """Top-1."""
        return top1(out, truth)

    def moved(self, targets: Tensor, own: Tensor, share: float) -> Tensor:
        """Class probabilities nearer to a model's."""
        return targets + share * (own.softmax(1) - targets)
