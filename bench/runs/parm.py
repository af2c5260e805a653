"""``python -m bench parm``: ParM's experiment, simulated, or with ``--real`` on processes.

In the real runs four pairs of machines move data: ParM's code by ParM's policy and collages by ours, against equal
resources on as many machines. Workers run stand-ins, as in ``python -m bench experiment``, and the same command goes
on where it was interrupted. Needs the cores for itself.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from bench.cluster.answers import Drawn, Parities
from bench.measured import FOR_P999
from bench.offer import measured_models
from bench.runs.experiment import compare
from bench.runs.trial import WARM_UP_GROUPS, Case, Trial
from bench.simulator.parm import BASE, USUAL_PAIRS, ParmCase, cases, parm
from collage.figures import MADE, OUT, Row, read_figures, write_figures

QUERIES, REAL_QUERIES = 100_000, 10_200
CHOSEN = (("equal-resources", None), ("first-come", "linear"), ("adaptive", "collage"))
"""Policies and codes of the real runs."""


def real_cases(seeds: int) -> Iterator[ParmCase]:
    """Those of the simulated cases that real processes repeat."""
    return (case for case in cases(seeds) if case.pairs == USUAL_PAIRS and (case.policy, case.code) in CHOSEN)


def trial(case: ParmCase, queries: int, folder: Path) -> Trial:
    """The real cluster of a case; that of equal resources runs the stand-ins of the parity models' base."""
    groups = -(-queries // BASE)
    collages = case.code == "collage"
    answers = Drawn(case.shape.members, measured_models(2)) if collages else Parities(case.k)
    arrivals = case.arrivals((WARM_UP_GROUPS + groups) * BASE)
    name = f"{'collage' if collages else 'linear'}-{answers.shape.members}"
    return Trial(case.regime, answers, groups, 1.0, (), folder / name, arrivals, BASE, BASE // case.k)


async def run_real(case: ParmCase, queries: int, folder: Path, console: Console) -> Row:
    """The row of a case on real processes, made unless it is in ``folder``."""
    chosen = trial(case, queries, folder)
    budget = ("extra_load", case.extra_load) if case.code else (None, None)
    one = Case(case.policy, case.seed, chosen.load, *budget)
    runs = folder / "runs"
    await compare(chosen, [one], runs, console)
    (found,) = (row for row in read_figures(runs / f"{chosen.name(one)}.json") if row["source"] == "real")
    return {**case.row("real", chosen.groups * BASE, found), **{key: found[key] for key in MADE}}


def main(argv: Sequence[str]) -> int:
    """Run the experiment and write its figures: 0 if it went well, 130 after Ctrl-C; ProcessError if one failed."""
    parser = argparse.ArgumentParser(prog="python -m bench parm", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--real", action="store_true", help="on real processes, 3 minutes a run, in place of simulated")
    parser.add_argument("--queries", type=int, help=f"for each run ({QUERIES:,}; of real processes {REAL_QUERIES:,})")
    parser.add_argument("--seeds", type=int, default=3, help="runs to average (%(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="simulated runs at a time (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT / "parm.json", help="the figures (%(default)s)")
    args = parser.parse_args(argv)
    queries = args.queries or (REAL_QUERIES if args.real else QUERIES)
    if queries < FOR_P999 or args.seeds < 1 or args.processes < 1:
        parser.error(f"at least {FOR_P999:,} queries, for a 99.9th percentile, one seed, and one process")
    if args.real:
        console, folder = Console(), OUT / "parm"
        rows = [asyncio.run(run_real(case, queries, folder, console)) for case in real_cases(args.seeds)]
    else:
        rows = parm(cases(args.seeds), queries, args.processes)
    print(f"figures: {write_figures(args.out.stem, rows, directory=args.out.parent)}")
    return 0
