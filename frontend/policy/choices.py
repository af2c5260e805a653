"""Ways of choosing the worker that gets a call. Pure: no I/O, no clock.

Each sees the workers that may be used, by the calls that this frontend knows they have, and learns how long calls took.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from frontend.policy.shelves import Peer, Shelves


class Choice(Protocol):
    """One way of choosing. A new object for every pool of workers."""

    def choose(self, workers: Shelves, at: float, avoid: Collection[str]) -> Peer | None:
        """The worker of a call made ``at`` this time, in seconds; None if all that there are have a name to avoid.

        ``avoid`` names the workers that have, or had, another copy of the request: it is empty for first copies.
        """
        ...

    def ended(self, worker: Peer, at: float, seconds: float) -> None:
        """A call of a worker was answered, or cancelled, ``seconds`` after it was made."""
        ...


Cost = Callable[[Peer], float]
SAMPLED = 8


mean_latency: Cost = operator.attrgetter("latency")
"""The running mean of a worker's latency, in seconds."""


class FewestCalls:
    """The fewest calls come first; of these, ``SAMPLED`` are sampled and the one of lowest ``cost`` is taken.

    Where machines differ, eight find faster ones than two do; where all are alike it makes no difference.
    """

    def __init__(self, cost: Cost = mean_latency) -> None:
        self._cost = cost

    def choose(self, workers: Shelves, at: float, avoid: Collection[str]) -> Peer | None:
        """See ``Choice``."""
        for shelf in workers.rising():
            candidates = workers.sample(shelf, SAMPLED)
            if avoid:
                others = [worker for worker in candidates if worker.name not in avoid]
                candidates = others or [worker for worker in shelf if worker.name not in avoid][:SAMPLED]
            if candidates:
                return min(candidates, key=self._cost)
        return None

    def ended(self, worker: Peer, at: float, seconds: float) -> None:
        """See ``Choice``. The pool keeps the mean latency of its workers itself."""


class IdleOnly(FewestCalls):
    """First copies go to the worker of fewest calls, other copies to idle workers only (NetClone, SIGCOMM 2023)."""

    def choose(self, workers: Shelves, at: float, avoid: Collection[str]) -> Peer | None:
        """See ``Choice``."""
        chosen = super().choose(workers, at, avoid)
        return None if avoid and chosen and chosen.outstanding else chosen


class PowerOfTwo:
    """Two of all workers are sampled, and the one with fewer calls is taken (Mitzenmacher, 2001)."""

    def choose(self, workers: Shelves, at: float, avoid: Collection[str]) -> Peer | None:
        """See ``Choice``."""
        sampled = [worker for worker in workers.some(2 + len(avoid)) if worker.name not in avoid][:2]
        return min(sampled, key=lambda worker: self._cost(worker, at), default=None)

    def ended(self, worker: Peer, at: float, seconds: float) -> None:
        """See ``Choice``. Nothing is learnt."""

    def _cost(self, worker: Peer, at: float) -> float:
        return worker.outstanding


class PeakEwma(PowerOfTwo):
    """Two of all workers are sampled, and the one of lower latency times calls is taken, as Finagle and linkerd do.

    The latency is a moving average that forgets with time (``decay``, seconds) and jumps to any call that takes longer.
    A worker that has calls and answered none yet is the last choice.
    """

    def __init__(self, decay: float = 10.0) -> None:
        self._decay = decay

    def ended(self, worker: Peer, at: float, seconds: float) -> None:
        """See ``Choice``."""
        kept = self._kept(worker, at)
        average = worker.estimate * kept + seconds * (1 - kept)
        worker.estimate, worker.estimated_at = max(seconds, average), at

    def _kept(self, worker: Peer, at: float) -> float:
        return math.exp(-max(0.0, at - worker.estimated_at) / self._decay)

    def _cost(self, worker: Peer, at: float) -> float:
        if not worker.estimate:
            return math.inf if worker.outstanding else 0.0
        return worker.estimate * self._kept(worker, at) * (worker.outstanding + 1)


CHOICES: Mapping[str, Callable[[], Choice]] = {
    "fewest-calls": FewestCalls,
    "power-of-two": PowerOfTwo,
    "peak-ewma": PeakEwma,
    "idle-only": IdleOnly,
}
