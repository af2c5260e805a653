"""Which of the models that workers serve is in use. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

M = TypeVar("M")


class Offer(NamedTuple, Generic[M]):
    """A model that some workers serve: how many do, and whether it may be used."""

    model: M
    workers: int
    fits: bool


def elect(offers: Sequence[Offer[M]], in_use: M | None) -> int | None:
    """Which of the offers to use, None if none fits: that of most workers; at a tie the one in use, else the first."""
    fitting = [index for index, offer in enumerate(offers) if offer.fits]
    return max(fitting, key=lambda index: (offers[index].workers, offers[index].model == in_use), default=None)
