"""``make bench``: policies against each other, on a cluster of real processes that straggle, fail, or both.

Workers run stand-ins (``bench.proxy``) that answer what the shipped models answer, so that inference costs nothing and
only the injected slowness counts; the frontend, the wire and the worker processes are the real ones. The simulator
runs the same cases, for comparison, with the overhead that a short calibration without slowness found.

Every run is kept in ``out/<target>/runs`` as soon as it ends: the same command goes on where it was interrupted, and
several commands with one target add up. Needs the cores for itself: what else runs shows in the tail.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench.cluster.local import COLLAGE, S_CNN
from bench.cluster.processes import ProcessError, cancel_on_signals
from bench.offer.load import Sample, load_samples, slug
from bench.offer.workload import REGIMES, load_of, read_arrivals
from bench.runs.demo import SAMPLES
from bench.runs.trial import (
    CALIBRATION_GROUPS,
    LIMITS,
    OFF,
    WARM_UP_GROUPS,
    Answers,
    Case,
    Drawn,
    Overhead,
    Row,
    Shipped,
    Trial,
    png,
)
from bench.simulator.replay import COMPARED, EQUAL_RESOURCES, capacity, table
from collage.figures import OUT, commit, write_figures
from models import data

FEWEST_OPEN = 0.1  # of capacity; below that an open loop takes for ever


def cases(policies: Sequence[str], seeds: Sequence[int], loads: Sequence[float | None]) -> Iterator[Case]:
    """Every policy with every seed; those together that share a cluster: of one seed, with the same workers."""
    limited = [_limited(policy) for policy in policies]
    for equal in (False, True):
        chosen = [each for each in limited if (each[0] == EQUAL_RESOURCES) == equal]
        for seed in seeds:
            for load in loads:
                yield from (Case(policy, seed, load, setting, value) for policy, setting, value in chosen)


def _limited(text: str) -> tuple[str, str | None, float | None]:
    """``hedge`` or ``hedge:quantile=0.9``; ValueError for anything else."""
    policy, _, limit = text.partition(":")
    setting, _, value = limit.partition("=")
    if policy not in COMPARED:
        raise ValueError(f"there is no policy {policy!r}")
    if limit and setting not in LIMITS:
        raise ValueError(f"{text}: a limit is one of {', '.join(LIMITS)}")
    return (policy, setting, float(value)) if limit else (policy, None, None)


async def compare(trial: Trial, chosen: Sequence[Case], runs: Path, console: Console) -> None:
    """Do the runs that are not in ``runs`` yet; each leaves its real and its simulated row there, and its records."""
    cancel_on_signals()
    overhead = await calibrate(trial, runs, console)
    missing = [case for case in chosen if not (runs / f"{trial.name(case)}.json").exists()]
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("", total=sum(map(trial.seconds, missing)))
        for (equal, seed), shared in groupby(missing, lambda case: (case.policy == EQUAL_RESOURCES, case.seed)):
            progress.update(bar, description=f"{trial.regime.name}: preparing seed {seed}")
            prepared = await asyncio.to_thread(trial.answers.prepare, WARM_UP_GROUPS + trial.groups, seed)
            async with trial.cluster(seed, equal) as cluster:
                for case in shared:
                    progress.update(bar, description=f"{trial.regime.name}: {case.title}")
                    row, records = await trial.run(cluster, case, prepared)
                    twin = await asyncio.to_thread(trial.simulate, case, prepared, overhead)
                    about: Row = {"regime": trial.regime.name, "n": trial.members, "load": case.load}
                    about |= {"policy": case.policy, "seed": seed, **case.varied}
                    write_figures(
                        trial.name(case), [row, twin], ({**about, **asdict(record)} for record in records), runs
                    )
                    progress.advance(bar, trial.seconds(case))


async def calibrate(trial: Trial, runs: Path, console: Console) -> Overhead:
    """What a request takes where no slowness is injected, measured once per target and cluster.

    The real row (regime ``off``, policy none) is kept with the others.
    """
    still = Trial(OFF, trial.answers, CALIBRATION_GROUPS, 1.0, (), runs.parent)
    name, file = still.name(Case("none", 0)), runs.parent / f"overhead-{trial.members}.json"
    if not (file.exists() and (runs / f"{name}.json").exists()):
        prepared = await asyncio.to_thread(still.answers.prepare, WARM_UP_GROUPS + CALIBRATION_GROUPS, 0)
        async with still.cluster(0, equal_resources=False) as cluster:
            row, records = await still.run(cluster, Case("none", 0), prepared)
        about: Row = {"regime": OFF.name, "n": trial.members, "load": None, "policy": "none", "seed": 0}
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
    contents = [json.loads(file.read_text()) for file in files]
    rows = [
        {**row, "command": content["command"], "commit": content["commit"]}
        for content in contents for row in content["rows"]
    ]  # fmt: skip
    if len(commits := {content["commit"] for content in contents} | {commit()}) > 1:
        print(f"these runs are of {len(commits)} commits: remove {runs} to begin anew", file=sys.stderr)
    lines = (line for file in files for line in file.with_suffix(".jsonl").read_text().splitlines())
    return write_figures(target, rows, map(json.loads, lines))


def _samples(folder: Path | None, size: int) -> list[Sample]:
    """The images that ship, or the test images of a data set."""
    if folder is None:
        return load_samples(SAMPLES)
    found = data.load(folder, size)
    images = zip(found.test.ids, found.test.labels.tolist(), found.test.images, strict=True)
    return [Sample(name, slug(found.labels[label]), png(image)) for name, label, image in images]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.experiment", description=(__doc__ or "").partition("\n")[0],
        epilog="Further flags go to the frontends.",
    )  # fmt: skip
    parser.add_argument("--regimes", default="transient", help=f"of {', '.join(REGIMES)} (%(default)s)")
    parser.add_argument(
        "--policies", default="none,hedge,collage,adaptive",
        help=f"of {', '.join(COMPARED)}; one limit may be set, as in hedge:quantile=0.9 ({', '.join(LIMITS)})",
    )  # fmt: skip
    parser.add_argument("--groups", type=int, default=500, help="groups per policy and seed (%(default)s)")
    parser.add_argument("--seeds", default="0,1,2", help="which draws (%(default)s)")
    parser.add_argument("--loads", default="", help="open loop: shares of capacity, as 0.1,0.5,0.8 (closed groups)")
    parser.add_argument(
        "--arrivals", type=Path, help="open loop: CSV file of arrival times in seconds, the first 100 groups to warm up"
    )
    parser.add_argument("--drawn", type=int, metavar="N", help="N + 1 workers, answers drawn (9 + 1, shipped models)")
    parser.add_argument("--data", type=Path, help="data set of whose test images the answers are (samples/)")
    parser.add_argument("--scale", type=float, default=0.5, help="of injected times; figures undo it (%(default)s)")
    parser.add_argument("--target", default="bench", help="name of the files in out/ (%(default)s)")
    parser.add_argument("--collect", action="store_true", help="only put together what is there")
    parser.add_argument("--plan", action="store_true", help="only say what is left to do and how long it takes")
    return parser


def main() -> int:
    """Run the comparison: 0 if it went well, 1 if a process failed, 2 for an argument, 130 after Ctrl-C."""
    args, flags = _parser().parse_known_args()
    console = Console()
    policies, regimes = args.policies.split(","), args.regimes.split(",")
    folder = OUT / args.target
    runs = folder / "runs"
    try:
        seeds = [int(seed) for seed in args.seeds.split(",")]
        loads = [float(load) for load in args.loads.split(",")] if args.loads else [None]
        if unknown := set(regimes) - set(REGIMES):
            raise ValueError(f"there is no regime {min(unknown)!r}")
        if (
            args.groups < 1
            or min(seeds) < 0
            or args.scale <= 0
            or any(x is not None and x < FEWEST_OPEN for x in loads)
        ):
            raise ValueError(f"groups and scale must be above 0, seeds not below, loads at least {FEWEST_OPEN}")
        if args.drawn is not None and (args.drawn < 4 or round(args.drawn**0.5) ** 2 != args.drawn):
            raise ValueError("--drawn takes a square: 4, 9, 16, 25")
        answers: Answers = Drawn(args.drawn) if args.drawn else Shipped(S_CNN, COLLAGE, _samples(args.data, 32))
        arrivals, members = None, answers.collage.k**2
        if args.arrivals:
            if args.loads or len(regimes) > 1:
                raise ValueError("--arrivals are the load, of one regime")
            arrivals = read_arrivals(args.arrivals)
            args.groups = min(args.groups, len(arrivals) // members - WARM_UP_GROUPS)
            if args.groups < 1:
                raise ValueError(f"{args.arrivals} is too short: {WARM_UP_GROUPS} groups of {members} are to warm up")
            arrivals = arrivals[: (WARM_UP_GROUPS + args.groups) * members]  # those that are sent
            loads = [load_of(arrivals, capacity(members, REGIMES[regimes[0]]))]
        chosen = list(cases(policies, seeds, loads))
    except (OSError, ValueError) as error:
        print(f"python -m bench.experiment: {error}", file=sys.stderr)
        return 2
    if args.collect:
        print(f"figures: {collect(args.target, runs)}")
        return 0
    trials = [Trial(REGIMES[name], answers, args.groups, args.scale, flags, folder, arrivals) for name in regimes]
    left = [(trial, case) for trial in trials for case in chosen if not (runs / f"{trial.name(case)}.json").exists()]
    minutes = sum(trial.seconds(case) for trial, case in left) / 60
    print(f"{len(left)} of {len(trials) * len(chosen)} runs to do, about {minutes:.0f} minutes", flush=True)
    if args.plan:
        return 0
    try:
        for trial in trials:
            asyncio.run(compare(trial, chosen, runs, console))
            _show(trial, chosen, runs, console)
    except ProcessError as error:
        print(error, file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("stopped: the same command goes on from here", file=sys.stderr)
        return 130
    print(f"figures: {collect(args.target, runs)}")
    return 0


def _show(trial: Trial, chosen: Sequence[Case], runs: Path, console: Console) -> None:
    for load in dict.fromkeys(case.load for case in chosen):
        files = [runs / f"{trial.name(case)}.json" for case in chosen if case.load == load]
        rows = [row for file in files for row in json.loads(file.read_text())["rows"]]
        for row in rows:
            row["policy"] += f"\n{row['setting']} {row['value']:g}" if "setting" in row else ""
        real, simulated = ([row for row in rows if row["source"] == source] for source in ("real", "sim"))
        offered = "closed groups" if load is None else f"open loop at {load:.0%}"
        title = f"{trial.regime.name}, {trial.members} + 1: {trial.groups} groups per policy and seed, {offered}"
        console.print(table(f"{title}, real processes", real))
        console.print(table(f"{title}, simulated", simulated))


if __name__ == "__main__":
    sys.exit(main())
