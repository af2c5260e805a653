"""``python -m bench experiment``: policies against each other, on real processes that straggle, fail, or both.

Workers run stand-ins (``bench.cluster.standins``) that answer what the shipped models answer, so that inference costs
nothing and only the injected slowness counts. The frontend, the wire and the worker processes are the real ones. The
simulator runs the same cases, for comparison, with the overhead that a short calibration without slowness found.

Every run is kept in ``out/<target>/runs`` as soon as it ends: the same command goes on where it was interrupted, and
several commands with one target add up. Needs the cores for itself: what else runs shows in the tail.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench.runs.trial import (
    CALIBRATION_GROUPS,
    LIMITS,
    OFF,
    POLICY_NAMES,
    REGIME_NAMES,
    Case,
    Overhead,
    Trial,
    cases,
    trials,
)
from collage.figures import OUT, Scalar, commit, read_figures, write_figures

FEWEST_OPEN = 0.1  # of capacity; below that an open loop takes too long


async def compare(trial: Trial, chosen: Sequence[Case], runs: Path, console: Console) -> None:
    """Do the runs that are not in ``runs`` yet; each leaves its real and its simulated row there, and its records."""
    overhead = await calibrate(trial, runs, console)
    missing = [case for case in chosen if not (runs / f"{trial.name(case)}.json").exists()]
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("", total=sum(map(trial.seconds, missing)))
        for (equal, seed), shared in groupby(missing, lambda case: (case.equal_resources, case.seed)):
            progress.update(bar, description=f"{trial.regime.name}: preparing seed {seed}")
            prepared = await asyncio.to_thread(trial.prepare, seed)
            async with trial.cluster(seed, equal) as cluster:
                for case in shared:
                    progress.update(bar, description=f"{trial.regime.name}: {case.title}")
                    row, records = await trial.run(cluster, case, prepared)
                    twin = await asyncio.to_thread(trial.simulate, case, prepared, overhead)
                    about: dict[str, Scalar] = {"regime": trial.regime.name, "n": trial.members, "load": case.load}
                    about |= {"policy": case.policy, "seed": seed, **case.varied}
                    write_figures(
                        trial.name(case), [row, twin], ({**about, **asdict(record)} for record in records), runs
                    )
                    progress.advance(bar, trial.seconds(case))


async def calibrate(trial: Trial, runs: Path, console: Console) -> Overhead:
    """The parts of a request's latency without injected slowness, measured once per target and cluster.

    That cluster has one collage worker, and as many s-cnn workers as a collage has cells. The real row (regime ``off``,
    policy none) is kept with the others.
    """
    still = Trial(OFF, trial.answers, CALIBRATION_GROUPS, 1.0, (), runs.parent)
    name, file = still.name(Case("none", 0)), runs.parent / f"overhead-{still.members}.json"
    if not (file.exists() and (runs / f"{name}.json").exists()):
        prepared = await asyncio.to_thread(still.prepare, 0)
        async with still.cluster(0, equal_resources=False) as cluster:
            row, records = await still.run(cluster, Case("none", 0), prepared)
        about: dict[str, Scalar] = {"regime": OFF.name, "n": still.members, "load": None, "policy": "none", "seed": 0}
        write_figures(name, [row], ({**about, **asdict(record)} for record in records), runs)
        file.write_text(json.dumps(asdict(Overhead.of(records))) + "\n")
    overhead = Overhead(**json.loads(file.read_text()))
    (row,) = json.loads((runs / f"{name}.json").read_text())["rows"]
    share = row["p99_s"] / (trial.deadline * trial.scale)
    console.print(
        f"without injected slowness: p50 {1000 * row['p50_s']:.1f} ms, p99 {1000 * row['p99_s']:.1f} ms, "
        f"{share:.0%} of the deadline" + (": too much, what follows is this machine's tail" if share > 0.1 else ""),
        highlight=False,
    )
    return overhead


def collect(target: str, runs: Path) -> Path:
    """Put all runs into ``out/<target>.json`` and ``.jsonl``; each row says which command of which commit made it."""
    files = sorted(runs.glob("*.json"))
    rows = [row for file in files for row in read_figures(file)]
    if len(commits := {row["commit"] for row in rows} | {commit()}) > 1:
        print(f"these runs are of {len(commits)} commits: remove {runs} to start over", file=sys.stderr)
    lines = (line for file in files for line in file.with_suffix(".jsonl").read_text().splitlines())
    return write_figures(target, rows, map(json.loads, lines))


def parser() -> argparse.ArgumentParser:
    """The command's own flags."""
    flags = argparse.ArgumentParser(
        prog="python -m bench experiment", description=(__doc__ or "").partition("\n")[0],
        epilog="Further flags go to the frontends.",
    )  # fmt: skip
    flags.add_argument("--regimes", default="transient", help=f"of {', '.join(REGIME_NAMES)} (%(default)s)")
    flags.add_argument(
        "--policies", default="none,hedge,collage,adaptive",
        help=f"of {', '.join(POLICY_NAMES)}; one limit may be set, as in hedge:quantile=0.9 ({', '.join(LIMITS)})",
    )  # fmt: skip
    flags.add_argument("--groups", type=int, default=500, help="groups per policy and seed (%(default)s)")
    flags.add_argument("--seeds", default="0,1,2", help="which draws (%(default)s)")
    flags.add_argument("--loads", default="", help="open loop: shares of capacity, as 0.1,0.5,0.8 (closed groups)")
    flags.add_argument(
        "--arrivals", type=Path, help="open loop: CSV file of arrival times in seconds, the first 100 groups to warm up"
    )
    flags.add_argument("--drawn", type=int, metavar="N", help="N + 1 workers, answers drawn (9 + 1, shipped models)")
    flags.add_argument("--workers", type=int, help="s-cnn workers, if other than a collage has cells")
    flags.add_argument("--collage-workers", type=int, default=1, help="collage workers (%(default)s)")
    flags.add_argument("--data", type=Path, help="data set of whose test images the answers are (samples/)")
    flags.add_argument("--scale", type=float, default=0.5, help="of injected times; figures undo it (%(default)s)")
    flags.add_argument("--target", default="bench", help="name of the files in out/ (%(default)s)")
    flags.add_argument("--collect", action="store_true", help="only put existing runs together")
    flags.add_argument("--plan", action="store_true", help="only say which runs are left and how long they take")
    return flags


def main(argv: Sequence[str]) -> int:
    """Run the comparison: 0 if it went well, 2 for an argument, 130 after Ctrl-C; ProcessError if a process failed."""
    args, flags = parser().parse_known_args(argv)
    console = Console()
    policies, regimes = args.policies.split(","), args.regimes.split(",")
    folder = OUT / args.target
    runs = folder / "runs"
    try:
        seeds = [int(seed) for seed in args.seeds.split(",")]
        loads: list[float | None] = [float(load) for load in args.loads.split(",")] if args.loads else [None]
        if (
            args.groups < 1
            or min(seeds) < 0
            or args.scale <= 0
            or any(x is not None and x < FEWEST_OPEN for x in loads)
        ):
            raise ValueError(f"groups and scale must be above 0, seeds not below, loads at least {FEWEST_OPEN}")
        if args.drawn is not None and (args.drawn < 4 or round(args.drawn**0.5) ** 2 != args.drawn):
            raise ValueError("--drawn takes a square: 4, 9, 16, 25")
        cells = args.drawn or 9
        if args.collage_workers < 1 or (args.workers is not None and (args.workers < cells or args.workers % cells)):
            raise ValueError(
                f"workers must be a multiple of {cells}, the cells of a collage; at least 1 collage worker"
            )
        if args.arrivals and (args.loads or len(regimes) > 1):
            raise ValueError("--arrivals are the load, of one regime")
        planned = trials(
            regimes, args.drawn, args.data, args.groups, args.scale, flags, folder, args.arrivals,
            args.workers, args.collage_workers,
        )  # fmt: skip
        chosen = list(cases(policies, seeds, [planned[0].load] if args.arrivals else loads))
    except (OSError, ValueError) as error:
        print(f"python -m bench experiment: {error}", file=sys.stderr)
        return 2
    if args.collect:
        print(f"figures: {collect(args.target, runs)}")
        return 0
    left = [(trial, case) for trial in planned for case in chosen if not (runs / f"{trial.name(case)}.json").exists()]
    minutes = sum(trial.seconds(case) for trial, case in left) / 60
    print(f"{len(left)} of {len(planned) * len(chosen)} runs to do, about {minutes:.0f} minutes", flush=True)
    if args.plan:
        return 0
    try:
        for trial in planned:
            asyncio.run(compare(trial, chosen, runs, console))
            _show(trial, chosen, runs, console)
    except KeyboardInterrupt:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return 130
    print(f"figures: {collect(args.target, runs)}")
    return 0


def _show(trial: Trial, chosen: Sequence[Case], runs: Path, console: Console) -> None:
    for load in dict.fromkeys(case.load for case in chosen):
        files = [runs / f"{trial.name(case)}.json" for case in chosen if case.load == load]
        rows = [row for file in files for row in json.loads(file.read_text())["rows"]]
        for table in trial.tables(rows, load):
            console.print(table)
