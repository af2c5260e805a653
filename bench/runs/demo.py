"""``make demo``: the same stragglers under three policies, on a cluster of real processes, in one table.

Workers straggle as in figure 2 of Collage inference, redrawn for every request (the transient regime).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import grpc
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.cluster.local import ROOT, Cluster
from bench.cluster.processes import Child, Metrics, ProcessError, cancel_on_signals
from bench.offer import latency
from bench.offer.load import Sample, closed_groups, load_samples, random_groups, slug
from bench.report import pictures, summary
from collage.channels import channel_options
from collage.client import Client
from collage.figures import OUT, write_figures
from collage.model_info import ModelInfo
from collage.tensors import array_from_tensor, to_tensor
from collage.v1 import model_pb2, model_pb2_grpc
from encoder.collage import CollageCode
from encoder.grid import Grid
from encoder.image import decode

SAMPLES = ROOT / "samples" / "fashion-mnist"
POLICIES = ("none", "replicate", "collage")
WARM_UP_GROUPS = 5
DEADLINE = 0.95  # the quantile of an s-cnn's latency at which a request is a straggler


async def run(
    cluster: Cluster, samples: Sequence[Sample], deadline_s: float, groups: int, seed: int, out: Path, console: Console
) -> list[summary.Row]:
    """Start the cluster, send it the same groups under every policy, write figures and pictures to ``out``.

    A group has as many members as the cluster has s-cnn workers. Returns one row per policy; see ``summary.summarise``.
    """
    cancel_on_signals()
    members = len(cluster.s_cnn)
    warm_up = random_groups(samples, members, WARM_UP_GROUPS, seed + 1)
    measured = random_groups(samples, members, groups, seed)
    rows, runs = [], {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(f"starting {len(cluster.children)} processes", total=len(POLICIES) * groups)
        async with cluster:
            for policy in POLICIES:
                progress.update(bar, description=f"policy {policy}")
                await cluster.restart_frontend(("--policy", policy, "--deadline-s", f"{deadline_s:.4f}"))
                async with Client(cluster.frontend.address) as client:
                    await closed_groups(client, warm_up, prefix="w")
                    before = await cluster.frontend.metrics()
                    runs[policy] = await closed_groups(client, measured, done=lambda: progress.advance(bar))
                after = await cluster.frontend.metrics()
                rows.append(summary.summarise(policy, runs[policy], *sent_between(before, after)))
            progress.update(bar, description="drawing")
            await draw_collage(out / "demo-collage.png", cluster.s_cnn[0], cluster.collage[0], measured[0])
        latencies = {policy: np.array([record.latency_s for record in records]) for policy, records in runs.items()}
        pictures.latencies(out / "demo-latency.png", latencies)
        progress.update(bar, description="done")
    records = ({"policy": policy, **asdict(record)} for policy, records in runs.items() for record in records)
    write_figures("demo", rows, records, out)
    return rows


def sent_between(before: Metrics, after: Metrics) -> tuple[float, float]:
    """Collages and replicas that the frontend sent between two scrapes."""

    def difference(attempt: str) -> float:
        name = "collage_sent_total"
        return after.value(name, attempt=attempt) - before.value(name, attempt=attempt)

    return difference("coded"), difference("replica")


async def draw_collage(path: Path, s_cnn: Child, collage: Child, group: Sequence[Sample]) -> None:
    """Send one group's collage to a collage worker, as the frontend does, and draw what comes back."""
    size, model = (await _model(s_cnn)).size, await _model(collage)
    grid = Grid(model.k, model.size)
    code = CollageCode(grid, model.detection_threshold)
    (pixels,) = code.encode([decode(sample.data, size) for sample in group])
    async with grpc.aio.insecure_channel(collage.address, options=channel_options()) as channel:
        stub = model_pb2_grpc.ModelServiceStub(channel)
        answer = await stub.Run(model_pb2.RunRequest(input=to_tensor(pixels)), timeout=10)
    boxes, confidences, classes = (array_from_tensor(output) for output in answer.outputs)
    found = code.decode({}, {0: (boxes, confidences, classes)}, range(grid.cells))
    names = {slug(label): label for label in model.labels}
    pictures.collage(
        path,
        pixels,
        grid,
        boxes[confidences >= model.detection_threshold],
        [model.labels[int(found[cell].output.argmax())] if cell in found else None for cell in range(grid.cells)],
        [names.get(sample.label, sample.label) for sample in group],
    )


async def _model(worker: Child) -> ModelInfo:
    async with Client(worker.address) as client:
        model = await client.model()
    if model is None:
        raise ProcessError(f"{worker.name} serves no model")
    return model


def _comparison(rows: Sequence[summary.Row]) -> str:
    """How far the last policy's tail lies below the others'."""
    *others, last = rows
    return "\n".join(
        f"{last['policy']} against {row['policy']}: request p99 {row['p99_s'] / last['p99_s']:.1f}x, "
        f"group p95 {row['group_p95_s'] / last['group_p95_s']:.1f}x, std {row['std_s'] / last['std_s']:.1f}x lower"
        for row in others
    )


def main() -> int:
    """Run the demo: 0 if it went well, 1 if a process failed, 130 after Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description="Compare policies under stragglers.")
    parser.add_argument("--groups", type=int, default=150, help="closed groups of 9 per policy (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the images' order (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for figures and pictures (%(default)s)")
    args = parser.parse_args()
    console = Console()
    try:
        cluster = Cluster(worker_flags=("--slowdown", f"quantiles:{latency.LATENCY_TABLE}"))
        deadline_s = latency.load().quantile(DEADLINE)
        samples = load_samples(SAMPLES)
        rows = asyncio.run(run(cluster, samples, deadline_s, args.groups, args.seed, args.out, console))
    except ProcessError as error:
        print(error, file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        print("stopped", file=sys.stderr)
        return 130
    console.print(summary.table(f"{args.groups} groups of 9, stragglers as measured on 50 VMs", rows))
    console.print(_comparison(rows), highlight=False)
    console.print(
        f"\nfigures: {args.out}/demo.json   pictures: {args.out}/demo-collage.png, {args.out}/demo-latency.png"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
