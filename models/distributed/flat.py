"""All gradients of a model as one vector, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Part:
    """Where a parameter lies in the vector."""

    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The end of its place."""
        return self.start + math.prod(self.shape)


def parts_of(model: nn.Module) -> tuple[Part, ...]:
    """The parameters' places, in the order of ``model.parameters()``, one after the other."""
    parts, start = [], 0
    for weight in model.parameters():
        parts.append(Part(start, tuple(weight.shape)))
        start = parts[-1].stop
    return tuple(parts)


def gradients(model: nn.Module) -> Tensor:
    """The gradients as float32 ``[n]`` in main memory; zeros where a parameter has none."""
    pieces = [
        (torch.zeros_like(weight) if weight.grad is None else weight.grad).reshape(-1) for weight in model.parameters()
    ]
    return torch.cat(pieces).float().cpu()


def put(vector: Tensor, model: nn.Module) -> None:
    """Make the parts of ``[n]`` the model's gradients."""
    for weight, part in zip(model.parameters(), parts_of(model), strict=True):
        weight.grad = vector[part.start : part.stop].view(part.shape).to(weight, copy=True)
        if weight.dim() == 4:
            weight.grad = weight.grad.contiguous(memory_format=torch.channels_last)
