"""A running quantile of latencies of which many are never seen to the end. Pure: no I/O, no clock."""

from __future__ import annotations

import math

import numpy as np

LOWEST_S, HIGHEST_S, RATIO = 1e-4, 100.0, 1.02
_LOG_RATIO = math.log(RATIO)
_BINS = math.ceil(math.log(HIGHEST_S / LOWEST_S) / math.log(RATIO)) + 1
_EDGES = LOWEST_S * RATIO ** np.arange(1, _BINS + 1)
_FORGOTTEN = 1e-4  # weight, of that of all latencies, below which those of a bin do not count
MIDDLES = _EDGES / math.sqrt(RATIO)
"""The latencies that stand for the bins, in seconds."""

Histogram = np.ndarray[tuple[int], np.dtype[np.float64]]
"""A number for each bin."""


def bin_of(seconds: float) -> int:
    """The bin of a latency; the first and the last have no bound."""
    if seconds <= LOWEST_S:
        return 0
    found = int(math.log(seconds / LOWEST_S) / _LOG_RATIO)
    return found if found < _BINS else _BINS - 1


class RunningQuantile:
    """The ``share`` quantile of latencies in seconds, by the product-limit estimator (Kaplan and Meier, 1958).

    Losers are cancelled, so slow latencies are the ones that are never finished, and a quantile of those that are
    drifts down. Here a cancelled copy counts as what it is: at least the time it had taken. Older latencies lose
    weight, half of it after ``half_life`` newer ones. Starts from ``initial`` and is evaluated after ``every``
    latencies, first after twice as many. Stays within ``lowest`` and ``highest``, and at most ``stretch`` medians:
    when many workers are slow, a high quantile is theirs.
    """

    def __init__(
        self,
        share: float,
        initial: float,
        lowest: float = 1e-3,
        highest: float = 60.0,
        stretch: float = math.inf,
        half_life: float = 2000.0,
        every: int = 32,
    ) -> None:
        self.value = initial
        self.median = 0.0  # until enough is known
        self.survival: Histogram | None = None
        """Share of latencies beyond each bin; None until enough is known. Each evaluation makes a new one."""
        self.longest = 0.0
        """The longest that a copy took or had taken when it was cancelled, of those that count still."""
        self._share, self._stretch, self._lowest, self._highest = share, stretch, lowest, highest
        self._growth = 2 ** (1 / half_life)
        self._weight = 1.0  # of the next latency; grows, which is cheaper than shrinking all others
        self._finished = np.zeros(_BINS)
        self._cut_off = np.zeros(_BINS)
        self._every, self._count = every, 0

    def finished(self, latency: float) -> None:
        """A first copy came back after ``latency`` seconds."""
        self._record(self._finished, latency)

    def cut_off(self, elapsed: float) -> None:
        """A first copy was cancelled after ``elapsed`` seconds: it would have taken longer."""
        self._record(self._cut_off, elapsed)

    def beyond(self, seconds: float) -> float:
        """The share of latencies that are longer than ``seconds``, within 2 % of these; 1 until enough is known."""
        return 1.0 if self.survival is None else float(self.survival[bin_of(seconds)])

    def _record(self, histogram: Histogram, seconds: float) -> None:
        histogram[bin_of(seconds)] += self._weight
        self._weight *= self._growth
        self._count += 1
        if self._count > self._every and self._count % self._every == 0:
            self._evaluate()

    def _evaluate(self) -> None:
        if self._weight > 1e12:
            self._finished /= self._weight
            self._cut_off /= self._weight
            self._weight = 1.0
        ended = self._finished + self._cut_off
        at_risk = ended[::-1].cumsum()[::-1]
        # Those cut off in a bin count as half at risk in it.
        hazard = self._finished / np.maximum(at_risk - self._cut_off / 2, 1e-9)
        survival = self.survival = np.cumprod(1 - np.minimum(hazard, 1.0))
        self.longest = float(_EDGES[np.flatnonzero(ended > _FORGOTTEN * at_risk[0])[-1]])
        below = np.flatnonzero(survival <= 1 - self._share)
        # If too many were cut off, the quantile lies beyond all that was seen: look further.
        found = _EDGES[below[0]] if len(below) else 1.25 * self.longest
        middle = np.flatnonzero(survival <= 0.5)
        if len(middle):
            self.median = float(_EDGES[middle[0]])
            found = min(found, self._stretch * self.median)
        self.value = min(self._highest, max(self._lowest, float(found)))
