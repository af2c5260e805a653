"""``python -m bench frontier``: the tail of latency against extra load, of every policy at many budgets.

Open loops in every family of slowness, on three clusters and at three loads. Settings of rivals are chosen beforehand,
on other seeds: for each budget the one of lowest p99 among those that cost no more. A row of the table is one run. Runs
that are in the table, of this commit and long enough, are not made again, so that the same command goes on where it was
interrupted; ``--minutes`` interrupts it. Simulated rows of other commits go when all runs of the plan are there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.measured import FOR_P999, extra_load
from bench.offer import FAMILIES, REGIMES, measured_models, poisson
from bench.report.frontier import draw
from bench.report.stored import RESULTS
from bench.simulator.plans import PLANS, TRIAL_SEEDS, FrontierCase, Plan, limits
from bench.simulator.replay import capacity, run
from collage.figures import OUT, command, commit, in_words, machine, read_figures

Found = dict[str, Any]
KEYS = (
    *("source", "family", "workers", "redundant", "grid", "offered", "load", "policy", "setting", "seed"),
    *("requests", "p50_s", "p99_s", "p999_s", "group_p99_s", "extra_load", "coded_share", "accuracy"),
    *("accuracy_available", "ejections", "commit"),
)
"""Columns of a row; those up to ``seed`` say which run it is of. A group is as many requests in a row as the grid has
cells. Loads of the cluster and extra loads are shares, of the s-cnn workers' capacity and of the requests."""
WHICH = KEYS[: KEYS.index("requests")]
SAY_EVERY_S = 15.0
SAMPLE = 4000  # requests that tell how fast this machine is


def simulate(case: FrontierCase) -> Found:
    """One run: the figures of ``KEYS`` but for the commit."""
    place, regime = case.place, REGIMES[case.place.family]
    n, cells = place.cluster.workers, place.cluster.k**2
    warm_up, groups = (-(-requests // n) for requests in (case.warm_up, case.requests))
    rate = place.load * capacity(n, regime)
    arrivals = poisson(rate, (warm_up + groups) * n, case.seed, place.together)
    models = measured_models(place.cluster.k)
    chosen = limits(case.setting)
    setup = place.cluster.setup
    done = run(setup, case.policy, regime, case.seed, groups, place.load, arrivals, models, warm_up, chosen)
    row = done.row({})
    whole = len(done.latency_s) // cells * cells
    slowest = done.latency_s[:whole].reshape(-1, cells).max(axis=1)
    return {
        **which(case),
        "requests": len(done.latency_s),
        **{key: row[key] for key in ("p50_s", "p99_s")},
        "p999_s": row["p999_s"] if len(done.latency_s) >= FOR_P999 else None,
        "group_p99_s": float(np.quantile(slowest, 0.99)),
        "extra_load": extra_load(row),
        **{key: row[key] for key in ("coded_share", "accuracy", "accuracy_available")},
        "ejections": done.ejections,
    }


def which(case: FrontierCase) -> Found:
    """The columns that say which run a row is of."""
    family, cluster, load, together = case.place
    return {
        **{"source": "sim", "family": family, "workers": cluster.workers, "redundant": cluster.redundant},
        **{"grid": f"{cluster.k}x{cluster.k}", "offered": "poisson" if together == 1 else f"bursts of {together}"},
        **{"load": load, "policy": case.policy, "setting": case.setting, "seed": case.seed},
    }


def key(row: Found) -> tuple[Any, ...]:
    """What tells runs apart."""
    return tuple(row[name] for name in WHICH)


@dataclass
class Table:
    """Rows by run: those in ``file``, and those of runs beside it in ``journal``, line by line as they ended."""

    file: Path
    journal: Path
    commit: str

    def __post_init__(self) -> None:
        stored = read_figures(self.file) if self.file.exists() else []
        self.commands = list(dict.fromkeys(part for row in stored for part in str(row["command"]).split("; ")))
        self.rows = {key(row): {name: row[name] for name in (*KEYS, "machine")} for row in stored}
        if self.journal.exists():
            for line in self.journal.read_text().splitlines():
                row = json.loads(line)
                self.rows[key(row)] = row

    def has(self, case: FrontierCase) -> bool:
        """Whether a run was made by this commit, with enough requests."""
        row = self.rows.get(key(which(case)))
        return row is not None and bool(row["commit"] == self.commit and row["requests"] >= case.requests)

    def add(self, row: Found) -> None:
        """Keep the row of a run that ended."""
        row = {**row, "commit": self.commit}
        self.rows[key(row)] = row
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        with self.journal.open("a") as lines:
            lines.write(json.dumps(row) + "\n")

    def write(self, *, complete: bool) -> None:
        """Write the table, a row a line, without the runs that only chose settings.

        Rows made on another machine than this one name it.
        """
        here = in_words(machine())
        kept = [
            {name: row[name] for name in (*KEYS, *(["machine"] if row.get("machine", here) != here else []))}
            for row in self.rows.values()
            if row["seed"] not in TRIAL_SEEDS and not (complete and self._outdated(row))
        ]
        kept.sort(key=lambda row: json.dumps(key(row)))
        commands = "; ".join(dict.fromkeys((*self.commands, command())))
        head = json.dumps({"command": commands, "machine": here}, indent=1)[1:-2]
        lines = ",\n".join(f"  {json.dumps(row)}" for row in kept)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_name(self.file.name + ".partial")
        partial.write_text(f'{{{head},\n "rows": [\n{lines}\n ]}}\n')
        partial.replace(self.file)

    def _outdated(self, row: Found) -> bool:
        return bool(row["source"] == "sim" and row["commit"] != self.commit)


def taken(row: Found, k: int) -> Found:
    """A row of an experiment on real processes as one of the table; collages have ``k`` x ``k`` cells.

    None for what such rows do not tell: ejections, and groups if as many requests as workers were one group.
    """
    setting = f"{row['setting']}={row['value']:g}" if row.get("setting") else ""
    about = {key: row[key] for key in ("source", "load", "policy", "seed", "commit", "machine")}
    return {
        **dict.fromkeys(KEYS),
        **about,
        **{"family": row["regime"], "workers": row["n"], "redundant": row["redundant"], "grid": f"{k}x{k}"},
        **{"offered": "poisson" if row["offered"] == "open" else "closed", "setting": setting},
        **{"requests": row["groups"] * row["n"], "extra_load": extra_load(row)},
        **{key: row[key] for key in ("p50_s", "p99_s", "p999_s", "coded_share", "accuracy", "accuracy_available")},
        "group_p99_s": row["group_p99_s"] if row["n"] == k * k else None,
        "ejections": row.get("ejections"),
    }


def chosen(plan: Plan, table: Table) -> dict[tuple[Any, ...], str]:
    """The best setting by place, policy and budget: lowest mean p99 over the trials that cost no more than that.

    A setting may cost 5 % more than the budget says, as a run's extra load is never quite what was planned.
    """
    best: dict[tuple[Any, ...], tuple[float, str]] = {}
    trials: dict[tuple[Any, ...], list[FrontierCase]] = {}
    for case in plan.trials():
        trials.setdefault((case.place, case.policy, case.budget, case.setting), []).append(case)
    for (place, policy, budget, setting), cases in trials.items():
        rows = [table.rows[key(which(case))] for case in cases if table.has(case)]
        if not rows or np.mean([row["extra_load"] for row in rows]) > 1.05 * budget:
            continue
        p99 = float(np.mean([row["p99_s"] for row in rows]))
        best[place, policy, budget] = min(best.get((place, policy, budget), (np.inf, "")), (p99, setting))
    return {which: setting for which, (_, setting) in best.items()}


class Pace:
    """Says now and then how many runs are done and how long the others will take."""

    def __init__(self, total: int, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._say, self._clock = total, say, clock
        self._began = self._said = clock()
        self._runs = self._requests = 0

    def done(self, requests: int) -> None:
        """A run of this many requests, of ``total`` in all, ended."""
        self._runs += 1
        self._requests += requests
        now = self._clock()
        if now - self._said >= SAY_EVERY_S:
            self._said = now
            left = (now - self._began) * (self._total / self._requests - 1) / 60
            self._say(
                f"{self._runs} runs done, {self._requests / self._total:.0%} of the work, {left:.0f} minutes left"
            )


def cost(cases: Iterable[FrontierCase]) -> int:
    """Requests that runs take."""
    return sum(case.requests + case.warm_up for case in cases)


def make(cases: Sequence[FrontierCase], table: Table, processes: int, until: float, pace: Pace) -> bool:
    """Do the runs that are missing, in order, ``processes`` at a time; none is started after ``until`` (monotonic).

    True if all are there at the end.
    """
    missing = iter([case for case in cases if not table.has(case)])
    running: dict[Future[Found], FrontierCase] = {}
    with ProcessPoolExecutor(processes, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        while True:
            while len(running) < processes and time.monotonic() < until and (case := next(missing, None)):
                running[pool.submit(simulate, case)] = case
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                table.add(future.result())
                pace.done(cost([running.pop(future)]))
    return next(missing, None) is None


def seconds_each(sample: FrontierCase) -> float:
    """Processor seconds that one request takes on this machine, as things are."""
    began = time.process_time()
    simulate(sample)
    return (time.process_time() - began) / cost([sample])


def fill(table: Table, plan: Plan, processes: int, minutes: float = np.inf, say: Callable[[str], None] = print) -> bool:
    """Do the runs of a plan that a table lacks, those that choose settings first; true if all are there at the end."""
    trials = list(plan.trials())
    # Which settings are best is not known yet; the number of runs hardly depends on it.
    total = sum(cost([case]) for case in (*trials, *plan.cases(chosen(plan, table))) if not table.has(case))
    pace, until = Pace(max(total, 1), say), time.monotonic() + 60 * minutes
    return make(trials, table, processes, until, pace) and make(
        list(plan.cases(chosen(plan, table))), table, processes, until, pace
    )


def ahead(table: Table, plan: Plan, processes: int) -> str:
    """What is left to do and how long it takes, by a short run on this machine as it is."""
    trials = [case for case in plan.trials() if not table.has(case)]
    others = [case for case in plan.cases(chosen(plan, table)) if not table.has(case)]
    each = seconds_each(plan.sample(SAMPLE))
    minutes = each * (cost(trials) + cost(others)) / 60 / processes
    return (
        f"{len(trials)} runs to choose settings and about {len(others)} more, {minutes:.0f} minutes for {processes} "
        f"processes at {1 / each:,.0f} requests per second each"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench frontier", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--reduced", action="store_true", help="transient at half load in full, the rest in short")
    parser.add_argument("--families", default=",".join(FAMILIES), help="of these (%(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="runs at a time (%(default)s)")
    parser.add_argument("--minutes", type=float, default=np.inf, help="start no run after that; go on another time")
    parser.add_argument("--plan", action="store_true", help="only say which runs are left and how long they take")
    parser.add_argument("--take", type=Path, help="only take the real rows of this file in, as of an experiment")
    parser.add_argument("--grid", type=int, default=3, help="cells in a row of their collages (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "frontier.json", help="the table (%(default)s)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Simulate what is missing and write the table: 0 if it is complete, 3 if time was over, 2 for an argument."""
    parser = _parser()
    args = parser.parse_args(argv)
    families = args.families.split(",")
    try:
        if unknown := set(families) - set(FAMILIES):
            raise ValueError(f"there is no family {min(unknown)!r}: choose from {', '.join(FAMILIES)}")
        if args.processes < 1 or not args.minutes > 0:
            raise ValueError("processes must be at least 1, minutes above 0")
        table = Table(args.out, OUT / f"{args.out.stem}.jsonl", commit())
        if args.take:
            real = [taken(row, args.grid) for row in read_figures(args.take) if row["source"] == "real"]
            table.rows |= {key(row): row for row in real if row["family"] in FAMILIES}
            table.write(complete=False)
            print(f"{len(real)} rows taken: {args.out}")
            return 0
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    plan = PLANS[args.reduced].of(families)
    print(ahead(table, plan, args.processes), flush=True)
    if args.plan:
        return 0
    done = False
    try:
        done = fill(table, plan, args.processes, args.minutes, lambda text: print(text, file=sys.stderr, flush=True))
    finally:
        table.write(complete=done and set(families) == set(FAMILIES))
        draw(args.out.with_suffix(".png"), [*table.rows.values()])
    print(f"figures: {args.out}" + ("" if done else "; the same command goes on from here"))
    return 0 if done else 3
