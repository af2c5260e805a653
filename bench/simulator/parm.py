"""ParM's experiment (Learning-based coded computation, section VI-C): which runs there are, and each simulated.

12 workers run the base model and 12 / k more machines a redundant model, while pairs of machines move data. Queries
come at 270 per second, and everything takes four times as long as on ParM's machines. Each code is compared with "equal
resources", where the additional machines run the base model as well. ParM answers from its code whenever that is
sooner (the policy first-come); the adaptive policy beside it spends no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from bench.measured import extra_load
from bench.offer import Models, Regime, Seconds, TypicalModels, measured_models, poisson, transfers
from bench.progress import each
from bench.simulator.replay import EQUAL_RESOURCES, Setup, run
from collage.figures import Row, Scalar
from encoder.code import GroupShape

BASE, RATE, QUERIES = 12, 270 / 4, 100_000
USUAL_PAIRS, PAIRS = 4, (1, 2, 3, 5)  # of machines that move data at a time
WARM_UP = 2000  # queries
LINEAR = TypicalModels(1.0, 0.0, 0.92, 0.92, 0.92, 0.92, factor=1.0)
"""A parity model is as slow as the base model; its answers have no confidence, so that all are taken."""


class ParmCase(NamedTuple):
    """One run: 12 + 12 / k machines, pairs of them that move data, a policy and perhaps a code: linear or collage."""

    k: int
    pairs: int
    policy: str
    code: str | None
    seed: int

    @property
    def machines(self) -> int:
        """All of them."""
        return BASE + BASE // self.k

    @property
    def shape(self) -> GroupShape:
        """The linear code's group has k members; the smallest collage has four."""
        if self.code == "linear":
            return GroupShape(self.k, 1, needed=self.k, fewest=self.k)
        return GroupShape.collage(4)

    @property
    def models(self) -> Models:
        """What redundant answers are worth."""
        return LINEAR if self.code == "linear" else measured_models(2)

    @property
    def extra_load(self) -> float:
        """The budget, by which both policies may use all the redundant machines."""
        return 1.05 / self.shape.members

    @property
    def regime(self) -> Regime:
        """Pairs of all machines move data."""
        return transfers(2 * self.pairs / self.machines)

    def arrivals(self, queries: int) -> Seconds:
        """When so many queries come, seconds ``[queries]``."""
        return poisson(RATE, queries, self.seed)

    def row(self, source: str, requests: int, measured: Mapping[str, Scalar]) -> Row:
        """Which run it is, and of what was measured the latencies in seconds, extra load and coded answers."""
        kept = ("p50_s", "p99_s", "p999_s", "coded_share", "accuracy", "accuracy_available")
        return {
            **{"source": source, "k": self.k, "workers": BASE, "redundant": BASE // self.k, "pairs": self.pairs},
            **{"policy": self.policy, "code": self.code, "seed": self.seed, "requests": requests},
            **{key: measured[key] for key in kept},
            "extra_load": extra_load(measured),
        }


def cases(seeds: int) -> Iterator[ParmCase]:
    """k = 2 to 4 with four pairs, and k = 2 with fewer and more."""
    for k, pairs in ((2, USUAL_PAIRS), (3, USUAL_PAIRS), (4, USUAL_PAIRS), *((2, pairs) for pairs in PAIRS)):
        for seed in range(seeds):
            yield ParmCase(k, pairs, EQUAL_RESOURCES, None, seed)
            for code in ("linear", "collage"):
                yield ParmCase(k, pairs, "first-come", code, seed)
                yield ParmCase(k, pairs, "adaptive", code, seed)


def simulate(task: tuple[ParmCase, int]) -> Row:
    """The row of a case, with a number of queries."""
    case, queries = task
    setup = Setup(BASE, BASE // case.k, code=case.shape)
    warm_up, groups = (-(-requests // BASE) for requests in (WARM_UP, queries))
    arrivals = case.arrivals((warm_up + groups) * BASE)
    limits = {"extra_load": case.extra_load} if case.code else {}
    known = (setup, case.policy, case.regime, case.seed, groups)
    done = run(*known, arrivals=arrivals, models=case.models, warm_up=warm_up, limits=limits)
    return case.row("sim", len(done.latency_s), done.row({}))


def parm(chosen: Iterable[ParmCase], queries: int, processes: int = 1) -> list[Row]:
    """The rows of all runs, made in ``processes`` side by side."""
    return list(each(simulate, [(case, queries) for case in chosen], "simulating", processes))
