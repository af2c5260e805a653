"""Coefficients as small whole numbers that still add up: QSGD (Alistarh et al.) with one scale for all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.distributed.ring import Ring

_HALF = 8
"""What is added to a number of 4 bits, so that it is not negative."""


@dataclass(frozen=True)
class Levels:
    """Numbers of ``bits`` bits, 8 or 4, which hold the sum over all ranks.

    Every rank has its share of the levels: with 8 bits and 4 ranks they are -31 to 31. A direction's scale is the
    largest of its coefficients on any rank. ``random`` rounds up or down at random, without bias; else to the nearest
    level.
    """

    bits: int
    random: bool = False

    def coder(self, codes: Sequence[Tensor], ring: Ring) -> Coder:
        """What turns this step's coefficients, float32 ``[count, d]`` of each stage, to numbers and back."""
        most = (2 ** (self.bits - 1) - 1) // ring.size
        if most < 1:
            raise ValueError(f"{self.bits} bits cannot hold the sum of {ring.size} ranks: take 8")
        scales = ring.maximum(torch.cat([code.abs().amax(0) for code in codes])).clamp(min=1e-30) / most
        return Coder(
            self, list(torch.split(scales, [code.shape[1] for code in codes])), [code.shape[0] for code in codes]
        )

    def plus(self, mine: Tensor, theirs: Tensor) -> None:
        """Add vectors of numbers, or of float32, in place."""
        if mine.dtype == torch.uint8:
            mine.copy_(_packed(_unpacked(mine) + _unpacked(theirs)))
        else:
            mine.add_(theirs)


@dataclass(frozen=True)
class Coder:
    """The numbers of one step. ``scales`` hold a level's size for each direction, ``counts`` the slices, by stage."""

    levels: Levels
    scales: Sequence[Tensor]
    counts: Sequence[int]

    def encode(self, code: Tensor, stage: int) -> Tensor:
        """Coefficients float32 ``[count, d]`` as numbers: int8 ``[count * d]``, or two in each of uint8."""
        scaled = code / self.scales[stage]
        rounded = (scaled + torch.rand_like(scaled)).floor() if self.levels.random else scaled.round()
        numbers = rounded.to(torch.int8).reshape(-1)
        return _packed(numbers) if self.levels.bits == 4 else numbers

    def decode(self, numbers: Tensor, stage: int) -> Tensor:
        """Coefficients float32 ``[count, d]`` of numbers, or of their sum."""
        values = _unpacked(numbers) if self.levels.bits == 4 else numbers
        count, wide = self.counts[stage], len(self.scales[stage])
        return values[: count * wide].float().view(count, wide) * self.scales[stage]


def _packed(numbers: Tensor) -> Tensor:
    """Numbers from -8 to 7, int8 ``[n]``, two in a byte; an odd one has a 0 beside it."""
    if len(numbers) % 2:
        numbers = torch.cat((numbers, numbers.new_zeros(1)))
    raised = (numbers + _HALF).to(torch.uint8)
    return raised[::2] | raised[1::2] << 4


def _unpacked(both: Tensor) -> Tensor:
    """The numbers of ``_packed``, int8, with the 0."""
    return torch.stack((both & 15, both >> 4), 1).reshape(-1).to(torch.int8) - _HALF
