"""The budget of errors that coded answers share. Pure: no I/O, no clock.

A coded answer of a certain confidence costs an expected share of errors beyond the s-cnn's own: its model's table says
which. Requests earn the budget, coded answers spend their cost, so that the loss of accuracy has a bound that the
operator sets, whatever the latencies are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_CAUTION = 4.0  # an answer may cost at most a quarter of what is left, so that what is scarce goes to the surest
_PRIOR = 20.0  # disagreements that the table counts for, beside those that audits find
_KEPT = 200.0  # disagreements after which earlier audits count half


class ErrorStep(NamedTuple):
    """What coded answers cost from a ``confidence`` on, up to that of the next step; shares from 0 to 1.

    ``errors``: answers that are wrong beyond the s-cnn's own, with their ``standard_error``. ``differs``: answers that
    are not the s-cnn's.
    """

    confidence: float
    errors: float
    standard_error: float
    differs: float


class Accuracy:
    """Errors that may be spent: each request earns ``rate`` of one, up to a burst of ``most``.

    No ``rate`` and no table mean no bound. Answers that are given early may spend the upper half of the burst only:
    their own answer would have come. Stragglers may spend all of it.
    """

    def __init__(self, rate: float | None, most: float = 4.0) -> None:
        self.rate, self.most = rate, most
        self.left = most / 2 if rate else 0.0
        """Errors; below 0 after answers that had to be given."""
        self.steps: Sequence[ErrorStep] = ()
        """The table, by rising confidence from 0 on; empty where the model has none."""
        self._expected = self._found = 0.0

    @property
    def scale(self) -> float:
        """How many times as often audited answers differ from the s-cnn's as the table says; near 1 after few audits.

        The mean of a gamma distribution, whose prior is the table with the weight of 20 disagreements.
        """
        return (_PRIOR + self._found) / (_PRIOR + self._expected)

    def use(self, steps: Sequence[ErrorStep]) -> None:
        """Take the table of the model in use; another table's audits say nothing of it."""
        if steps != self.steps:
            self.steps = steps
            self._expected = self._found = 0.0

    def earn(self) -> None:
        """Count a request."""
        if self.rate:
            self.left = min(self.most, self.left + self.rate)

    def cost(self, confidence: float) -> float:
        """Errors to expect of one coded answer: one standard error above the table's, as that is an estimate.

        0 where there is no table.
        """
        step = self._step(confidence)
        return min(1.0, self.scale * (step.errors + step.standard_error)) if step else 0.0

    def pays(self, confidence: float, *, early: bool = False) -> bool:
        """Whether an answer of this confidence may be given although another one may come."""
        if self.rate is None:
            return True
        left = self.left - (self.most / 2 if early else 0.0)
        return _CAUTION * self.cost(confidence) <= max(0.0, left)

    def spend(self, confidence: float) -> float:
        """Take what an answer costs and return it; one that has to be given may lead into debt, which is bounded."""
        cost = self.cost(confidence)
        self.left = max(self.left - cost, -self.most)
        return cost

    def audited(self, confidence: float, *, agrees: bool) -> None:
        """A coded answer was compared with the s-cnn's."""
        if step := self._step(confidence):
            self._expected += step.differs
            self._found += not agrees
            if max(self._expected, self._found) > _KEPT:
                self._expected /= 2
                self._found /= 2

    def _step(self, confidence: float) -> ErrorStep | None:
        below = [step for step in self.steps if step.confidence <= confidence]
        return below[-1] if below else None
