"""Prequal's choice of a worker (Wydrowski, Kleinberg, Rumble and Archer, NSDI 2024), for the simulator only.

Workers are asked beforehand how many requests they have in flight and how long such requests took: 3 probes for every
request, of which a pool keeps the answers. Real workers are not asked: a probe is a call of its own, which costs a
frontend in Python nearly as much as a request, and each request would need three.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from frontend.policy.shelves import Peer, Shelves

PROBES, POOL, REMOVED = 3, 16, 1
"""Probes for each request, answers that are kept at most, and answers removed for each request: as in the paper."""
LONGEST_S, HOT, AHEAD = 1.0, 2**-0.25, 1.0
"""Age of an answer that is too old; the paper's quantile of hot workers; delta of the number of uses."""
RECENT = 64  # answers that make the distribution of requests in flight
REMEMBERED = 16  # latencies of a worker for each number of requests in flight


class Load(NamedTuple):
    """An answer to a probe: requests in flight at a worker, and the median latency of such as found that many there."""

    in_flight: int
    latency_s: float


Told = Callable[[float, Load], None]
"""Takes the answer to a probe and the time, in seconds, at which it came."""
Probe = Callable[[str, Told], None]
"""Asks the worker of this name, which answers later."""


class LoadHistory:
    """What a worker remembers to answer probes."""

    def __init__(self) -> None:
        self._seconds: dict[int, deque[float]] = {}

    def finished(self, in_flight: int, seconds: float) -> None:
        """A request that found ``in_flight`` others here was answered after ``seconds``."""
        self._seconds.setdefault(in_flight, deque(maxlen=REMEMBERED)).append(seconds)

    def load(self, in_flight: int) -> Load:
        """The answer to a probe: the median at the nearest number of requests that is known; 0 s if none is."""
        if not self._seconds:
            return Load(in_flight, 0.0)
        nearest = min(self._seconds, key=lambda known: abs(known - in_flight))
        return Load(in_flight, statistics.median(self._seconds[nearest]))


@dataclass(slots=True)
class Answer:
    """The answer of a worker to a probe, and how often it may still be used."""

    worker: Peer
    at: float
    load: Load
    uses: float

    def cost(self, hot_above: int) -> tuple[bool, float]:
        """The order of choice: cold ones by latency, then hot ones by requests in flight."""
        hot = self.load.in_flight > hot_above
        return hot, self.load.in_flight if hot else self.load.latency_s


class Prequal:
    """A ``Choice`` by the answers of workers to probes.

    A worker is hot if it has more requests in flight than most answers say of theirs. The cold one of lowest latency is
    taken; if all are hot, the one with fewest requests. With fewer than two answers any worker is taken at random.
    """

    def __init__(self, probe: Probe, hot: float = HOT) -> None:
        """``hot`` is the quantile of requests in flight beyond which a worker is hot."""
        self._probe, self._hot = probe, hot
        self._pool: dict[str, Answer] = {}  # the oldest first
        self._recent: deque[int] = deque(maxlen=RECENT)
        self._oldest_next = False

    def choose(self, workers: Shelves, at: float, avoid: Collection[str]) -> Peer | None:
        """See ``Choice``. Every call asks for the loads of three workers; their answers come later."""
        for worker in workers.some(PROBES):
            self._probe(worker.name, partial(self._told, workers, worker))
        for name, answer in list(self._pool.items()):
            if answer.worker.position < 0 or at > answer.at + LONGEST_S:
                del self._pool[name]
        usable = [answer for name, answer in self._pool.items() if name not in avoid]
        if len(usable) < 2:
            return next((worker for worker in workers.some(1 + len(avoid)) if worker.name not in avoid), None)
        hot_above = sorted(self._recent)[int(self._hot * (len(self._recent) - 1))]
        chosen = min(usable, key=lambda answer: answer.cost(hot_above))
        chosen.load = Load(chosen.load.in_flight + 1, chosen.load.latency_s)
        chosen.uses -= 1
        if chosen.uses <= 0:
            del self._pool[chosen.worker.name]
        self._remove(hot_above)
        return chosen.worker

    def ended(self, worker: Peer, at: float, seconds: float) -> None:
        """See ``Choice``. Only probes tell anything."""

    def _told(self, workers: Shelves, worker: Peer, at: float, load: Load) -> None:
        most = min(POOL, len(workers))
        self._recent.append(load.in_flight)
        self._pool.pop(worker.name, None)
        self._pool[worker.name] = Answer(worker, at, load, uses(most / max(1, len(workers)), workers.random.random()))
        while len(self._pool) > most:
            del self._pool[next(iter(self._pool))]

    def _remove(self, hot_above: int) -> None:
        """Remove the oldest and the worst answer in turn."""
        self._oldest_next = not self._oldest_next
        if self._pool and self._oldest_next:
            del self._pool[next(iter(self._pool))]
        elif self._pool:
            del self._pool[max(self._pool, key=lambda name: self._pool[name].cost(hot_above))]


def uses(kept: float, rounding: float) -> float:
    """How often an answer may be used, if the pool holds those of a share ``kept`` of all workers.

    As many answers are used up as come in. Rounded up or down by ``rounding``, a number in [0, 1). Where even unused
    answers come in more slowly than they are removed, in small clusters, there is no limit.
    """
    gained = (1 - kept) * PROBES - REMOVED
    if gained <= 0:
        return math.inf
    return max(1, math.floor((1 + AHEAD) / gained + rounding))
