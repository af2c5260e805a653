"""The workers that may be chosen, sorted by how many calls they have. Pure: no I/O, no clock."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from frontend.policy.ejection import CallHistory, Standing


@dataclass(slots=True)
class Peer(CallHistory):
    """A worker among others that could take a call."""

    ready: bool = False
    outstanding: int = 0  # calls, as far as is known
    position: int = -1  # on its shelf; -1 if on none
    estimate: float = 0.0  # a choice may keep a number here,
    estimated_at: float = 0.0  # and when it did

    @property
    def eligible(self) -> bool:
        """Whether it may be chosen."""
        busy_probing = self.standing is Standing.PROBATION and self.outstanding > 0
        return self.ready and self.standing is not Standing.EJECTED and not busy_probing


class Shelves:
    """A shelf for each number of calls; every operation takes constant time, for any number of workers."""

    def __init__(self, seed: int | None = None) -> None:
        self.random = random.Random(seed)  # noqa: S311 - samples workers only
        self._shelves: list[list[Peer]] = [[]]
        self._lowest = 0
        self._count = 0

    def __len__(self) -> int:
        """How many workers may be chosen."""
        return self._count

    def put(self, worker: Peer) -> None:
        """Put a worker on the shelf of those with as many calls."""
        shelves, calls = self._shelves, worker.outstanding
        while len(shelves) <= calls:
            shelves.append([])
        shelf = shelves[calls]
        worker.position = len(shelf)
        shelf.append(worker)
        self._count += 1
        if calls < self._lowest:
            self._lowest = calls

    def take(self, worker: Peer) -> None:
        """Take a worker off its shelf, before its number of calls changes."""
        shelf = self._shelves[worker.outstanding]
        last = shelf.pop()
        if last is not worker:
            shelf[worker.position] = last
            last.position = worker.position
        worker.position = -1
        self._count -= 1

    def move(self, worker: Peer, outstanding: int) -> None:
        """Put a worker that is on a shelf on that of those with ``outstanding`` calls."""
        self.take(worker)
        worker.outstanding = outstanding
        self.put(worker)

    def rising(self) -> Iterator[list[Peer]]:
        """The shelves from that of the fewest calls on; the first is empty only if all are."""
        while self._lowest < len(self._shelves) - 1 and not self._shelves[self._lowest]:
            self._lowest += 1
        return iter(self._shelves[self._lowest :])

    def sample(self, shelf: list[Peer], count: int) -> list[Peer]:
        """``count`` workers of a shelf at random, some perhaps several times; all if there are no more than that."""
        most, draw = len(shelf), self.random.random
        return shelf if most <= count else [shelf[int(draw() * most)] for _ in range(count)]

    def some(self, count: int) -> list[Peer]:
        """``count`` different workers at random, whatever calls they have; all if there are fewer."""
        places = self.random.sample(range(self._count), min(count, self._count))
        return [self._at(place) for place in places]

    def _at(self, place: int) -> Peer:
        for shelf in self._shelves[self._lowest :]:
            if place < len(shelf):
                return shelf[place]
            place -= len(shelf)
        raise IndexError("there are not as many workers")
