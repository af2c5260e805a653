"""Classification of single images, as an s-cnn does it."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from models.tasks.task import Ask, TrainingBatch, top1


class ClassifyImages:
    """One image in, the scores of its classes out; targets are class probabilities ``[M, classes]``."""

    members = 1

    def batch(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> TrainingBatch:
        """The images themselves, and the cross-entropy."""
        return TrainingBatch(images, lambda out: self.loss(out.float(), targets))

    def outputs(self, ask: Ask, images: Tensor) -> Tensor:
        """Class scores, float32 ``[M, classes]``."""
        return ask(images)

    def score(self, ask: Ask, images: Tensor, labels: Tensor) -> Tensor:
        """Top-1: whether the highest score is the label's."""
        return self.right(ask(images), labels)

    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy."""
        return F.cross_entropy(out, targets)

    def right(self, out: Tensor, truth: Tensor) -> Tensor:
        """Top-1."""
        return top1(out, truth)

    def moved(self, targets: Tensor, own: Tensor, share: float) -> Tensor:
        """Class probabilities nearer to a model's."""
        return targets + share * (own.softmax(1) - targets)
