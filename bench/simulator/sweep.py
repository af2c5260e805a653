"""What the report needs from the simulator: settings of each policy, larger groups, other regimes, offered loads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from bench.measured import COLLAGE, S_CNN, Run
from bench.offer.workload import REGIMES
from bench.simulator.replay import COMPARED, about, run
from bench.simulator.simulate import Setup
from collage.figures import Scalar, write_figures

REGIME = "transient"
SHARES = (0.8, 0.85, 0.88, 0.9, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)  # of first copies in time: the deadline
NEAR: Mapping[int, Sequence[float]] = {  # deadlines that cost replicas up to about what the collages of N cost
    **{4: (0.75, 0.8, 0.85, 0.9, 0.93, 0.95), 9: SHARES},
    **{16: (0.92, 0.93, 0.94, 0.95, 0.96, 0.97), 25: (0.94, 0.95, 0.96, 0.97, 0.98)},
}
OTHERS = (0.85, 0.88, 0.9, 0.93)  # in the other regimes, beside the default of 0.95
SOONER = 0.9  # a deadline quantile of the adaptive policy that costs larger groups little
BUDGETS = (0.02, 0.05, 0.08, 0.11, 0.13, 0.16, 0.2)
PATIENCE = (1.02, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 1.7, 2.0, 2.3)  # times a deadline of .215 s: .22 to .5 s
LOADS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
DENSITY = ("none", "replicate", "hedge", "collage", "adaptive")
FOR_P999 = 100  # times as many groups
CLUSTERS = (100, 1_000, 10_000)  # workers, a tenth of them collage workers
SCALED = (0.3, 0.5, 0.8, 0.9, 1.0)  # loads
FULL_LOAD = 0.5  # simulated at full length with one frontend; other loads and several frontends at a tenth of it


class Case(NamedTuple):
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
        """Whether its groups are recorded one by one, for densities and tables."""
        usual = self.regime == REGIME and self.load is None and self.setting is None and self.times < FOR_P999
        return usual and self.policy in DENSITY


def cases() -> Iterator[Case]:
    """All that the report draws, but for ``budget_cases`` and ``long_cases``."""

    def rivals(setup: Setup, shares: Iterable[float], regime: str, times: int) -> Iterator[Case]:
        for share in shares:
            deadline = float(np.quantile(REGIMES[regime].sample, share))
            yield Case(setup, "hedge", "quantile", share, regime=regime, times=times)
            yield Case(setup, "replicate", "deadline", deadline, regime=regime, times=times)

    # More cells, fewer collages: their tail takes more groups to see.
    for n, times in ((4, 3), (9, 3), (16, 8), (25, 16)):
        setup = Setup(n, 1)
        yield from (Case(setup, policy, times=times) for policy in COMPARED)
        yield from rivals(setup, NEAR[n], REGIME, times)
        if n > 9:
            yield Case(setup, "adaptive", "quantile", SOONER, times=times)
    setup = Setup(9, 1)
    usual = REGIMES[REGIME].sample
    yield from (Case(setup, "collage", "deadline", float(np.quantile(usual, share)), times=3) for share in SHARES)
    yield from (Case(setup, "adaptive", "patience", patience, times=3) for patience in PATIENCE)
    for name in (name for name in REGIMES if name != REGIME):
        yield from (Case(setup, policy, regime=name, times=3) for policy in COMPARED)
        yield from rivals(setup, OTHERS, name, 3)
    for setup in (Setup(9, 1), Setup(36, 4)):
        yield from (Case(setup, policy, load=load, times=4) for policy in COMPARED for load in LOADS)


def budget_cases() -> Iterator[Case]:
    """The adaptive policy with less to spend, and with more."""
    yield from (Case(Setup(9, 1), "adaptive", "extra_load", budget, times=3) for budget in BUDGETS)


def long_cases() -> Iterator[Case]:
    """What a 99.9th percentile of groups takes."""
    yield from (Case(Setup(9, 1), policy, times=FOR_P999) for policy in ("none", "collage-only", "adaptive"))


def sweep(out: Path, chosen: Iterable[Case], groups: int, seeds: int) -> Path:
    """Simulate the ``chosen`` cases and write ``out`` (.json), and beside it groups one by one (.jsonl).

    Rows of a case that sets a limit have two more columns: ``setting``, its name, and its ``value``. An open loop
    offers as many requests as ``groups`` of 9 are.
    """
    rows: list[dict[str, Scalar]] = []
    records: list[dict[str, Scalar]] = []
    console = Console(stderr=True)
    runs = [(case, seed) for case in chosen for seed in range(seeds)]
    for case, seed in track(runs, "sweeping", console=console, transient=True):
        setup, regime = case.setup, REGIMES[case.regime]
        limits: dict[str, float | None] = {case.setting: case.value} if case.setting else {}
        warm_up = 20
        count = case.times * groups if case.load is None else case.times * (9 * groups // setup.n) + warm_up
        done = run(setup, case.policy, regime, seed, count, case.load, limits=limits)
        row = done.row(about("sim", setup, regime, case.policy, seed, case.load))
        rows.append({**row, "setting": case.setting, "value": case.value} if case.setting else row)
        if case.recorded:
            known: dict[str, Scalar] = {"simulated": True, "regime": case.regime, "n": setup.n}
            known |= {"policy": case.policy, "seed": seed}
            records += [{**known, **record} for record in _groups(done)]
    return write_figures(out.stem, rows, records, out.parent)


def _groups(done: Run) -> Iterator[dict[str, Scalar]]:
    """One record per group: latency, whether a member was not answered by its s-cnn, and its coded answers."""
    source, right = done.source.reshape(-1, done.members), done.right.reshape(-1, done.members)
    coded = source == COLLAGE
    columns = (
        done.groups_s.tolist(),
        (source != S_CNN).any(axis=1).tolist(),
        coded.sum(axis=1).tolist(),
        (coded & right).sum(axis=1).tolist(),
    )
    for group, (latency, slow, answers, answers_right) in enumerate(zip(*columns, strict=True)):
        yield {"group": group, "latency_s": latency, "slow": slow, "coded": answers, "coded_right": answers_right}


def scale(out: Path, requests: int, clusters: Sequence[int] = CLUSTERS) -> Path:
    """Simulate clusters of ever more workers, with one frontend and with several, and write what a request costs.

    Rows: workers, collage workers, frontends, policy, load, requests, processor seconds in all and microseconds per
    request, and the request p50, p99 and extra load.
    """
    rows: list[dict[str, Scalar]] = []
    shapes = [(workers, frontends) for workers in clusters for frontends in (1, 4)]
    runs = [(*shape, policy, load) for shape in shapes for policy in ("none", "adaptive") for load in SCALED]
    for workers, frontends, policy, load in track(runs, "scaling", console=Console(stderr=True), transient=True):
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
