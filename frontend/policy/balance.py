"""Which worker gets the next call, and which are left out for a while. Pure: no I/O, no clock.

Least outstanding calls first; of those with equally few, two are sampled and the one of lower latency is taken (power
of two choices). A worker that stays slow or keeps failing is ejected, never more than a stated share of all, and comes
back through probes: one call at a time, until it has shown that it is well.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum

from frontend.policy.quantile import RunningQuantile


@dataclass(frozen=True)
class Ejection:
    """When a worker is left out. Times in seconds.

    A call is slow if it took, or had taken when it was cancelled, more than ``factor`` times the median of all calls,
    for each call that the worker has: waiting in line is no slowness, and to eject the busy would make others busier.
    A worker is ejected when more than ``slow_share`` of its last calls (an average that forgets with ``smoothing``,
    over at least ``fewest``) were slow, or after some ``failures`` in a row. It stays out for ``rest``, doubled with
    every relapse up to ``longest``. At most a ``share`` of the workers that are ready is put out; more are never to
    blame.
    """

    factor: float = 1.5
    slow_share: float = 0.5
    smoothing: float = 0.1
    fewest: int = 8
    failures: int = 3
    share: float = 0.34
    rest: float = 5.0
    longest: float = 300.0
    probes: int = 3  # good calls in a row that end a probation


_SLOW = "it is slow"


class _Standing(Enum):
    WELL = "well"
    EJECTED = "ejected"
    PROBATION = "probation"


@dataclass(slots=True)
class _Worker:
    name: str
    ready: bool = False
    outstanding: int = 0
    latency: float = 0.0  # a running mean
    slow_share: float = 0.0
    calls: int = 0
    failures: int = 0
    standing: _Standing = _Standing.WELL
    relapses: int = 0
    forgiven_at: float = 0.0  # if it stays well until then, its next ejection is no relapse
    probes: int = 0
    position: int = -1  # in its shelf; -1 if on none

    @property
    def eligible(self) -> bool:
        busy_probing = self.standing is _Standing.PROBATION and self.outstanding > 0
        return self.ready and self.standing is not _Standing.EJECTED and not busy_probing


class Balancer:
    """Keeps count of calls and chooses workers, in constant time however many there are."""

    def __init__(self, ejection: Ejection | None = None, seed: int | None = None) -> None:
        self.ejection = ejection
        self.changed: Callable[[str, str], None] = lambda name, reason: None
        """Called with a worker that is ejected and the reason, and with one that is well again and an empty reason."""
        self._random = random.Random(seed)  # noqa: S311 - samples workers only
        self._workers: dict[str, _Worker] = {}
        self._shelves: list[list[_Worker]] = [[]]  # eligible workers by outstanding calls
        self._lowest = 0
        self._probing: dict[str, _Worker] = {}  # those on probation that are eligible
        self._median = RunningQuantile(0.5, 0.0, lowest=0.0)
        self._out: list[tuple[float, str]] = []  # ejected workers by the time of their return
        self._ejected = self._ready = 0

    @property
    def ejected(self) -> int:
        """How many workers are left out now."""
        return self._ejected

    def outstanding(self, name: str) -> int:
        """How many calls a worker has, as far as is known."""
        worker = self._workers.get(name)
        return worker.outstanding if worker else 0

    # Workers

    def set_ready(self, name: str, ready: bool) -> None:
        """A worker may be used, or may not."""
        worker = self._workers.setdefault(name, _Worker(name))
        self._ready += ready - worker.ready
        self._change(worker, ready=ready)

    def remove(self, name: str) -> None:
        """Forget a worker."""
        if worker := self._workers.pop(name, None):
            self._unshelve(worker)
            self._ready -= worker.ready
            if worker.standing is _Standing.EJECTED:
                self._ejected -= 1

    def pick(self, at: float, avoid: Collection[str] = ()) -> str | None:
        """A worker for a call made now, or None if none can be used that is not in ``avoid``.

        First copies (nothing to avoid) are offered to those on probation first: by their latency they would hardly ever
        be chosen. Where all that are ready are left out, because others were lost since, one of them is better than
        none.
        """
        while self._out and self._out[0][0] <= at:
            _, name = heapq.heappop(self._out)
            if (worker := self._workers.get(name)) and worker.standing is _Standing.EJECTED:
                self._ejected -= 1
                self._change(worker, standing=_Standing.PROBATION, probes=0)
        if self._probing and not avoid:
            return next(iter(self._probing))
        self._lift()
        for shelf in self._shelves[self._lowest :]:
            candidates = [worker for worker in self._sample(shelf) if worker.name not in avoid]
            if not candidates and avoid:
                candidates = [worker for worker in shelf if worker.name not in avoid][:2]
            if candidates:
                return min(candidates, key=lambda worker: worker.latency).name
        last = None if avoid else self._last_resort
        return last.name if last else None

    @property
    def _last_resort(self) -> _Worker | None:
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

    def _sample(self, shelf: list[_Worker]) -> list[_Worker]:
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
        """A call was answered after ``latency`` seconds, and released."""
        self._median.finished(latency)
        self._judge(name, at, latency, self._slow(latency, self.outstanding(name) + 1))

    def cancelled(self, name: str, at: float, elapsed: float) -> None:
        """A call was cancelled after ``elapsed`` seconds; if that was slow already it counts, else nobody knows."""
        if self._slow(elapsed, self.outstanding(name)):
            self._judge(name, at, elapsed, slow=True)

    def failed(self, name: str, at: float) -> None:
        """A call failed."""
        if (worker := self._workers.get(name)) and self.ejection:
            worker.failures += 1
            if worker.failures >= self.ejection.failures or worker.standing is _Standing.PROBATION:
                self._eject(worker, at, "it fails")

    def _slow(self, latency: float, calls: int) -> bool:
        usual = self._median.value * max(1, calls)
        return self.ejection is not None and 0 < usual < latency / self.ejection.factor

    def _judge(self, name: str, at: float, latency: float, slow: bool) -> None:
        worker = self._workers.get(name)
        if worker is None:
            return
        rules = self.ejection or Ejection()
        worker.failures = 0
        worker.calls += 1
        weight = max(1 / worker.calls, rules.smoothing)
        worker.latency += weight * (latency - worker.latency)
        worker.slow_share += weight * (slow - worker.slow_share)
        if worker.standing is _Standing.PROBATION:
            worker.probes = 0 if slow else worker.probes + 1
            if slow:
                self._eject(worker, at, _SLOW)
            elif worker.probes >= rules.probes:
                worker.calls, worker.latency, worker.slow_share = 1, latency, 0.0
                worker.forgiven_at = at + self._rest(worker.relapses - 1)
                self._change(worker, standing=_Standing.WELL)
                self.changed(name, "")
        elif worker.calls >= rules.fewest and worker.slow_share > rules.slow_share:
            self._eject(worker, at, _SLOW)

    def _eject(self, worker: _Worker, at: float, reason: str) -> None:
        rules = self.ejection
        if rules is None or worker.standing is _Standing.EJECTED:
            return
        if self._ejected + 1 > rules.share * self._ready:
            return
        if worker.standing is _Standing.WELL and at >= worker.forgiven_at:
            worker.relapses = 0
        rest = self._rest(worker.relapses)
        worker.relapses += 1
        worker.failures = 0
        self._ejected += 1
        self._change(worker, standing=_Standing.EJECTED)
        self.changed(worker.name, reason)
        heapq.heappush(self._out, (at + rest, worker.name))

    def _rest(self, relapses: int) -> float:
        """How long a worker stays out that has relapsed so often."""
        rules = self.ejection or Ejection()
        return min(rules.longest, rules.rest * 2.0 ** min(relapses, 30))

    # Shelves

    def _change(self, worker: _Worker, **values: object) -> None:
        self._unshelve(worker)
        for name, value in values.items():
            setattr(worker, name, value)
        self._shelve(worker)

    def _count(self, worker: _Worker, outstanding: int) -> None:
        self._unshelve(worker)
        worker.outstanding = outstanding
        self._shelve(worker)

    def _shelve(self, worker: _Worker) -> None:
        if worker.eligible:
            while len(self._shelves) <= worker.outstanding:
                self._shelves.append([])
            shelf = self._shelves[worker.outstanding]
            worker.position = len(shelf)
            shelf.append(worker)
            if worker.standing is _Standing.PROBATION:
                self._probing[worker.name] = worker
            self._lowest = min(self._lowest, worker.outstanding)

    def _unshelve(self, worker: _Worker) -> None:
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
