"""How the gradients of all ranks are added up: what travels, and what is lost on the way."""

from __future__ import annotations

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from models.distributed.ring import Ring

SEGMENT = 65536
"""Elements of a ring's segment: small enough that several overlap, large enough that messages are few."""


class Addition(Protocol):
    """A way to add gradients up. It keeps what it needs from step to step, so each run has its own.

    ``Ring.sent`` counts all that it sends.
    """

    def mean(self, gradient: Tensor, ring: Ring) -> Tensor:
        """The mean over ranks of float32 ``[n]``, perhaps approximate, but the same bits on every rank."""
        ...


class Whole:
    """Sends everything, in float32 or a smaller type: ``fp16`` halves the bytes, and sums are rounded at every hop."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self._dtype = dtype

    def mean(self, gradient: Tensor, ring: Ring) -> Tensor:
        """The mean over ranks, exact but for rounding."""
        return total(gradient, ring, self._dtype).div_(ring.size)


class TopK:
    """Sends the largest elements and their places; the rest stays here and is added to the next gradient.

    Places differ from rank to rank, so nothing adds up on the way: every rank gets every other's elements. Source: Lin
    et al., "Deep Gradient Compression", section 3.1, without its corrections of momentum.
    """

    def __init__(self, share: float = 0.01) -> None:
        self._share, self._kept = share, torch.zeros(())

    def mean(self, gradient: Tensor, ring: Ring) -> Tensor:
        """The mean over ranks of the elements that were sent; 0 elsewhere."""
        wanted = gradient + self._kept
        count = max(1, round(self._share * len(wanted)))
        places = wanted.abs().topk(count).indices
        mean = torch.zeros_like(wanted)
        message = torch.cat((wanted[places], places.to(torch.int32).view(torch.float32)))
        wanted[places] = 0
        self._kept = wanted
        for theirs in ring.gather(message):
            values, where = torch.split(theirs, count)
            mean[where.view(torch.int32).long()] += values
        return mean.div_(ring.size)


def total(vector: Tensor, ring: Ring, dtype: torch.dtype = torch.float32) -> Tensor:
    """The sum over ranks of float32 ``[n]``, which travels as ``dtype``."""
    result = torch.empty_like(vector)
    pieces = [partial(piece.to, dtype, copy=True) for piece in torch.split(vector, SEGMENT)]
    for place, piece in zip(torch.split(result, SEGMENT), ring.add(pieces), strict=True):
        place.copy_(piece)
    return result
