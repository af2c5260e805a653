"""Simulate the policies on latencies of your own, or in one of the regimes of the benchmark.

``python -m bench replay --latencies mine.csv`` replays the latencies of your own workers, ``--events FILE`` a time of
production that a frontend recorded; ``python -m bench simulate --regime mixture`` draws those of a regime.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.measured import Figures, Run, extra_load, mean_of
from bench.offer import (
    REGIMES,
    Models,
    Regime,
    Seconds,
    TypicalModels,
    load_of,
    poisson,
    read_arrivals,
    read_latencies,
)
from bench.progress import watched
from bench.simulator.rivals import EQUAL_RESOURCES, RIVALS
from bench.simulator.simulate import Setup, Simulation
from collage.figures import OUT, write_figures
from frontend.policy.events import PRIMARY, Answered, Arrived, CodedWorkers, Decoded, Event
from frontend.policy.rules import POLICIES, Rules
from frontend.recorder import read

__all__ = ["COMPARED", "EQUAL_RESOURCES", "KNOWN", "REGIMES", "Setup", "about", "capacity", "run", "simulate", "table"]

COMPARED = ("none", EQUAL_RESOURCES, *(policy for policy in POLICIES if policy != "none"))
KNOWN = tuple(dict.fromkeys((*COMPARED, *RIVALS)))
"""Policies that can be simulated: ours, and the rivals."""
GRIDS = tuple(k * k for k in range(2, 11))
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
SHORTEST_S = 1e-4  # of half of the latencies; the policy knows none that are shorter
EXPLAINED = """\
milliseconds; ± is the 95 % confidence interval over the seeds
p50, p99, p99.9: requests, and groups of requests that are sent together
extra load: replicas and redundant inputs for each 100 requests
coded: requests that were answered from the code; unsure: without confidence"""
FEWEST = 20  # arrivals, and own answers, of a record that can be replayed


def simulate(
    setup: Setup,
    policy: str,
    regime: Regime,
    seed: int,
    groups: int,
    load: float | None = None,
    arrivals: Seconds | None = None,
    models: Models | None = None,
    **limits: float | None,
) -> Figures:
    """One row of figures; see ``run``."""
    if arrivals is not None:
        load = load_of(arrivals, capacity(setup.n, regime))
    done = run(setup, policy, regime, seed, groups, load, arrivals, models, limits=limits)
    return done.row(about("sim", setup, regime, policy, seed, load))


def run(
    setup: Setup,
    policy: str,
    regime: Regime,
    seed: int,
    groups: int,
    load: float | None = None,
    arrivals: Seconds | None = None,
    models: Models | None = None,
    warm_up: int = 20,
    limits: Mapping[str, float | None] | None = None,
) -> Run:
    """Simulate ``groups`` of ``setup.n`` under one of ``KNOWN``, whose ``limits`` are those of Rules.

    Closed groups, which come after ``warm_up`` more that do not count. Or an open loop, whose first ``warm_up`` groups
    do not count: with ``load`` in Poisson arrivals at that share of the s-cnn workers' capacity, or at given times in
    seconds. Fixed deadlines are the 95th percentile of the regime, unless given.
    """
    if rival := RIVALS.get(policy):
        setup = replace(setup, equal_resources=True, choice=rival.choice)
        limits = rival.limited(regime.sample, limits or {})
    limits = {"deadline": float(np.quantile(regime.sample, 0.95)), **(limits or {})}
    rules = Rules.named(rival.policy if rival else policy, **limits)
    simulation = Simulation(setup, rules, regime, seed, models)
    if arrivals is None and load is not None:
        arrivals = poisson(load * capacity(setup.n, regime), groups * setup.n, seed)
    return simulation.closed(groups, warm_up) if arrivals is None else simulation.open(arrivals, warm_up)


def capacity(n: int, regime: Regime) -> float:
    """Requests per second that ``n`` s-cnn workers can serve."""
    return n / float(regime.sample.mean())


def about(source: str, setup: Setup, regime: Regime, policy: str, seed: int, load: float | None) -> Figures:
    """Which run a row is of."""
    return {
        "source": source,
        "regime": regime.name,
        "offered": "closed" if load is None else "open",
        "load": load,
        "n": setup.n,
        "redundant": setup.redundant,
        "policy": policy,
        "seed": seed,
    }


def table(title: str, rows: Sequence[Figures]) -> Table:
    """Rows for a terminal of 80 columns, one policy per line: means over the seeds, with the interval of p99."""

    def seconds(value: float) -> str:
        return f"{1000 * value:.3g}" if value < 1 else f"{1000 * value:.0f}"

    def percent(value: float) -> str:
        return f"{100 * value:.1f}"

    columns: Sequence[tuple[str, str, Callable[[float], str]]] = (
        ("p50", "p50_s", seconds),
        ("p99", "p99_s", seconds),
        ("p99.9", "p999_s", seconds),
        ("group\np50", "group_p50_s", seconds),
        ("group\np99", "group_p99_s", seconds),
        ("extra\nload %", "", percent),
        ("coded\n%", "coded_share", percent),
        ("unsure\n%", "unsure_share", percent),
    )
    result = Table(title=title, caption=EXPLAINED, caption_justify="left", padding=0)
    result.add_column("policy", no_wrap=True)
    for heading, key, _ in columns:
        result.add_column(heading, justify="right")
        if key in ("p99_s", "group_p99_s"):
            result.add_column("")
    for policy in dict.fromkeys(row["policy"] for row in rows):
        mine = [{**row, "": extra_load(row)} for row in rows if row["policy"] == policy]
        cells = []
        for _, key, show in columns:
            found = mean_of(mine, key)
            cells.append(show(found[0]) if found else "-")
            if key in ("p99_s", "group_p99_s"):
                cells.append(f"±{1000 * found[1]:.0f}" if found and found[1] >= 0 else "")
        result.add_row(str(policy), *cells)
    return result


@dataclass(frozen=True)
class Production:
    """Arrivals in seconds from the first one, how long first copies took, and the cluster that served them."""

    arrivals: Seconds
    regime: Regime
    setup: Setup
    models: TypicalModels


def measured(path: Path, column: str | None, unit: str, timeout_s: float) -> Regime:
    """Latencies of a file, as draws. Says on standard error what they are. Raises OSError or ValueError.

    Failures count as requests without an answer within ``timeout_s``. ``unit`` is one of ``UNITS``.
    """
    answered, failures = read_latencies(path, column, UNITS[unit])
    half, most = (float(np.quantile(answered, share)) for share in (0.5, 0.99))
    if not SHORTEST_S <= half <= timeout_s / 2:
        others = " or ".join(f"--unit {other}" for other in UNITS if other != unit)
        raise ValueError(
            f"{path}: half of the latencies are {'above' if half > 1 else 'below'} {half:.3g} s in --unit {unit}, and "
            f"a request may take {timeout_s:.0f} s: is it {others}?"
        )
    failed = f"; {failures:,} failed, and count as unanswered after {timeout_s:.0f} s" if failures else ""
    print(
        f"{path}: {len(answered):,} latencies, half of them within {1000 * half:.3g} ms, "
        f"99 % within {1000 * most:.3g} ms{failed}",
        file=sys.stderr,
    )
    return Regime(path.name, latencies=np.concatenate((answered, np.full(failures, timeout_s))))


def recorded(path: Path) -> Production:
    """Read a file of events; raises ValueError if it is none, or has too few requests to go by.

    First copies that were cancelled, or had not answered when the record ends, took longer than was seen: each counts
    as one of those that were seen to take longer (redistribution to the right, Efron 1967).
    """
    header, batches = read(path)
    events = [event for batch in batches for event in batch]
    arrived = {event.request: event.at for event in events if isinstance(event, Arrived)}
    finished, censored = _first_copies(events, arrived)
    if len(arrived) < FEWEST or len(finished) < FEWEST:
        raise ValueError(f"{path} has {len(arrived)} arrivals and {len(finished)} own answers: {FEWEST} are needed")
    arrivals = np.sort(np.array(list(arrived.values())))
    confidences = [value for event in events if isinstance(event, Decoded) for value in event.confidences.values()]
    coded = [event for event in events if isinstance(event, CodedWorkers)]
    models = TypicalModels()
    if coded and confidences:
        sure = float(np.mean(np.array(confidences) >= coded[-1].accept))
        models = replace(models, sure=min(sure, 1 - models.empty))
    redundant = int(header["coded_workers"]) * (coded[-1].shape.inputs if coded else 1)
    setup = Setup(int(header["workers"]), redundant, code=coded[-1].shape if coded else None)
    latencies = np.array(finished + _longer(finished, censored))
    return Production(arrivals - arrivals[0], Regime(path.name, latencies=latencies), setup, models)


def _first_copies(events: list[Event], arrived: dict[int, float]) -> tuple[list[float], list[float]]:
    """Seconds that first copies took, and the least that the others took."""
    finished = {
        event.request: event.at - arrived[event.request]
        for event in events
        if isinstance(event, Answered) and event.attempt == PRIMARY and event.request in arrived
    }
    end = max((event.at for event in events), default=0.0)
    others = {event.request: event.at for event in events if isinstance(event, Answered) and event.attempt != PRIMARY}
    censored = [others.get(request, end) - at for request, at in arrived.items() if request not in finished]
    return list(finished.values()), censored


def _longer(finished: list[float], censored: list[float]) -> list[float]:
    """For each censored time one that was seen to be longer, spread evenly over these; itself if none was."""
    known = np.sort(finished)
    spread = np.random.default_rng(0).random(len(censored))
    places = np.searchsorted(known, censored, side="right")
    found = []
    for seconds, first, share in zip(censored, places, spread, strict=True):
        left = len(known) - first
        found.append(float(known[first + int(share * left)]) if left else seconds)
    return found


def replay_command(argv: Sequence[str]) -> int:
    """Simulate the policies on latencies from a file, and perhaps recorded arrivals."""
    return _command("replay", argv)


def simulate_command(argv: Sequence[str]) -> int:
    """Simulate the policies in one of the regimes."""
    return _command("simulate", argv)


def _command(command: str, argv: Sequence[str]) -> int:
    """Run ``replay`` or ``simulate``: 0 if it went well, 2 if an argument cannot be used."""
    replay = command == "replay"
    parser = argparse.ArgumentParser(prog=f"python -m bench {command}", description=(__doc__ or "").partition("\n")[0])
    if replay:
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("--latencies", type=Path, help="CSV file, one request per line")
        source.add_argument(
            "--events", type=Path, help="record of a frontend (--events-file), with its arrivals and workers"
        )
        parser.add_argument("--column", help="heading of its column of latencies (the last one)")
        parser.add_argument("--unit", choices=UNITS, default="s", help="of the file's times (%(default)s)")
        parser.add_argument("--arrivals", type=Path, help="CSV file of arrival times, rising, in the same unit")
    else:
        parser.add_argument("--regime", choices=REGIMES, default="transient", help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=9, help="s-cnn workers (%(default)s)")
    parser.add_argument("--collage-workers", type=int, default=1, help="collage workers (%(default)s)")
    parser.add_argument("--frontends", type=int, default=1, help="frontends that share them (%(default)s)")
    parser.add_argument("--load", type=float, help="offered, as a share of capacity (closed groups, one by one)")
    parser.add_argument("--groups", type=int, default=2000, help="groups of one request per worker (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs to average (%(default)s)")
    parser.add_argument(
        "--policies", default=",".join(COMPARED), help=f"of {', '.join(KNOWN)} (ours and equal-resources)"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the figures (%(default)s)")
    args = parser.parse_args(argv)
    policies = args.policies.split(",")
    arrivals = None
    try:
        if unknown := set(policies) - set(KNOWN):
            raise ValueError(f"there is no policy {min(unknown)!r}: choose from {', '.join(KNOWN)}")
        if min(args.workers, args.collage_workers, args.frontends, args.seeds) < 1 or args.groups < 21:
            raise ValueError("workers, frontends and seeds must be at least 1, groups at least 21 (20 warm up)")
        if args.load is not None and not 0 < args.load < math.inf:
            raise ValueError("the load must be above 0")
        if args.workers % args.collage_workers:
            raise ValueError("every collage worker protects as many workers: 9 + 1, 36 + 4, ...")
        if (members := args.workers // args.collage_workers) not in GRIDS:
            raise ValueError(
                f"no grid has {members} cells: take {', '.join(map(str, GRIDS))} workers for each collage worker"
            )
        setup, models = Setup(args.workers, args.collage_workers, frontends=args.frontends), None
        if replay and args.events:
            production = recorded(args.events)
            setup, regime, models = production.setup, production.regime, production.models
            arrivals = production.arrivals
            if len(arrivals) < 21 * setup.n:
                raise ValueError(f"{len(arrivals)} arrivals are too few: 20 groups of {setup.n} warm up")
        elif replay:
            regime = measured(args.latencies, args.column, args.unit, setup.timeout_s)
            if args.arrivals:
                arrivals = read_arrivals(args.arrivals, UNITS[args.unit])
        else:
            regime = REGIMES[args.regime]
        console = Console()
        runs = [(policy, seed) for policy in policies for seed in range(args.seeds)]
        rows = [
            simulate(setup, policy, regime, seed, args.groups, args.load, arrivals, models)
            for policy, seed in watched(runs, "simulating")
        ]
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    offered = "closed groups" if rows[0]["load"] is None else f"{float(rows[0]['load']):.0%} of capacity"
    title = f"{regime.name}: {setup.n} + {setup.redundant} workers, {offered}"
    console.print(table(title, rows))
    console.print(f"figures: {write_figures(command, rows, directory=args.out)}", highlight=False)
    return 0
