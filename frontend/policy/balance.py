"""Which worker gets the next call. Pure: no I/O, no clock.

The workers with fewest outstanding calls come first; of these, two are sampled and the cheaper one is taken (power of
two choices). ``Judge`` leaves slow and failing workers out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from frontend.policy.ejection import CallHistory, Ejection, Judge, Standing


@dataclass(slots=True)
class Peer(CallHistory):
    """A worker among others that could take a call."""

    ready: bool = False
    outstanding: int = 0  # calls, as far as is known
    position: int = -1  # on its shelf; -1 if on none

    @property
    def eligible(self) -> bool:
        """Whether it may be chosen by its shelf."""
        busy_probing = self.standing is Standing.PROBATION and self.outstanding > 0
        return self.ready and self.standing is not Standing.EJECTED and not busy_probing


Cost = Callable[[Peer], float]
"""The cost of a call to a worker: of two workers that have equally few calls, the cheaper one is taken."""


def mean_latency(worker: Peer) -> float:
    """The running mean of a worker's latency, in seconds."""
    return worker.latency


class Balancer:
    """Keeps count of calls and chooses workers, in constant time for any number of them."""

    def __init__(self, ejection: Ejection | None = None, seed: int | None = None, cost: Cost = mean_latency) -> None:
        self.changed: Callable[[str, str], None] = lambda name, reason: None
        """Called with a worker that is ejected and the reason, and with one that is well again and an empty reason."""
        self._random = random.Random(seed)  # noqa: S311 - samples workers only
        self._cost = cost
        self._workers: dict[str, Peer] = {}
        self.judge = Judge(ejection, self._workers, self._moved)
        self._shelves: list[list[Peer]] = [[]]  # eligible workers by outstanding calls
        self._lowest = 0
        self._probing: dict[str, Peer] = {}  # those on probation that are eligible

    @property
    def ejected(self) -> int:
        """How many workers are left out now."""
        return self.judge.ejected

    def outstanding(self, name: str) -> int:
        """How many calls a worker has, as far as is known."""
        worker = self._workers.get(name)
        return worker.outstanding if worker else 0

    # Workers

    def set_ready(self, name: str, ready: bool) -> None:
        """A worker may be used, or may not."""
        worker = self._workers.setdefault(name, Peer(name))
        self.judge.ready += ready - worker.ready
        worker.ready = ready
        self._reshelve(worker)

    def remove(self, name: str) -> None:
        """Forget a worker."""
        if worker := self._workers.pop(name, None):
            self._unshelve(worker)
            self.judge.ready -= worker.ready
            self.judge.forget(worker)

    def pick(self, at: float, avoid: Collection[str] = ()) -> str | None:
        """A worker for a call made now, or None if none can be used that is not in ``avoid``.

        First copies (nothing to avoid) are offered to those on probation first: by their latency they would hardly ever
        be chosen. Where all that are ready are left out, because others were lost since, one of them is better than
        none.
        """
        self.judge.release(at)
        if self._probing and not avoid:
            return next(iter(self._probing))
        self._lift()
        for shelf in self._shelves[self._lowest :]:
            candidates = [worker for worker in self._sample(shelf) if worker.name not in avoid]
            if not candidates and avoid:
                candidates = [worker for worker in shelf if worker.name not in avoid][:2]
            if candidates:
                return min(candidates, key=self._cost).name
        last = None if avoid else self._last_resort
        return last.name if last else None

    @property
    def _last_resort(self) -> Peer | None:
        ready = (worker for worker in self._workers.values() if worker.ready)
        return min(ready, key=lambda worker: worker.outstanding, default=None)

    @property
    def shortest_queue(self) -> int:
        """How many calls the worker has that would be picked; 0 if there is none."""
        self._lift()
        if self._shelves[self._lowest]:
            return self._lowest
        last = self._last_resort
        return last.outstanding if last else 0

    def _lift(self) -> None:
        while self._lowest < len(self._shelves) - 1 and not self._shelves[self._lowest]:
            self._lowest += 1

    def _sample(self, shelf: list[Peer]) -> list[Peer]:
        if len(shelf) <= 2:
            return shelf
        first, second = int(self._random.random() * len(shelf)), int(self._random.random() * len(shelf))
        return [shelf[first], shelf[second]]

    # Calls

    def started(self, name: str) -> None:
        """A call was made."""
        if worker := self._workers.get(name):
            self._count(worker, worker.outstanding + 1)

    def released(self, name: str, count: int = 1) -> None:
        """A worker is done with calls, or known to have dropped them."""
        if worker := self._workers.get(name):
            self._count(worker, max(0, worker.outstanding - count))

    def succeeded(self, name: str, at: float, latency: float) -> None:
        """A call was answered after ``latency`` seconds."""
        if worker := self._workers.get(name):
            self.judge.succeeded(worker, at, latency)

    def cancelled(self, name: str, at: float, elapsed: float) -> None:
        """A call was cancelled after ``elapsed`` seconds; if that was slow already it counts, else nobody knows."""
        if worker := self._workers.get(name):
            self.judge.cancelled(worker, at, elapsed, worker.outstanding)

    def failed(self, name: str, at: float) -> None:
        """A call failed."""
        if worker := self._workers.get(name):
            self.judge.failed(worker, at)

    def _moved(self, name: str, reason: str | None) -> None:
        self._reshelve(self._workers[name])
        if reason is not None:
            self.changed(name, reason)

    # Shelves

    def _reshelve(self, worker: Peer) -> None:
        self._unshelve(worker)
        self._shelve(worker)

    def _count(self, worker: Peer, outstanding: int) -> None:
        self._unshelve(worker)
        worker.outstanding = outstanding
        self._shelve(worker)

    def _shelve(self, worker: Peer) -> None:
        if worker.eligible:
            while len(self._shelves) <= worker.outstanding:
                self._shelves.append([])
            shelf = self._shelves[worker.outstanding]
            worker.position = len(shelf)
            shelf.append(worker)
            if worker.standing is Standing.PROBATION:
                self._probing[worker.name] = worker
            self._lowest = min(self._lowest, worker.outstanding)

    def _unshelve(self, worker: Peer) -> None:
        if worker.position < 0:
            return
        shelf = self._shelves[worker.outstanding]
        last = shelf.pop()
        if last is not worker:
            shelf[worker.position] = last
            last.position = worker.position
        worker.position = -1
        if self._probing:
            self._probing.pop(worker.name, None)
