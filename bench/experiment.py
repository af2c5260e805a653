"""``make bench``: policies against each other, on a cluster of real processes that straggle, in closed groups.

Workers run stand-ins (``bench.proxy``) that answer what the shipped models answer, so that inference costs nothing and
only the injected slowness counts; the frontend, the wire and the worker processes are the real ones. The simulator
runs the same cases, for comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from bench import figures, proxy
from bench.cluster import COLLAGE, S_CNN, Cluster
from bench.demo import SAMPLES, sent_between
from bench.load import Record, Sample, closed_groups, load_samples, random_groups
from bench.processes import ProcessError, cancel_on_signals
from bench.replay import COMPARED, EQUAL_RESOURCES, table
from bench.replay import simulate as simulate_case
from bench.simulate import Setup
from bench.workload import REGIMES, Regime
from collage.client import Client
from collage.figures import OUT, Scalar, write_figures
from encoder.image import Pixels
from models.evaluate import OnnxModel

WARM_UP_GROUPS = 100  # a tracked deadline has settled by then
SOURCES = {"S_CNN": figures.S_CNN, "COLLAGE": figures.COLLAGE, "REPLICA": figures.REPLICA, None: figures.NOBODY}
Row = dict[str, Scalar]


class Prepared(NamedTuple):
    """Groups of pictures to send; whether the s-cnn is right of each, and whether its cell is unsure, bool ``[n]``."""

    groups: list[list[Sample]]
    available: NDArray[np.bool_]
    unsure: NDArray[np.bool_]


class Experiment:
    """One cluster under one regime; ``scale`` shortens all injected times, and deadlines with them."""

    def __init__(self, regime: Regime, groups: int, scale: float, folder: Path) -> None:
        self.regime, self.groups, self.scale, self.folder = regime, groups, scale, folder
        s_cnn, collage = OnnxModel(S_CNN), OnnxModel(COLLAGE)
        self.s_cnn, self.collage = s_cnn, collage
        self.models = proxy.save_models(folder / "stand-ins", s_cnn.info, collage.info)
        self.members = collage.info.k**2
        self.deadline = float(np.quantile(regime.sample, 0.95))

    def cluster(self, equal_resources: bool) -> Cluster:
        """N s-cnn workers and one collage worker, or N + 1 s-cnn workers."""
        count = self.members + 1

        def flags(index: int) -> tuple[str, ...]:
            return *self.regime.flags(index, count, 0), "--slowdown-scale", str(self.scale)

        return Cluster(
            *self.models,
            s_cnn_workers=count if equal_resources else self.members,
            collage_workers=0 if equal_resources else 1,
            worker_flags=flags,
            logs=self.folder / "logs",
        )

    def prepare(self, samples: Sequence[Sample], seed: int) -> Prepared:
        """Random groups, those for warming up included, with what the real models say of them."""
        groups = random_groups(samples, self.members, self.groups + WARM_UP_GROUPS, seed)
        said = list(proxy.answers(self.s_cnn, self.collage, groups))
        pictures, available = proxy.stand_in_groups(groups, said, self.s_cnn.info.labels)
        unsure = np.concatenate([answer.confidence for answer in said]) < self.collage.info.accept_threshold
        painted = [
            [replace(sample, data=_png(picture)) for sample, picture in zip(*pair, strict=True)]
            for pair in zip(groups, pictures, strict=True)
        ]
        return Prepared(painted, available, unsure)

    async def run(
        self, cluster: Cluster, policy: str, flags: Sequence[str], seed: int, prepared: Prepared
    ) -> tuple[Row, list[Record]]:
        """Send the groups under one policy; returns its row and the raw records."""
        groups = prepared.groups
        await cluster.restart_frontend(
            (
                *("--policy", "none" if policy == EQUAL_RESOURCES else policy),
                *("--deadline-s", f"{self.deadline * self.scale:.4f}", "--group-wait-s", f"{0.05 * self.scale:.4f}"),
                *flags,
            )
        )
        async with Client(cluster.frontend.address) as client:
            await closed_groups(client, groups[:WARM_UP_GROUPS], prefix=f"w{seed}-")
            before, busy = await cluster.frontend.metrics(), await self._busy_s(cluster)
            records = await closed_groups(client, groups[WARM_UP_GROUPS:], prefix=f"g{seed}-")
            after, busy_after = await cluster.frontend.metrics(), await self._busy_s(cluster)
        collages, replicas = sent_between(before, after)
        skip = WARM_UP_GROUPS * self.members
        measured = figures.Run(
            latency_s=np.array([record.latency_s for record in records]) / self.scale,
            source=np.array([SOURCES[record.source] for record in records], np.uint8),
            unsure=prepared.unsure[skip:],
            right=np.array([record.right for record in records]),
            available=prepared.available[skip:],
            members=self.members,
            collages=int(collages),
            replicas=int(replicas),
            busy_s=(busy_after - busy) / self.scale,
        )
        about: Row = {"source": "real", "regime": self.regime.name, "offered": "closed", "load": None}
        about |= {"n": self.members, "redundant": 1, "policy": policy, "seed": seed}
        return measured.row(about), records

    async def _busy_s(self, cluster: Cluster) -> float:
        workers = [await child.metrics() for child in (*cluster.s_cnn, *cluster.collage)]
        return sum(metrics.value("collage_worker_busy_seconds_total") for metrics in workers)


def _png(picture: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


async def compare(
    experiment: Experiment, policies: Sequence[str], seeds: Sequence[int], flags: Sequence[str], console: Console
) -> tuple[list[Row], list[Row]]:
    """All policies and seeds on real processes; returns rows and raw records."""
    cancel_on_signals()
    samples = load_samples(SAMPLES)
    rows: list[Row] = []
    records: list[Row] = []
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(seeds) * len(policies))
        for equal in (False, True):
            chosen = [policy for policy in policies if (policy == EQUAL_RESOURCES) == equal]
            if not chosen:
                continue
            async with experiment.cluster(equal) as cluster:
                for seed in seeds:
                    prepared = await asyncio.to_thread(experiment.prepare, samples, seed)
                    for policy in chosen:
                        progress.update(bar, description=f"{experiment.regime.name}: {policy}, seed {seed}")
                        row, raw = await experiment.run(cluster, policy, flags, seed, prepared)
                        rows.append(row)
                        about: Row = {"regime": experiment.regime.name, "policy": policy, "seed": seed}
                        records += [{**about, **asdict(record)} for record in raw]
                        progress.advance(bar)
    return rows, records


def main() -> int:
    """Run the comparison: 0 if it went well, 1 if a process failed, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m bench.experiment", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--regimes", default="transient", help=f"of {', '.join(REGIMES)} (%(default)s)")
    parser.add_argument("--policies", default="none,hedge,collage,adaptive", help=f"of {', '.join(COMPARED)}")
    parser.add_argument("--groups", type=int, default=500, help="closed groups per policy and seed (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--scale", type=float, default=0.5, help="of injected times; figures undo it (%(default)s)")
    parser.add_argument("--target", default="bench", help="name of the files in out/ (%(default)s)")
    args, flags = parser.parse_known_args()
    console = Console()
    policies, rows, records = args.policies.split(","), [], []
    try:
        for name in args.regimes.split(","):
            experiment = Experiment(REGIMES[name], args.groups, args.scale, OUT / args.target)
            real, raw = asyncio.run(compare(experiment, policies, range(args.seeds), flags, console))
            setup = Setup(experiment.members, 1)
            simulated = [
                simulate_case(setup, policy, experiment.regime, seed, args.groups)
                for policy in policies
                for seed in range(args.seeds)
            ]
            console.print(table(f"{name}: {args.groups} groups of 9 per policy and seed, real processes", real))
            console.print(table(f"{name}: the same, simulated", simulated))
            rows += real + simulated
            records += raw
    except ProcessError as error:
        print(error, file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("stopped", file=sys.stderr)
        return 130
    print(f"figures: {write_figures(args.target, rows, records)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
