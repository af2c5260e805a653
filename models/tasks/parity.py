"""Redundant inputs of a code in, what decodes the base model's outputs out, as a parity model does it.

Learning-based coded computation, section V. The paper's loss is the squared error of the sum of outputs: that of a
decoded output, as all others are exact.
"""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from encoder.code import Code
from encoder.linear import LinearCode
from models.tasks.classification import ClassifyImages
from models.tasks.task import Ask, SingleTask, TrainingBatch


class ProtectGroups:
    """Redundant input ``row`` of a code in; out comes the code's mean of the members' outputs, or one for each member.

    Targets are those of the base model's ``task``, ``[M, m]``: class probabilities, or boxes. With ``stored`` they have
    the base model's outputs behind them, ``[M, 2 m]``, which then need not be those for the images as they are seen.
    ``base`` is asked for them otherwise.

    The loss is the mean squared error of all decoded outputs, each from all others, plus ``member`` times the base
    model's own loss of them against the targets, which move towards its answers by the share ``distil``.
    """

    def __init__(
        self,
        code: Code,
        row: int,
        base: Ask,
        member: float = 0.0,
        distil: float = 0.0,
        stored: bool = False,
        task: SingleTask | None = None,
    ) -> None:
        self.task = task or ClassifyImages()
        self.code, self.row, self.base = code, row, base
        self.member, self.distil, self.stored = member, distil, stored
        self._scored: dict[bytes, Tensor] = {}
        self.weights = None
        if isinstance(code, LinearCode):
            self.weights = torch.from_numpy(code.weights[row].astype(np.float32))[:, None]

    @property
    def members(self) -> int:
        """N, the members of a group."""
        return self.code.shape.members

    def batch(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> TrainingBatch:
        """Redundant inputs as they are served, and the loss of what is decoded from their outputs."""
        wanted = targets
        if self.stored:
            wanted, own = targets.chunk(2, 1)
        else:
            own = self.base(images)
        wanted = self.task.moved(wanted, own, self.distil)

        def loss(out: Tensor) -> Tensor:
            decoded = self.decoded(out.float(), own)
            error = F.mse_loss(decoded, own)
            return error + self.member * self.task.loss(decoded, wanted) if self.member else error

        return TrainingBatch(self.encoded(images), loss)

    def encoded(self, images: Tensor) -> Tensor:
        """One redundant input for each group of uint8 ``[M, H, W, 3]``."""
        groups = images.cpu().numpy().reshape(-1, self.members, *images.shape[1:])
        return torch.from_numpy(np.stack([self.code.encode([*group])[self.row] for group in groups])).to(images.device)

    def decoded(self, out: Tensor, own: Tensor) -> Tensor:
        """Every member's output, each decoded as if it alone were lost: float32 ``[M, m]`` like ``own``."""
        if self.weights is None:
            return out.reshape(own.shape)
        weights = self.weights.to(own.device)
        groups = own.view(len(out), self.members, -1)
        error = out - (weights * groups).sum(1)
        return (groups + error[:, None] / weights).flatten(0, 1)

    def score(self, ask: Ask, images: Tensor, labels: Tensor) -> Tensor:
        """How right the base model's task finds every image's answer if that alone is lost.

        The base model is asked once about images that come again, as those of validation do after every epoch.
        """
        key = sha256(images.cpu().numpy().tobytes()).digest()
        if key not in self._scored:
            self._scored[key] = self.base(images)
        return self.task.right(self.decoded(ask(self.encoded(images)), self._scored[key]), labels)
