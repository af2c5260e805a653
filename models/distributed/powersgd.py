"""PowerSGD (Vogels et al., "PowerSGD: Practical Low-Rank Gradient Compression", algorithms 1 and 2), over a ring."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.distributed.addition import total
from models.distributed.flat import Part
from models.distributed.ring import Ring


class PowerSGD:
    """Every weight matrix M as P Q' of rank r; vectors, and matrices that this would not make smaller, travel whole.

    One step of power iteration from the last step's Q. What P Q' misses is added to the next gradient. Both factors are
    sums over ranks, so they add up in the ring: all P in one vector, all Q in another.
    """

    def __init__(self, parts: Sequence[Part], rank: int) -> None:
        self._parts = [
            (part, rows, columns)
            for part in parts
            if len(part.shape) > 1
            for rows, columns in [(part.shape[0], (part.stop - part.start) // part.shape[0])]
            if rank * (rows + columns) < rows * columns
        ]
        self._rank, self._kept = rank, torch.zeros(())
        chosen = {part for part, _, _ in self._parts}
        self._others = [part for part in parts if part not in chosen]
        random = torch.Generator().manual_seed(0)  # the same on every rank
        self._q = [torch.randn(columns, rank, generator=random) for _, _, columns in self._parts]

    def mean(self, gradient: Tensor, ring: Ring) -> Tensor:
        """The mean over ranks of the approximations."""
        wanted = gradient + self._kept
        matrices = [wanted[part.start : part.stop].view(rows, columns) for part, rows, columns in self._parts]
        left = [matrix @ q for matrix, q in zip(matrices, self._q, strict=True)]
        whole = [wanted[part.start : part.stop] for part in self._others]
        *left, others = _means([*left, torch.cat([torch.zeros(0), *whole])], ring)
        left = [torch.linalg.qr(p).Q for p in left]
        self._q = _means([matrix.T @ p for matrix, p in zip(matrices, left, strict=True)], ring)
        mean = torch.zeros_like(wanted)
        for part, values in zip(
            self._others, torch.split(others, [p.stop - p.start for p in self._others]), strict=True
        ):
            mean[part.start : part.stop] = values
            wanted[part.start : part.stop] = 0
        for (part, _, _), p, q, matrix in zip(self._parts, left, self._q, matrices, strict=True):
            approximate = p @ q.T
            mean[part.start : part.stop] = approximate.reshape(-1)
            matrix -= approximate
        self._kept = wanted
        return mean


def _means(tensors: Sequence[Tensor], ring: Ring) -> list[Tensor]:
    """The means over ranks of several tensors, which travel as one vector."""
    vector = total(torch.cat([torch.zeros(0), *(tensor.reshape(-1) for tensor in tensors)]), ring).div_(ring.size)
    pieces = torch.split(vector, [tensor.numel() for tensor in tensors])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)]
