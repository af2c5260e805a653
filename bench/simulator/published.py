"""``python -m bench published``: the published closed groups, simulated again by the code as it is.

Every stored row of simulated closed groups with default settings is made again: the same regime, cluster, policy, seed
and number of groups. A figure is worse if it is higher by more than the interval of the ratio and 1 %. Rows that were
stored before the models of each grid were measured need ``--typical-models``.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.measured import extra_load
from bench.offer import TypicalModels, measured_models
from bench.progress import watched
from bench.report.findings import CASE, FoundRow, grouped, markdown, ratio, read, select, show, show_case
from bench.report.stored import RESULTS
from bench.simulator.replay import REGIMES, Setup, about, run
from collage.figures import OUT, write_figures

COMPARED = {"p50_s": "request p50", "p99_s": "request p99", "group_p99_s": "group p99", "sent": "extra load"}
ENOUGH = 1.01
"""A mean that is higher by less is none the worse."""


def published(file: Path, sizes: Sequence[int], policies: Sequence[str]) -> list[FoundRow]:
    """Stored rows that are made again; OSError or ValueError for a file that has none.

    Those of as many groups as real runs are left out: they were simulated with these runs' overhead and images.
    """
    rows, _ = read([file], [])
    twins = {row["groups"] for row in rows if row["source"] == "real"}
    rows = select(rows, source="sim", offered="closed", setting=None, redundant=1)
    found = [row for row in rows if row["n"] in sizes and row["policy"] in policies and row["groups"] <= 16_000]
    found = [row for row in found if row["groups"] not in twins]
    if not found:
        raise ValueError(f"{file} has no simulated closed groups of {' or '.join(policies)}")
    return found


def again(stored: FoundRow, *, typical: bool = False, budget: float | None = None) -> FoundRow:
    """The run of a stored row, made by today's code, with the measured models of its grid or with ``TypicalModels``.

    ``budget`` is the extra load that it may cost, if that is not the default.
    """
    setup, regime = Setup(stored["n"], stored["redundant"]), REGIMES[stored["regime"]]
    models = TypicalModels() if typical else measured_models(math.isqrt(setup.shape.members))
    limits = {} if budget is None else {"extra_load": budget}
    done = run(setup, stored["policy"], regime, stored["seed"], stored["groups"], models=models, limits=limits)
    row: FoundRow = {**done.row(about("sim", setup, regime, stored["policy"], stored["seed"], None))}
    return {**row, "sent": extra_load(row)}


def changes(stored: Sequence[FoundRow], new: Sequence[FoundRow]) -> list[list[str]]:
    """A line for each case, policy and figure: before, now, their ratio seed by seed, and whether that is worse."""
    lines = []
    for case, before in grouped(stored, (*CASE, "policy")).items():
        now = select(new, **dict(zip((*CASE, "policy"), case, strict=True)))
        for key, name in COMPARED.items():
            value, spread = ratio(now, before, key) or (1.0, 0.0)
            worse = value - np.nan_to_num(spread) > 1 and value > ENOUGH
            mean = [f"{np.mean([row[key] for row in rows]):.4g}" for rows in (before, now)]
            lines.append(
                [show_case(case), case[-1], name, *mean, show((value, spread), digits=3), "worse" if worse else ""]
            )
    return lines


def main(argv: Sequence[str]) -> int:
    """Compare: 0 if nothing is worse, 1 if something is, 2 for an argument or a file that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m bench published", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--file", type=Path, default=RESULTS / "bench-full.json", help="stored rows (%(default)s)")
    parser.add_argument("--sizes", default="9,16,25", help="workers of the base model (%(default)s)")
    parser.add_argument("--policies", default="collage,adaptive", help="(%(default)s)")
    parser.add_argument("--typical-models", action="store_true", help="one synthetic model for every grid")
    parser.add_argument("--extra-load", type=float, help="budget, for a comparison at equal cost (the default one)")
    parser.add_argument("--out", type=Path, default=OUT / "published.json", help="the new rows (%(default)s)")
    args = parser.parse_args(argv)
    try:
        stored = published(args.file, [int(size) for size in args.sizes.split(",")], args.policies.split(","))
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    new = [
        again(row, typical=args.typical_models, budget=args.extra_load) for row in watched(stored, "simulating again")
    ]
    write_figures(args.out.stem, new, directory=args.out.parent)
    lines = changes(stored, new)
    print(markdown(["case", "policy", "figure", "before", "now", "now / before", ""], lines))
    worse = [line for line in lines if line[-1]]
    print(f"\n{len(worse)} of {len(lines)} figures are worse by more than their interval and 1 %")
    return int(bool(worse))
