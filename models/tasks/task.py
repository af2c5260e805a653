"""What the training loop needs of a task: inputs and a loss to train on, and a score. The loop knows no task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

Ask = Callable[[Tensor], Tensor]
"""A model in evaluation mode: inputs uint8 ``[B, size, size, 3]`` to its raw output."""


class TrainingBatch(NamedTuple):
    """One step's work."""

    pixels: Tensor
    """The model's inputs, uint8 ``[B, size, size, 3]``."""
    loss: Callable[[Tensor], Tensor]
    """The loss, one number, of the model's raw output for them."""


class TrainingTask(Protocol):
    """What a model is trained for.

    Images are uint8 ``[M, H, W, 3]``; M is a multiple of ``members``, and each run of ``members`` of them makes one
    input of the model.
    """

    @property
    def members(self) -> int:
        """Images per input of the model."""
        ...

    def batch(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> TrainingBatch:
        """The inputs made of images, and the loss against ``targets``, float32 ``[M, ...]``; one of each per image."""
        ...

    def score(self, ask: Ask, images: Tensor, labels: Tensor) -> Tensor:
        """How well a model does on each image, ``[M]`` from 0 to 1; the mean over images is reported."""
        ...


class AnsweringTask(TrainingTask, Protocol):
    """A task whose models answer for every image, and so can teach others."""

    def outputs(self, ask: Ask, images: Tensor) -> Tensor:
        """What they say of each image, float32 ``[M, m]``: class scores, or boxes."""
        ...


class SingleTask(ABC):
    """A task of models that take one image, and for which parity models can stand in."""

    members = 1

    def batch(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> TrainingBatch:
        """The images themselves, and ``loss``."""
        return TrainingBatch(images, lambda out: self.loss(out.float(), targets))

    def outputs(self, ask: Ask, images: Tensor) -> Tensor:
        """What the model puts out, float32 ``[M, m]``."""
        return ask(images)

    def score(self, ask: Ask, images: Tensor, labels: Tensor) -> Tensor:
        """How right the model is: see ``right``."""
        return self.right(ask(images), labels)

    @abstractmethod
    def loss(self, out: Tensor, targets: Tensor) -> Tensor:
        """The loss, one number, of outputs float32 ``[M, m]`` against ``targets``, one of each per image."""

    @abstractmethod
    def right(self, out: Tensor, truth: Tensor) -> Tensor:
        """How right outputs ``[M, m]`` are, ``[M]`` from 0 to 1; ``truth`` are labels int64 ``[M]``, or boxes."""

    @abstractmethod
    def moved(self, targets: Tensor, own: Tensor, share: float) -> Tensor:
        """Targets that lie nearer by ``share`` to what a model says, its outputs ``own``; all ``[M, m]``."""


def top1(scores: Tensor, labels: Tensor) -> Tensor:
    """Whether the highest score is the label's: bool ``[M]`` of ``[M, classes]``."""
    return scores.argmax(-1) == labels
