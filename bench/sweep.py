"""What the report's curves need from the simulator: settings of each policy, larger groups, offered loads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from bench.replay import COMPARED, simulate
from bench.simulate import Setup, Simulation
from bench.workload import REGIMES
from collage.figures import Scalar, write_figures
from frontend.policy import Rules

REGIME = "transient"
SHARES = (0.8, 0.85, 0.88, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)  # of first copies that end before the deadline
BUDGETS = (0.02, 0.05, 0.08, 0.11, 0.13, 0.16, 0.2)
PATIENCE = (1.02, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 1.7, 2.0, 2.3)
LOADS = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
DENSITY = ("none", "replicate", "hedge", "collage", "adaptive")


class Case(NamedTuple):
    """One policy with one limit (of Rules) away from its default, or none; closed groups or an open loop."""

    setup: Setup
    policy: str
    setting: str | None = None
    value: float | None = None
    load: float | None = None


def cases() -> Iterator[Case]:
    """All that the report draws."""
    deadlines = [float(value) for value in np.quantile(REGIMES[REGIME].sample, SHARES)]
    for n in (9, 16, 25):
        setup = Setup(n, 1)
        yield from (Case(setup, policy) for policy in COMPARED)
        yield from (Case(setup, "hedge", "quantile", share) for share in SHARES)
        yield from (Case(setup, "replicate", "deadline", deadline) for deadline in deadlines)
    setup = Setup(9, 1)
    yield from (Case(setup, "collage", "deadline", deadline) for deadline in deadlines)
    yield from (Case(setup, "adaptive", "extra_load", budget) for budget in BUDGETS)
    yield from (Case(setup, "adaptive", "patience", patience) for patience in PATIENCE)
    for setup in (Setup(9, 1), Setup(36, 4)):
        yield from (Case(setup, policy, load=load) for policy in COMPARED for load in LOADS)


def sweep(out: Path, chosen: Iterable[Case], groups: int, seeds: int) -> Path:
    """Simulate the ``chosen`` cases and write ``out`` (.json), and beside it group latencies for densities (.jsonl).

    Rows have two more columns: ``setting``, the limit that is not at its default, and its ``value``. An open loop
    offers as many requests as ``groups`` of 9 are.
    """
    regime = REGIMES[REGIME]
    rows: list[dict[str, Scalar]] = []
    records: list[dict[str, Scalar]] = []
    console = Console(stderr=True)
    runs = [(case, seed) for case in chosen for seed in range(seeds)]
    for (setup, policy, setting, value, load), seed in track(runs, "sweeping", console=console, transient=True):
        limits: dict[str, float | None] = {setting: value} if setting else {}
        count = groups if load is None else 20 + 9 * groups // setup.n  # 20 warm up
        row = simulate(setup, policy, regime, seed, count, load, None, **limits)
        rows.append({**row, "setting": setting, "value": value})
    deadline = float(np.quantile(regime.sample, 0.95))
    for n in (9, 16, 25):
        for policy in DENSITY:
            run = Simulation(Setup(n, 1), Rules.named(policy, deadline=deadline), regime, seed=0).closed(groups)
            about: dict[str, Scalar] = {"regime": REGIME, "n": n, "policy": policy, "seed": 0}
            latencies = enumerate(run.groups_s.tolist())
            records += [{**about, "group": group, "latency_s": seconds} for group, seconds in latencies]
    return write_figures(out.stem, rows, records, out.parent)
