"""Encoder and decoder networks, trained through a base model that stays as it is (sections IV-A to IV-D)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.learned_code import losses
from models.tasks.task import Ask, TrainingBatch


class LearnCode:
    """Groups of images in; out comes what is decoded after each loss, as ``models.learned_code.CodeNetworks`` has it.

    The loss is the mean squared error of the lost members' outputs over all losses of r outputs, plus ``member`` times
    their cross-entropy with class probabilities, which move towards the base model's by the share ``distil``.
    """

    def __init__(self, members: int, inputs: int, member: float = 0.0, distil: float = 0.0) -> None:
        self.members, self.member, self.distil = members, member, distil
        self.lost = losses(members, inputs)[:, :members]

    def batch(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> TrainingBatch:
        """Stacked groups, uint8 ``[B, N, H, W, 3]``, and the loss of what is decoded."""

        def loss(out: Tensor) -> Tensor:
            decoded, own = out[:, :-1].float(), out[:, -1:].float()
            lost = self.lost.to(out.device)
            error = (decoded - own).square().mean(-1)[:, lost].mean()
            if not self.member:
                return error
            classes = targets.view(len(out), 1, self.members, -1)
            classes = (classes + self.distil * (own.softmax(-1) - classes)).expand_as(decoded)
            return error + self.member * F.cross_entropy(decoded[:, lost].flatten(0, 1), classes[:, lost].flatten(0, 1))

        return TrainingBatch(self.stacked(images), loss)

    def stacked(self, images: Tensor) -> Tensor:
        """Groups of uint8 ``[M, H, W, 3]``."""
        return images.view(-1, self.members, *images.shape[1:])

    def score(self, ask: Ask, images: Tensor, labels: Tensor) -> Tensor:
        """Top-1 of every image if its own answer alone is lost."""
        out = ask(self.stacked(images))
        places = torch.arange(self.members, device=out.device)
        return out[:, places, places].flatten(0, 1).argmax(1) == labels
