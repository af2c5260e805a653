"""When a request becomes a straggler. Pure: no I/O, no clock."""

from __future__ import annotations

import math

from frontend.policy.quantile import RunningQuantile
from frontend.policy.rules import Rules


class Deadline:
    """Seconds after its arrival at which a request is a straggler: a fixed time, or a quantile of what copies take."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._latency = RunningQuantile(rules.quantile, rules.deadline, rules.shortest, rules.longest, rules.stretch)

    @property
    def value(self) -> float:
        """The deadline of a request that arrives now."""
        return self._latency.value if self._rules.tracked else self._rules.deadline

    @property
    def median(self) -> float:
        """Seconds that half of the first copies take; 0 while nothing is known."""
        return self._latency.median

    def finished(self, seconds: float) -> None:
        """A first copy came back."""
        self._latency.finished(seconds)

    def cut_off(self, seconds: float) -> None:
        """A first copy was cancelled: it would have taken longer."""
        self._latency.cut_off(seconds)

    def spare(self, affordable: float) -> None:
        """Make stragglers of no more than this share of the requests: as many as can be paid a replica.

        That is Finagle's rule: with N % of extra load, send at percentile 100 - N. With 1 or more, the quantile is that
        of the rules again.
        """
        spared = self._rules.quantile < 1 - affordable < 1
        self._latency.share = 1 - affordable if spared else self._rules.quantile
        self._latency.stretch = math.inf if spared else self._rules.stretch
