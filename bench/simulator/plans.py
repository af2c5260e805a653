"""What ``python -m bench frontier`` simulates: where, which policies, at which settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from bench.offer import FAMILIES
from bench.simulator.replay import Setup
from encoder.code import GroupShape

USUAL = "transient"
TRIAL_SEEDS = (100, 101)  # that settings are chosen on
BUDGETS = (0.003, 0.008, 0.013, 0.025, 0.05, 0.08, 0.115)
FEW = (0.013, 0.05, 0.115)
BURST = 20
WARM_UP = 4000  # requests that do not count


class Grid(NamedTuple):
    """A cluster of s-cnn workers and collage workers, whose collages have ``k`` x ``k`` cells."""

    workers: int
    redundant: int
    k: int

    @property
    def setup(self) -> Setup:
        """As the simulator knows it."""
        return Setup(self.workers, self.redundant, code=GroupShape.collage(self.k**2))


SMALL, MIDDLE, LARGE = Grid(36, 4, 2), Grid(90, 10, 2), Grid(900, 100, 3)
MORE_BUDGETS: Mapping[Grid, Sequence[float]] = {SMALL: (0.034,), MIDDLE: (0.03, 0.046), LARGE: ()}


class Place(NamedTuple):
    """Where policies are compared: requests come as many ``together``, at this ``load`` of the s-cnn workers."""

    family: str
    cluster: Grid
    load: float
    together: int = 1


class FrontierCase(NamedTuple):
    """One run. ``setting`` gives limits of Rules, as ``quantile=0.9,extra_load=0.05``, or is empty for the defaults.

    ``budget`` is the extra load that the setting is meant for, nan for a policy that has none.
    """

    place: Place
    policy: str
    setting: str
    seed: int
    requests: int
    budget: float = float("nan")
    warm_up: int = WARM_UP


def limits(setting: str) -> dict[str, float | None]:
    """A setting's limits of Rules by name."""
    pairs = (part.partition("=") for part in setting.split(",") if part)
    return {name: float(value) for name, _, value in pairs}


def _hedges(budget: float) -> list[str]:
    """A hedge that sends what the budget pays, and sooner ones that the budget holds back."""
    shares = [times * budget for times in (0.9, 1.5, 3) if times * budget < 0.6]
    return [f"quantile={1 - share:.4g},extra_load={budget:g}" for share in shares]


def _budget_alone(budget: float) -> list[str]:
    return [f"extra_load={budget:g}"]


def _clones(budget: float) -> list[str]:
    """Copies from the start, and of requests that are still unanswered after the usual times."""
    return [f"deadline={delay:g},extra_load={budget:g}" for delay in (0, 0.15, 0.2)]


TUNED: Mapping[str, Callable[[float], list[str]]] = {
    **{"hedge": _hedges, "adaptive-hedge": _hedges, "prequal-hedge": _hedges},
    **{"single-r": _budget_alone, "idle-cloning": _clones},
}
"""Rivals that spend a budget, and the settings that are tried for it."""
FIXED = ("none", "equal-resources", "power-of-two", "peak-ewma", "prequal", "ejection", "collage")
"""Rivals without a budget: what spends nothing, and a code that is used for all requests."""


@dataclass(frozen=True)
class Plan:
    """Runs in order of their worth; those at ``short`` places have ``few_requests`` and ``few_seeds``.

    With ``alike`` settings are chosen at one place of a family, in the middle, for all of them.
    """

    full: Sequence[Place]
    short: Sequence[Place]
    requests: int = 12_000
    few_requests: int = 10_000
    trial_requests: int = 5_000
    warm_up: int = WARM_UP
    seeds: int = 5
    few_seeds: int = 3
    alike: bool = False

    def of(self, families: Sequence[str]) -> Plan:
        """Only places of these families."""
        full, short = ([place for place in places if place.family in families] for places in (self.full, self.short))
        return replace(self, full=full, short=short)

    def sample(self, requests: int) -> FrontierCase:
        """A run to see how long runs take."""
        return FrontierCase((*self.full, *self.short)[0], "adaptive", _budget_alone(0.05)[0], 0, requests)

    def trials(self) -> Iterator[FrontierCase]:
        """Runs that choose the settings of rivals, by place and budget."""
        seen = set()
        for place in (*self.full, *self.short):
            for policy, settings in TUNED.items():
                for budget in self._budgets(place):
                    tried = settings(budget)
                    for seed in TRIAL_SEEDS if len(tried) > 1 else ():
                        for setting in tried:
                            run = FrontierCase(
                                *(self._tried_at(place), policy, setting, seed),
                                *(self.trial_requests, budget, self.warm_up),
                            )
                            if run not in seen:
                                seen.add(run)
                                yield run

    def cases(self, chosen: Mapping[tuple[Place, str, float], str]) -> Iterator[FrontierCase]:
        """The runs of the table; a rival's first setting where none is chosen."""
        seen = set()
        for places, requests, seeds in (
            (self.full, self.requests, self.seeds),
            (self.short, self.few_requests, self.few_seeds),
        ):
            for place in places:
                for case in self._at(place, chosen):
                    for seed in range(seeds):
                        run = case._replace(seed=seed, requests=requests, warm_up=self.warm_up)
                        if run[:4] not in seen:
                            seen.add(run[:4])
                            yield run

    def _at(self, place: Place, chosen: Mapping[tuple[Place, str, float], str]) -> Iterator[FrontierCase]:
        """The policies and settings at one place."""
        budgets = self._budgets(place)
        for budget in budgets:
            yield FrontierCase(place, "adaptive", _budget_alone(budget)[0], 0, 0, budget)
        for policy in FIXED:
            yield FrontierCase(place, policy, "", 0, 0)
        for policy, settings in TUNED.items():
            for budget in budgets:
                setting = chosen.get((self._tried_at(place), policy, budget), settings(budget)[0])
                yield FrontierCase(place, policy, setting, 0, 0, budget)

    def _budgets(self, place: Place) -> list[float]:
        few = place in self.short and place not in self.full
        return sorted(FEW) if few else sorted({*BUDGETS, *MORE_BUDGETS.get(place.cluster, ())})

    def _tried_at(self, place: Place) -> Place:
        return Place(place.family, MIDDLE, 0.5) if self.alike else place


_ALL = [
    Place(family, cluster, load)
    for load in (0.5, 0.3, 0.8)
    for family in FAMILIES
    for cluster in (SMALL, MIDDLE, LARGE)
]
_BURSTS = [Place(family, cluster, 0.5, BURST) for family in FAMILIES for cluster in (SMALL, MIDDLE, LARGE)]
_MOST = [place for place in _ALL if place.family == USUAL and place.load == 0.5]
_OTHERS = sorted(
    (place for place in (*_ALL, *_BURSTS) if place not in _MOST),
    key=lambda place: (place.cluster != SMALL or place.load != 0.5, place.family != USUAL),
)
PLANS = {
    False: Plan([*_ALL, *_BURSTS], [], requests=50_000, trial_requests=10_000),
    True: Plan(_MOST, _OTHERS, trial_requests=4000, few_seeds=2, alike=True),
}
"""The whole plan; by True the reduced one: transient slowness at half load in full, everything else in short."""
