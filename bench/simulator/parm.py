"""``python -m bench parm``: ParM's experiment (Learning-based coded computation, section VI-C), simulated.

12 workers run the base model and 12 / k more machines a redundant model, while pairs of machines move data. Queries
come at 270 per second, and everything takes four times as long as on ParM's machines. Each code is compared with "equal
resources", where the additional machines run the base model as well. ParM answers from its code whenever that is
sooner; the adaptive policy beside it spends no more.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.measured import FOR_P999, extra_load
from bench.offer import Models, TypicalModels, measured_models, poisson, transfers
from bench.progress import each
from bench.simulator.replay import EQUAL_RESOURCES, Setup, run
from collage.figures import OUT, Row, write_figures
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
    def limits(self) -> dict[str, float | None]:
        """Limits of Rules: ParM has no deadline, and both may use all the redundant machines."""
        budget = 1.05 / self.shape.members
        return {"deadline": 0.001, "extra_load": budget} if self.policy == "collage-only" else {"extra_load": budget}


def cases(seeds: int) -> Iterator[ParmCase]:
    """k = 2 to 4 with four pairs, and k = 2 with fewer and more."""
    for k, pairs in ((2, USUAL_PAIRS), (3, USUAL_PAIRS), (4, USUAL_PAIRS), *((2, pairs) for pairs in PAIRS)):
        for seed in range(seeds):
            yield ParmCase(k, pairs, EQUAL_RESOURCES, None, seed)
            for code in ("linear", "collage"):
                yield ParmCase(k, pairs, "collage-only", code, seed)
                yield ParmCase(k, pairs, "adaptive", code, seed)


def simulate(task: tuple[ParmCase, int]) -> Row:
    """One row, of a case and a number of queries: which run, latencies in seconds, extra load, coded answers."""
    case, queries = task
    regime = transfers(2 * case.pairs / case.machines)
    setup = Setup(BASE, BASE // case.k, code=case.shape)
    warm_up, groups = (-(-requests // BASE) for requests in (WARM_UP, queries))
    arrivals = poisson(RATE, (warm_up + groups) * BASE, case.seed)
    limits = case.limits if case.code else {}
    known = (setup, case.policy, regime, case.seed, groups)
    done = run(*known, arrivals=arrivals, models=case.models, warm_up=warm_up, limits=limits)
    row = done.row({})
    return {
        **{"source": "sim", "k": case.k, "workers": BASE, "redundant": BASE // case.k, "pairs": case.pairs},
        **{"policy": case.policy, "code": case.code, "seed": case.seed, "requests": len(done.latency_s)},
        **{key: row[key] for key in ("p50_s", "p99_s", "p999_s")},
        "extra_load": extra_load(row),
        **{key: row[key] for key in ("coded_share", "accuracy", "accuracy_available")},
    }


def parm(chosen: Iterable[ParmCase], queries: int, processes: int = 1) -> list[Row]:
    """The rows of all runs, made in ``processes`` side by side."""
    return list(each(simulate, [(case, queries) for case in chosen], "simulating", processes))


def main(argv: Sequence[str]) -> int:
    """Simulate the experiment and write its figures; 0."""
    parser = argparse.ArgumentParser(prog="python -m bench parm", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--queries", type=int, default=QUERIES, help="for each run (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs to average (%(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT / "parm.json", help="the figures (%(default)s)")
    args = parser.parse_args(argv)
    if args.queries < FOR_P999 or args.seeds < 1 or args.processes < 1:
        parser.error(f"at least {FOR_P999:,} queries, for a 99.9th percentile, one seed, and one process")
    rows = parm(cases(args.seeds), args.queries, args.processes)
    print(f"figures: {write_figures(args.out.stem, rows, directory=args.out.parent)}")
    return 0
