"""Which of the models that workers serve is in use. Pure."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Generic, NamedTuple, TypeVar

M = TypeVar("M")


class Offer(NamedTuple, Generic[M]):
    """A model that some workers serve: how many do, and whether it may be used."""

    model: M
    workers: int
    fits: bool


def elect(offers: Sequence[Offer[M]], in_use: M | None, preferred: Container[int] = ()) -> int | None:
    """Which of the offers to use, None if none fits.

    The ``preferred`` ones come first, then that of most workers; at a tie the one in use, else the first.
    """

    def rank(index: int) -> tuple[bool, int, bool]:
        return index in preferred, offers[index].workers, offers[index].model == in_use

    return max((index for index, offer in enumerate(offers) if offer.fits), key=rank, default=None)
