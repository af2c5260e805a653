"""Simulations for the report: settings of each policy, larger groups, other regimes, offered loads."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.offer import measured_models
from bench.progress import each, watched
from bench.simulator.replay import COMPARED, REGIMES, Setup, about, run
from collage.figures import Row, Scalar, write_figures

REGIME = "transient"
RECORDED = ("none", "replicate", "hedge", "collage", "adaptive")
"""Policies whose groups are recorded one by one; a report draws their densities."""
SHARES = (0.8, 0.85, 0.88, 0.9, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)  # of first copies in time: the deadline
NEAR: Mapping[int, Sequence[float]] = {  # deadlines that cost replicas up to about what the collages of N cost
    **{4: (0.75, 0.8, 0.85, 0.9, 0.93, 0.95), 9: SHARES},
    **{16: (0.92, 0.93, 0.94, 0.95, 0.96, 0.97), 25: (0.94, 0.95, 0.96, 0.97, 0.98)},
}
OTHERS = (0.85, 0.88, 0.9, 0.93)  # in the other regimes, beside the default of 0.95
OTHER_REGIMES = ("persistent", "mixture", "failures", "bimodal", "pareto")
SOONER = 0.9  # a deadline quantile of the adaptive policy that costs larger groups little
BUDGETS = (0.02, 0.05, 0.08, 0.11, 0.13, 0.16, 0.2)
PATIENCE = (1.02, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 1.7, 2.0, 2.3)  # times a deadline of .215 s: .22 to .5 s
LOADS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FOR_P999 = 100  # times as many groups
CLUSTERS = (100, 1_000, 10_000)  # workers, a tenth of them collage workers
SCALED = (0.3, 0.5, 0.8, 0.9, 1.0)  # loads
FULL_LOAD = 0.5  # simulated at full length with one frontend; other loads and several frontends at a tenth of it


class SweptCase(NamedTuple):
    """One policy with one limit (of Rules) away from its default, or none; closed groups or an open loop.

    ``times`` as many groups as others, or requests in an open loop.
    """

    setup: Setup
    policy: str
    setting: str | None = None
    value: float | None = None
    load: float | None = None
    regime: str = REGIME
    times: int = 1

    @property
    def recorded(self) -> bool:
        """True if its groups are recorded one by one, for densities and tables."""
        usual = self.regime == REGIME and self.load is None and self.setting is None and self.times < FOR_P999
        return usual and self.policy in RECORDED


def cases() -> Iterator[SweptCase]:
    """All cases that the report draws, except ``budget_cases`` and ``long_cases``."""

    def rivals(setup: Setup, shares: Iterable[float], regime: str, times: int) -> Iterator[SweptCase]:
        for share in shares:
            deadline = float(np.quantile(REGIMES[regime].sample, share))
            yield SweptCase(setup, "hedge", "quantile", share, regime=regime, times=times)
            yield SweptCase(setup, "replicate", "deadline", deadline, regime=regime, times=times)

    # A larger grid sends fewer collages, so that its tail needs more groups.
    for n, times in ((4, 3), (9, 3), (16, 8), (25, 16)):
        setup = Setup(n, 1)
        yield from (SweptCase(setup, policy, times=times) for policy in COMPARED)
        yield from rivals(setup, NEAR[n], REGIME, times)
        if n > 9:
            yield SweptCase(setup, "adaptive", "quantile", SOONER, times=times)
    setup = Setup(9, 1)
    usual = REGIMES[REGIME].sample
    yield from (SweptCase(setup, "collage", "deadline", float(np.quantile(usual, share)), times=3) for share in SHARES)
    yield from (SweptCase(setup, "adaptive", "patience", patience, times=3) for patience in PATIENCE)
    for name in OTHER_REGIMES:
        yield from (SweptCase(setup, policy, regime=name, times=3) for policy in COMPARED)
        yield from rivals(setup, OTHERS, name, 3)
    for setup in (Setup(9, 1), Setup(36, 4)):
        yield from (SweptCase(setup, policy, load=load, times=4) for policy in COMPARED for load in LOADS)


def budget_cases() -> Iterator[SweptCase]:
    """The adaptive policy with smaller and larger budgets of extra load."""
    yield from (SweptCase(Setup(9, 1), "adaptive", "extra_load", budget, times=3) for budget in BUDGETS)


def long_cases() -> Iterator[SweptCase]:
    """Enough groups for a 99.9th percentile."""
    yield from (
        SweptCase(Setup(9, 1), policy, times=FOR_P999) for policy in ("none", "collage-only", "collage", "adaptive")
    )


def simulate(task: tuple[SweptCase, int, int]) -> tuple[Row, list[Row]]:
    """The row of a case, a seed and a number of groups, and its groups one by one if they are recorded.

    The models are the shipped ones of CIFAR-10 for that grid.
    """
    case, seed, groups = task
    setup, regime = case.setup, REGIMES[case.regime]
    limits: dict[str, float | None] = {case.setting: case.value} if case.setting else {}
    warm_up = 20
    count = case.times * groups if case.load is None else case.times * (9 * groups // setup.n) + warm_up
    models = measured_models(math.isqrt(setup.shape.members))
    done = run(setup, case.policy, regime, seed, count, case.load, models=models, limits=limits)
    row = done.row(about("sim", setup, regime, case.policy, seed, case.load))
    known: dict[str, Scalar] = {"simulated": True, "regime": case.regime, "n": setup.n}
    known |= {"policy": case.policy, "seed": seed}
    records = [{**known, **record} for record in done.group_records()] if case.recorded else []
    return ({**row, "setting": case.setting, "value": case.value} if case.setting else row), list(records)


def sweep(out: Path, chosen: Iterable[SweptCase], groups: int, seeds: int, processes: int = 1) -> Path:
    """Simulate the ``chosen`` cases and write ``out`` (.json), and beside it groups one by one (.jsonl).

    Rows of a case that sets a limit have two more columns: ``setting``, its name, and its ``value``. An open loop
    offers as many requests as ``groups`` of 9 are. Simulates in ``processes`` side by side.
    """
    rows: list[Row] = []
    records: list[Row] = []
    tasks = [(case, seed, groups) for case in chosen for seed in range(seeds)]
    for row, recorded in each(simulate, tasks, "sweeping", processes):
        rows.append(row)
        records += recorded
    return write_figures(out.stem, rows, records, out.parent)


def scale(out: Path, requests: int, clusters: Sequence[int] = CLUSTERS) -> Path:
    """Simulate clusters of more and more workers, with one frontend and with several, and write the cost of a request.

    Rows: workers, collage workers, frontends, policy, load, requests, processor seconds in all and microseconds per
    request, and the request p50, p99 and extra load.
    """
    rows: list[Row] = []
    shapes = [(workers, frontends) for workers in clusters for frontends in (1, 4)]
    runs = [(*shape, policy, load) for shape in shapes for policy in ("none", "adaptive") for load in SCALED]
    for workers, frontends, policy, load in watched(runs, "scaling"):
        setup = Setup(workers - workers // 10, workers // 10, frontends=frontends)
        full = load == FULL_LOAD and frontends == 1
        groups = max(3, -(-requests // setup.n) if full else requests // 10 // setup.n)
        began = time.process_time()
        done = run(setup, policy, REGIMES[REGIME], 0, groups, load, warm_up=1)
        cpu_s = time.process_time() - began
        row = done.row({})
        rows.append(
            {
                **{"workers": workers, "redundant": setup.redundant, "frontends": frontends, "policy": policy},
                **{"load": load, "requests": groups * setup.n, "cpu_s": cpu_s},
                **{"us_per_request": 1e6 * cpu_s / (groups * setup.n)},
                **{key: row[key] for key in ("p50_s", "p99_s", "collage_load", "replica_load", "coded_share")},
            }
        )
    return write_figures(out.stem, rows, directory=out.parent)


def main(argv: Sequence[str]) -> int:
    """Simulate the cases of one kind and write their figures; 0."""
    kinds = {"usual": cases, "budgets": budget_cases, "long": long_cases}
    parser = argparse.ArgumentParser(prog="python -m bench sweep", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=(*kinds, "scale"), nargs="?", default="usual", help="(%(default)s)")
    parser.add_argument("--groups", type=int, default=1000, help="closed groups per setting and seed (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs to average (%(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/bench-sim.json"), help="the figures (%(default)s)")
    args = parser.parse_args(argv)
    if args.groups < 10 or args.seeds < 1 or args.processes < 1:
        parser.error("at least 10 groups and one seed, in one process or more")
    if args.what == "scale":
        file = scale(args.out, 1000 * args.groups)
    else:
        file = sweep(args.out, kinds[args.what](), args.groups, args.seeds, args.processes)
    print(f"figures: {file}")
    return 0
