"""``python -m bench allreduce``: what it takes to add gradients up, by every way of ``models.distributed``.

Real processes, each in a network namespace whose link is limited (as root; else each limits itself). ``--train`` asks
another question: the accuracy after training by as many workers, which then are threads without a network. Their
arithmetic is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.cluster.network import DEVICE, Network, missing
from bench.cluster.processes import free_port
from bench.runs.allreduce_rank import GLOO, Plan
from bench.runs.simulated_workers import train
from collage.figures import OUT, Row, write_figures
from models.distributed import ADDITIONS
from models.steps import Recipe

NETWORKS: dict[str, dict[str, Any]] = {"resnet32": {}, "resnet18": {"stem": "small"}, "resnet34": {"stem": "small"}}
"""Models whose gradients are added up: .46, 11 and 21 million parameters; images have 32 pixels."""
LIMIT_S = 3600.0
"""The longest that one run of all additions may take."""


def timed(plan: Plan, nodes: int, mbit_s: float) -> Iterator[dict[str, Any]]:
    """A row for each addition, from ``nodes`` processes; raises OSError if one of them fails."""
    reason = missing()
    with nullcontext(None) if reason else Network(nodes, mbit_s) as network:
        shared = {"WORLD_SIZE": str(nodes), "OMP_NUM_THREADS": "1"}
        if network:
            shared |= {"MASTER_ADDR": network.addresses[0], "MASTER_PORT": "29500", "GLOO_SOCKET_IFNAME": DEVICE}
        else:
            shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        command = [sys.executable, "-m", "bench.runs.allreduce_rank", json.dumps(asdict(plan))]
        ranks = [
            subprocess.Popen(  # noqa: S603 - ourselves
                [*(network.inside(rank) if network else []), *command],
                env={**os.environ, **shared, "RANK": str(rank)},
                stdout=None if rank else subprocess.PIPE,
                text=True,
            )
            for rank in range(nodes)
        ]
        try:
            assert ranks[0].stdout is not None  # noqa: S101 - it is a pipe
            for line in ranks[0].stdout:
                yield {**json.loads(line), "shaped": "token bucket" if reason else "tc tbf"}
            if failed := sum(rank.wait(LIMIT_S) != 0 for rank in ranks):
                raise OSError(f"{failed} of {nodes} processes failed")
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()


def show(row: Row) -> str:
    """A row for a person."""
    ratio = float(row["bytes_plain"] or 0) / float(row["bytes"] or 1)
    times = [f"{1000 * float(row[key] or 0):8.1f}" for key in ("communication_s", "compute_s", "step_s")]
    return (
        f"{row['model']:10} {row['compressor']:12} {float(row['bytes'] or 0) / 1e3:9.0f} {ratio:6.1f}x {''.join(times)}"
    )


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m bench allreduce", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[4], help="numbers of processes (%(default)s)")
    parser.add_argument(
        "--bandwidth", type=float, nargs="+", default=[100.0], help="of each link, Mbit/s (%(default)s)"
    )
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=["resnet32"], help="(%(default)s)")
    parser.add_argument(
        "--additions", nargs="+", choices=[GLOO, *ADDITIONS], default=[GLOO, *ADDITIONS], help="ways to add up (all)"
    )
    parser.add_argument("--batch", type=int, default=128, help="images of a step, of all processes (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(%(default)s)")
    parser.add_argument("--timeout-s", type=float, default=60.0, help="how long one waits for another (%(default)s)")
    parser.add_argument("--train", type=Path, metavar="DATA", help="train on this data set instead, in one process")
    parser.add_argument("--epochs", type=float, default=15.0, help="of --train (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for allreduce.json (%(default)s)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Measure, print and write a row for each case; 1 if processes failed."""
    args = parser().parse_args(argv)
    if not args.train and missing():
        print(f"{missing()}: each process limits what it sends by itself")
    print(f"{'':23} {'kB sent':>9} {'less':>7} {'sum, ms':>8} {'compute':>7} {'step':>7}")
    rows: list[Row] = []
    try:
        for row in _cases(args):
            rows.append(row)
            print(show(row), flush=True)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        if rows:
            write_figures("allreduce", rows, directory=args.out)
    return 0


def _cases(args: argparse.Namespace) -> Iterator[Row]:
    for model in args.models:
        for nodes in args.nodes:
            for seed in args.seeds:
                about: dict[str, Any] = {"model": model, "nodes": nodes, "seed": seed, "batch": args.batch}
                if args.train:
                    for name in args.additions:
                        if name != GLOO:
                            recipe = Recipe(epochs=args.epochs, batch=args.batch, seed=seed, muon_lr=0.0, sgd_lr=0.1)
                            found = train(args.train, model, NETWORKS[model], nodes, name, recipe)
                            yield {**about, "compressor": name, **found}
                    continue
                for mbit_s in args.bandwidth:
                    shape = {**about, "mbit_s": mbit_s, "top1": None, "epochs": None}
                    bucket = mbit_s if missing() else 0.0
                    plan = Plan(model, NETWORKS[model], args.additions, args.batch, seed, bucket, args.timeout_s)
                    for row in timed(plan, nodes, mbit_s):
                        yield {**shape, **row}
