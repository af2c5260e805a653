"""When a request becomes a straggler. Pure: no I/O, no clock."""

from __future__ import annotations

from frontend.policy.quantile import RunningQuantile
from frontend.policy.rules import Rules


class Deadline:
    """Seconds after its arrival at which a request is a straggler: a fixed time, or a quantile of what copies take."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.latency = RunningQuantile(rules.quantile, rules.deadline, rules.shortest, rules.longest, rules.stretch)

    @property
    def value(self) -> float:
        """The deadline of a request that arrives now."""
        return self.latency.value if self._rules.tracked else self._rules.deadline

    @property
    def median(self) -> float:
        """Seconds that half of the first copies take; 0 while nothing is known."""
        return self.latency.median

    def finished(self, seconds: float) -> None:
        """A first copy came back."""
        self.latency.finished(seconds)

    def cut_off(self, seconds: float) -> None:
        """A first copy was cancelled: it would have taken longer."""
        self.latency.cut_off(seconds)
