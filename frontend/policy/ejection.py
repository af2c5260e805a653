"""Which workers are left out for a while, for being slow or failing. Pure: no I/O, no clock.

A worker is slow if more of its calls are slow than of the fleet's, by more than chance explains. However wide the
latencies are, a worker that draws them from the same distribution as the others is not ejected. An ejected worker comes
back on probation: it gets one call at a time, until it has shown that it is well.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from frontend.policy.quantile import RunningQuantile


@dataclass(frozen=True)
class Ejection:
    """When a worker is left out. Times in seconds.

    A call is slow if it took, or had taken when it was cancelled, more than ``factor`` medians of all calls. What it
    waited behind other calls does not count, and a call that was cancelled before that says nothing. Each call adds to
    the evidence against its worker the log of a likelihood ratio: how likely such a call would be of a worker that
    takes twice as long as the fleet, over how likely it is of the fleet. Evidence never falls below 0, which makes it
    Page's CUSUM (Biometrika 1954). A worker with more than ``evidence`` is ejected. By Wald's identity a sum that
    starts at 0 exceeds it by chance with a probability of at most exp(-evidence), so that a worker that is like the
    others has exp(evidence) calls between two false ejections on average or more (Lorden, Annals of Mathematical
    Statistics 1971): 65 million by default.

    A worker is ejected as well after ``failures`` failures in a row. It stays out for ``rest``, doubled with every
    relapse up to ``longest``. At most a ``share`` of the workers that are ready is put out. When more than that have a
    quarter of the evidence against them, the cause lies elsewhere, and none is ejected for being slow. ``probes`` good
    calls in a row end a probation.
    """

    factor: float = 1.5
    evidence: float = 18.0
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
    """What is known of one worker's calls. Times in seconds."""

    name: str
    latency: float = 0.0  # a running mean
    calls: int = 0
    free_at: float = -math.inf  # when the last of its calls ended
    evidence: float = 0.0  # of being slow
    failures: int = 0  # in a row
    standing: Standing = Standing.WELL
    relapses: int = 0
    forgiven_at: float = 0.0  # if it stays well until then, its next ejection is no relapse
    probes: int = 0  # good ones in a row


_SMOOTHING = 0.1  # the weight of a call in the mean latency of a worker
_RAREST = 0.02  # A few slow calls in a row of a fleet that has none are no evidence yet.
_OFTEN = 0.95  # The calls of a slow worker are not all slow.
_KNOWN = 2000  # calls that the fleet's shares are estimated from; older ones have lost their weight
_PROBED = math.log(20.0)  # evidence that ends a probation: 1 in 20 that are well


@dataclass(frozen=True)
class Evidence:
    """What one call adds to the evidence against its worker, or takes away from it if it was fast."""

    slow: float = 0.0
    fast: float = 0.0

    @classmethod
    def of_shares(cls, usual: float, suspect: float) -> Evidence:
        """``usual`` is the share of the fleet's calls that are slow, ``suspect`` that of a worker twice as slow."""
        usual, suspect = max(usual, _RAREST), min(suspect, _OFTEN)
        if suspect <= usual:
            return cls()
        return cls(math.log(suspect / usual), math.log((1 - suspect) / (1 - usual)))


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
        self._fleet = RunningQuantile(0.5, 0.0, lowest=0.0)
        self._seen = 0
        self._suspects: set[str] = set()  # those with a quarter of the evidence that ejects
        self._out: list[tuple[float, str]] = []  # ejected workers by the time of their return

    def release(self, at: float) -> None:
        """Begin the probation of those whose rest is over."""
        while self._out and self._out[0][0] <= at:
            _, name = heapq.heappop(self._out)
            if (worker := self._workers.get(name)) and worker.standing is Standing.EJECTED:
                self.ejected -= 1
                worker.standing, worker.probes = Standing.PROBATION, 0
                self._set_evidence(worker, 0.0)
                self._moved(name, None)

    def forget(self, worker: CallHistory) -> None:
        """Stop to count a worker that left."""
        self.ejected -= worker.standing is Standing.EJECTED
        self._suspects.discard(worker.name)

    def succeeded(self, worker: CallHistory, at: float, latency: float) -> None:
        """Judge by a call that was answered."""
        took = _served(worker, at, latency)
        self._seen += 1
        self._fleet.finished(took)
        slow = self._slow(took)
        self._look(worker, latency)
        if slow or worker.evidence:  # as hardly ever: there is nothing that a fast call could take away
            self._weigh(worker, at, slow)
        if worker.standing is Standing.PROBATION:
            worker.probes = 0 if slow else worker.probes + 1
            if worker.probes >= (self.rules or Ejection()).probes:
                worker.calls, worker.latency = 1, latency
                worker.forgiven_at = at + self._rest(worker.relapses - 1)
                worker.standing = Standing.WELL
                self._set_evidence(worker, 0.0)
                self._moved(worker.name, "")

    def cancelled(self, worker: CallHistory, at: float, elapsed: float, calls: int) -> None:
        """Judge by a call that was cancelled after ``elapsed``; ``calls`` is how many the worker had, this included.

        With others there, nobody knows how long it waited and how long it ran.
        """
        took = _served(worker, at, elapsed)
        if calls > 1:
            return
        self._seen += 1
        self._fleet.cut_off(took)
        if self._slow(took):
            worker.probes = 0
            self._look(worker, elapsed)
            self._weigh(worker, at, slow=True)

    def failed(self, worker: CallHistory, at: float) -> None:
        """Judge by a call that failed."""
        worker.free_at = at
        if self.rules:
            worker.failures += 1
            if worker.failures >= self.rules.failures or worker.standing is Standing.PROBATION:
                self._eject(worker, at, "it fails")

    @property
    def evidence(self) -> Evidence:
        """What a slow and a fast call say now; nothing while too little is known of the fleet.

        The share of slow calls is taken two standard errors high: a fleet that is only just known accuses nobody.
        """
        if self.rules is None or not self._fleet.value:
            return Evidence()
        slow = self.rules.factor * self._fleet.value
        usual = self._fleet.beyond(slow)
        unsure = 2 * math.sqrt(usual * (1 - usual) / min(self._seen, _KNOWN))
        return Evidence.of_shares(usual + unsure, self._fleet.beyond(slow / 2))

    def _slow(self, took: float) -> bool:
        return self.rules is not None and 0 < self._fleet.value < took / self.rules.factor

    def _look(self, worker: CallHistory, latency: float) -> None:
        worker.failures = 0
        worker.calls += 1
        worker.latency += max(1 / worker.calls, _SMOOTHING) * (latency - worker.latency)

    def _weigh(self, worker: CallHistory, at: float, slow: bool) -> None:
        rules = self.rules or Ejection()
        evidence = self.evidence
        self._set_evidence(worker, max(0.0, worker.evidence + (evidence.slow if slow else evidence.fast)))
        enough = _PROBED if worker.standing is Standing.PROBATION else rules.evidence
        if worker.evidence > enough and len(self._suspects | {worker.name}) <= rules.share * self.ready:
            self._eject(worker, at, "it is slow")

    def _set_evidence(self, worker: CallHistory, evidence: float) -> None:
        worker.evidence = evidence
        if evidence > (self.rules or Ejection()).evidence / 4:
            self._suspects.add(worker.name)
        else:
            self._suspects.discard(worker.name)

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


def _served(worker: CallHistory, at: float, latency: float) -> float:
    """How long a call ran that ended ``at``: from when it was sent, or from when the one before it was over."""
    took = min(latency, at - worker.free_at)
    worker.free_at = at
    return took
