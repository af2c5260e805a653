"""Which workers are left out for a while, for being slow or failing. Pure: no I/O, no clock.

An ejected worker comes back on probation: it gets one call at a time, until it has shown that it is well.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from frontend.policy.quantile import RunningQuantile


@dataclass(frozen=True)
class Ejection:
    """When a worker is left out. Times in seconds.

    A call is slow if it took, or had taken when it was cancelled, more than ``factor`` times the median of all calls,
    for each call that the worker has: waiting in line is no slowness, and to eject the busy would make others busier.
    A worker is ejected when more than ``slow_share`` of its last calls (an average that forgets with ``smoothing``,
    over at least ``fewest``) were slow, or after ``failures`` failures in a row. It stays out for ``rest``, doubled
    with every relapse up to ``longest``. At most a ``share`` of the workers that are ready is put out: when more are
    slow, the cause lies elsewhere. ``probes`` good calls in a row end a probation.
    """

    factor: float = 1.5
    slow_share: float = 0.5
    smoothing: float = 0.1
    fewest: int = 8
    failures: int = 3
    share: float = 0.34
    rest: float = 5.0
    longest: float = 300.0
    probes: int = 3


class Standing(Enum):
    """Whether a worker may be used: well, left out, or back to show that it is well."""

    WELL = "well"
    EJECTED = "ejected"
    PROBATION = "probation"


@dataclass(slots=True)
class CallHistory:
    """What is known of one worker's calls. Times in seconds; averages forget."""

    name: str
    latency: float = 0.0
    slow_share: float = 0.0
    calls: int = 0
    failures: int = 0  # in a row
    standing: Standing = Standing.WELL
    relapses: int = 0
    forgiven_at: float = 0.0  # if it stays well until then, its next ejection is no relapse
    probes: int = 0  # good ones in a row


_SLOW = "it is slow"


class Judge:
    """Changes the standing of workers by what their calls show.

    ``workers`` are the histories of all known workers by name, kept by the caller. ``moved`` is called after every
    change of standing, with the reason: why a worker is ejected, empty when it is well again, None when its probation
    begins. Without ``rules`` nobody is ejected.
    """

    def __init__(
        self, rules: Ejection | None, workers: Mapping[str, CallHistory], moved: Callable[[str, str | None], None]
    ) -> None:
        self.rules = rules
        self.ready = 0
        """How many workers are ready, ejected ones included; the caller keeps count."""
        self.ejected = 0
        """How many workers are left out now."""
        self._workers, self._moved = workers, moved
        self._median = RunningQuantile(0.5, 0.0, lowest=0.0)
        self._out: list[tuple[float, str]] = []  # ejected workers by the time of their return

    def release(self, at: float) -> None:
        """Begin the probation of those whose rest is over."""
        while self._out and self._out[0][0] <= at:
            _, name = heapq.heappop(self._out)
            if (worker := self._workers.get(name)) and worker.standing is Standing.EJECTED:
                self.ejected -= 1
                worker.standing, worker.probes = Standing.PROBATION, 0
                self._moved(name, None)

    def forget(self, worker: CallHistory) -> None:
        """Stop to count a worker that left."""
        self.ejected -= worker.standing is Standing.EJECTED

    def finished(self, latency: float) -> None:
        """Learn how long a call took, whoever answered it."""
        self._median.finished(latency)

    def succeeded(self, worker: CallHistory, at: float, latency: float, calls: int) -> None:
        """Judge by a call that was answered; ``calls`` is how many the worker had then, this one included."""
        self._look(worker, at, latency, self._slow(latency, calls))

    def cancelled(self, worker: CallHistory, at: float, elapsed: float, calls: int) -> None:
        """Judge by a call that was cancelled after ``elapsed``, which counts if that was slow already."""
        if self._slow(elapsed, calls):
            self._look(worker, at, elapsed, slow=True)

    def failed(self, worker: CallHistory, at: float) -> None:
        """Judge by a call that failed."""
        if self.rules:
            worker.failures += 1
            if worker.failures >= self.rules.failures or worker.standing is Standing.PROBATION:
                self._eject(worker, at, "it fails")

    def _slow(self, latency: float, calls: int) -> bool:
        usual = self._median.value * max(1, calls)
        return self.rules is not None and 0 < usual < latency / self.rules.factor

    def _look(self, worker: CallHistory, at: float, latency: float, slow: bool) -> None:
        rules = self.rules or Ejection()
        worker.failures = 0
        worker.calls += 1
        weight = max(1 / worker.calls, rules.smoothing)
        worker.latency += weight * (latency - worker.latency)
        worker.slow_share += weight * (slow - worker.slow_share)
        if worker.standing is Standing.PROBATION:
            worker.probes = 0 if slow else worker.probes + 1
            if slow:
                self._eject(worker, at, _SLOW)
            elif worker.probes >= rules.probes:
                worker.calls, worker.latency, worker.slow_share = 1, latency, 0.0
                worker.forgiven_at = at + self._rest(worker.relapses - 1)
                worker.standing = Standing.WELL
                self._moved(worker.name, "")
        elif worker.calls >= rules.fewest and worker.slow_share > rules.slow_share:
            self._eject(worker, at, _SLOW)

    def _eject(self, worker: CallHistory, at: float, reason: str) -> None:
        rules = self.rules
        if rules is None or worker.standing is Standing.EJECTED:
            return
        if self.ejected + 1 > rules.share * self.ready:
            return
        if worker.standing is Standing.WELL and at >= worker.forgiven_at:
            worker.relapses = 0
        rest = self._rest(worker.relapses)
        worker.relapses += 1
        worker.failures = 0
        worker.standing = Standing.EJECTED
        self.ejected += 1
        heapq.heappush(self._out, (at + rest, worker.name))
        self._moved(worker.name, reason)

    def _rest(self, relapses: int) -> float:
        """How long a worker stays out that has relapsed this many times."""
        rules = self.rules or Ejection()
        return min(rules.longest, rules.rest * 2.0 ** min(relapses, 30))
