"""Which requests are worth help, where a budget does not pay for all. Pure: no I/O, no clock.

A code for everybody costs r / N of the load, though few requests need it. A smaller budget is spent on requests that
are still unanswered after a while, by one rule: a token has a price, and is spent where help is worth more.

- *Worth.* Help is worth what it takes off the square of a latency, as a tail is to be shortened: a second off a slow
  answer counts more than off a quick one. If a run takes c seconds, help for a request of age a is worth
  E[max(0, X^2 - (a + c)^2) | X > a]. The running quantile knows the distribution of X, the latency of own answers.
- *Price.* It rises with each token that is asked for and falls with each that is earned, so that earned tokens are
  spent: it is the Lagrange multiplier of the budget, followed by stochastic dual ascent.
- *Groups.* A request joins the open group once its worth is its share of a group's price. The group is closed when it
  is full, or when its members together are worth its price.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np

from encoder.code import GroupShape
from frontend.policy.budget import Budget
from frontend.policy.quantile import MIDDLES, Histogram, RunningQuantile, bin_of

_GAIN = 0.03  # of the logarithm of the price, for each token
_EARNED = 0.98  # so that slightly less is spent than earned
_CHEAPEST, _DEAREST = 1e-3, 2.0  # bounds of the price, in groups whose members are all worth the most
_TRUSTED = 1e-4  # share of requests still unanswered below which nothing is known
_SOON = 10  # medians after the first request for which nothing is known of slow answers
_TICKS, _RETRIES = 32, 4  # of looks at an open group, and of joins without tokens, in a median latency
ALONE = GroupShape(1, 1, 1, 1)
"""A request that is sent again: a group of its own, whose redundant run is the replica."""


class Deferral:
    """Spends a budget, by price where that is scarce: ``latency`` is that of own answers. Times in seconds."""

    def __init__(self, allowed: bool, budget: Budget, latency: RunningQuantile) -> None:
        """Without ``allowed`` tokens have no price: whoever comes first gets them."""
        self.budget = budget
        self._decay = math.exp(-_GAIN * _EARNED * budget.rate)  # of the price, with every request
        self._allowed, self._latency = allowed, latency
        self._shape = ALONE  # of the groups that are priced
        self._survival = latency.survival
        self._worth: Sequence[float] = ()
        self._rising: Sequence[float] = ()  # the most that help was worth up to this age
        self._price = 0.0  # of a token; 0 while nothing is known
        self._began: float | None = None
        self.active = False
        """Whether only requests that are worth it are helped: the budget does not pay the code of every group."""
        self.sell(None, ALONE)

    @property
    def known(self) -> bool:
        """Whether tokens have a price: enough latencies were seen to say what help is worth."""
        return self.active and self._price > 0

    @property
    def tick(self) -> float:
        """Seconds between two looks at an open group."""
        return self._latency.median / _TICKS

    @property
    def retry(self) -> float:
        """Seconds after which a request joins again whose group could not be paid."""
        return self._latency.median / _RETRIES

    def sell(self, shape: GroupShape | None, now: GroupShape) -> None:
        """Groups have this shape; tokens buy that of ``now``: ``ALONE`` while there is no redundant worker."""
        self.active = self._allowed and self.budget.rate > 0 and self.budget.scarce(shape)
        self._shape = now

    def earn(self, at: float) -> None:
        """A request came."""
        if self._began is None:
            self._began = at
        self.budget.earn()
        self._price *= self._decay

    def spend(self, tokens: int = 1, *, force: bool = False) -> bool:
        """Take tokens for what is worth them; true if the budget has them.

        Where they have a price the budget may run into debt, as the price sees to it that they are earned.
        """
        if not self.known:
            return self.budget.spend(tokens, force=force)
        self._price *= math.exp(_GAIN * tokens)
        return self.budget.spend(tokens, leaving=-self.budget.most, force=force)

    def joins_after(self) -> float:
        """Age at which a request that has no answer joins a group, as things are."""
        share = self._price * self._shape.inputs / self._shape.members
        index = bisect.bisect_left(self._rising, min(share, self._rising[-1]))
        return float(MIDDLES[index - 1]) if index else 0.0

    def pays(self, ages: Sequence[float], shape: GroupShape = ALONE) -> bool:
        """Whether help for a group of requests of these ages is worth its tokens; while nothing is known, it is."""
        if not self.known:
            return True
        return sum(map(self.worth, ages)) >= self._price * shape.inputs

    def worth(self, age: float) -> float:
        """Square seconds that help is expected to take off a request of this age."""
        return self._worth[bin_of(age)]

    def update(self, at: float, run: float) -> None:
        """Look again at the latencies; ``run`` is how long redundant runs usually take, 0 if unknown."""
        survival = self._latency.survival
        if not self.active or survival is self._survival or survival is None or self._began is None:
            return
        if at < self._began + _SOON * self._latency.median:
            return
        self._survival = survival
        self._worth, self._rising = _worths(survival, self._latency.longest, run or self._latency.median)
        members = self._shape.members / self._shape.inputs  # that a token helps
        if not self._price:  # as if groups were full: the share of requests that can join one is known
            first = int(np.searchsorted(-survival, -min(1.0, self.budget.rate * members)))
            self._price = members * self._rising[min(first, len(self._rising) - 1)]
        most = members * self._rising[-1]
        self._price = min(max(self._price, _CHEAPEST * most), _DEAREST * most)


def _worths(survival: Histogram, longest: float, run: float) -> tuple[list[float], list[float]]:
    """Worth of help by age, and the most up to each age, in square seconds, by the bins of the quantile.

    Requests that were helped are not seen to end: those of which no more is known than that they took ``longest`` would
    have taken twice that. Help for a request of an age that is nearly never reached is worth the most.
    """
    before = np.concatenate(([1.0], survival[:-1]))
    share = before - survival
    share[bin_of(2 * longest)] += survival[-1]
    squares = MIDDLES**2
    later = np.append(np.cumsum((share * squares)[::-1])[::-1], 0.0)
    count = np.append(np.cumsum(share[::-1])[::-1], 0.0)
    back = np.searchsorted(MIDDLES, MIDDLES + run)
    known = before >= _TRUSTED
    worth = np.where(known, (later[back] - (MIDDLES + run) ** 2 * count[back]) / np.maximum(before, _TRUSTED), 0.0)
    worth[~known] = worth.max()
    return worth.tolist(), np.maximum.accumulate(worth).tolist()
