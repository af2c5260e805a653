"""Rivals: what others do about stragglers, as rules of our policy and a choice of worker.

None has redundant workers, so that all workers of a cluster run the base model ("equal resources"). docs/policy.md says
where each comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bench.offer import Seconds
from bench.simulator.prequal import Prequal, Probe
from frontend.policy.choices import CHOICES, Choice

EQUAL_RESOURCES = "equal-resources"
AIM = 0.99
"""The quantile of latency that SingleR makes as short as it can."""
PREQUAL_HOT = 0.0
"""Prequal's best setting here, where a worker runs one request at a time: idle workers first, by latency."""
_STEPS, _CLOSE_S = 400, 1e-5  # of the search for its delay, and for the quantile


def choice_named(name: str, probe: Probe) -> Choice:
    """A new choice: one of the frontend's, or ``prequal``, which asks workers by ``probe``."""
    return Prequal(probe, PREQUAL_HOT) if name == "prequal" else CHOICES[name]()


@dataclass(frozen=True)
class Rival:
    """A policy of ours, by name, with other limits of its Rules, and a choice of worker."""

    policy: str
    choice: str = "fewest-calls"
    limits: Mapping[str, float] = field(default_factory=dict)
    reissue: bool = False
    """The deadline is the delay of SingleR, which follows from the latencies and the budget."""

    def limited(self, latencies: Seconds, limits: Mapping[str, float | None]) -> dict[str, float | None]:
        """All limits: its own, unless they are given. ``latencies`` in seconds are those of single copies."""
        every = {**self.limits, **limits}
        if self.reissue and "deadline" not in limits:
            every["deadline"] = reissue_delay(latencies, float(every["extra_load"] or 0.0))
        return every


RIVALS: Mapping[str, Rival] = {
    EQUAL_RESOURCES: Rival("none"),
    "power-of-two": Rival("none", "power-of-two"),
    "peak-ewma": Rival("none", "peak-ewma"),
    "prequal": Rival("none", "prequal"),
    "single-r": Rival("replicate", limits={"extra_load": 0.1}, reissue=True),
    "idle-cloning": Rival("replicate", "idle-only", {"deadline": 0.0, "extra_load": 1.0}),
    "adaptive-hedge": Rival("hedge", limits={"quantile": 0.9, "extra_load": 0.1}),
    "prequal-hedge": Rival("hedge", "prequal", {"quantile": 0.9, "extra_load": 0.1}),
}


def reissue_delay(latencies: Seconds, budget: float, aim: float = AIM) -> float:
    """The delay in seconds of the best SingleR policy for a ``budget`` of extra requests for each request.

    SingleR sends a request again, once, if it has no answer after a delay d, with a probability q (Kaler, He and
    Elnikety, SPAA 2017). All that a budget pays are sent: q = budget / P(X > d). The best d has the smallest ``aim``
    quantile. ``latencies`` in seconds are those of single copies, float ``[n]``.
    """
    known = np.sort(latencies)
    first = float(np.quantile(known, max(0.0, 1 - budget)))  # from here on the budget pays for all, q = 1
    return float(min(np.linspace(0.0, first, _STEPS), key=lambda delay: reissued_quantile(known, delay, budget, aim)))


def reissued_quantile(known: Seconds, delay: float, budget: float, aim: float = AIM) -> float:
    """The ``aim`` quantile of latency in seconds under SingleR; ``known`` are sorted latencies of single copies.

    A request takes longer than t with probability P(X > t) (1 - q P(Y <= t - d)): its copies X and Y are independent.
    """

    def within(seconds: float) -> float:
        return float(np.searchsorted(known, seconds, side="right")) / len(known)

    later = 1 - within(delay)
    share = min(1.0, budget / later) if later > 0 else 1.0
    low, high = 0.0, float(known[-1])
    while high - low > _CLOSE_S:
        middle = (low + high) / 2
        late = (1 - within(middle)) * (1 - share * within(middle - delay))
        low, high = (low, middle) if late <= 1 - aim + 1e-12 else (middle, high)
    return high
