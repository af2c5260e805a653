"""``python -m bench demo``: the same stragglers under three policies, on a cluster of real processes, in one table.

Workers straggle as in figure 2 of Collage inference, redrawn for every request (the transient regime).
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bench.cluster.local import Cluster, ProcessError
from bench.offer import LATENCY_TABLE, Sample, closed_groups, load_samples, load_table, random_groups, slug
from bench.report import pictures
from collage.channels import channel_options
from collage.client import Client
from collage.figures import OUT, write_figures
from collage.model_info import ModelInfo
from collage.tensors import array_from_tensor, to_tensor
from collage.v1 import model_pb2, model_pb2_grpc
from encoder.collage import CollageCode
from encoder.grid import Grid
from encoder.image import decode

POLICIES = ("none", "replicate", "collage")
WARM_UP_GROUPS = 5
DEADLINE = 0.95  # the quantile of an s-cnn's latency at which a request is a straggler


async def run(
    cluster: Cluster, samples: Sequence[Sample], deadline_s: float, groups: int, seed: int, out: Path, console: Console
) -> list[dict[str, Any]]:
    """Start the cluster, send it the same groups under every policy, write figures and pictures to ``out``.

    A group has as many members as the cluster has s-cnn workers. Returns one row per policy; see ``Run.brief``.
    """
    members = len(cluster.s_cnn)
    warm_up = random_groups(samples, members, WARM_UP_GROUPS, seed + 1)
    measured = random_groups(samples, members, groups, seed)
    rows: list[dict[str, Any]] = []
    runs = {}
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
                    before = await cluster.sent()
                    runs[policy] = await closed_groups(client, measured, done=lambda: progress.advance(bar))
                rows.append(runs[policy].run(await cluster.sent() - before).brief(policy))
            progress.update(bar, description="drawing")
            s_cnn, collage = cluster.s_cnn[0].address, cluster.coded[0].address
            await draw_collage(out / "demo-collage.png", s_cnn, collage, measured[0])
        latencies = {policy: np.array([record.latency_s for record in records]) for policy, records in runs.items()}
        pictures.latencies(out / "demo-latency.png", latencies)
        progress.update(bar, description="done")
    records = ({"policy": policy, **asdict(record)} for policy, records in runs.items() for record in records)
    write_figures("demo", rows, records, out)
    return rows


async def draw_collage(path: Path, s_cnn: str, collage: str, group: Sequence[Sample]) -> None:
    """Send one group's collage to the worker at ``collage``, as the frontend does, and draw what comes back."""
    size, model = (await _model(s_cnn)).size, await _model(collage)
    grid = Grid(model.k, model.size)
    code = CollageCode(grid, model.detection_threshold)
    (pixels,) = code.encode([decode(sample.data, size) for sample in group])
    async with grpc.aio.insecure_channel(collage, options=channel_options()) as channel:
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


async def _model(address: str) -> ModelInfo:
    async with Client(address) as client:
        model = await client.model()
    if model is None:
        raise ProcessError(f"the worker at {address} serves no model")
    return model


def table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Rows of ``Run.brief`` for a terminal of 80 columns: one policy per column."""
    sections = (
        (_milliseconds, {f"request {name}": f"{name}_s" for name in ("p50", "p95", "p99", "mean", "std")}),
        (_milliseconds, {"group p95": "group_p95_s"}),
        (_percent, {"answered by s-cnn": "s_cnn_share", "by replica": "replica_share", "by collage": "coded_share"}),
        (_percent, {"accuracy": "accuracy", "of coded answers": "coded_accuracy"}),
        (_percent, {"extra load: collages": "collage_load", "replicas": "replica_load"}),
        (str, {"requests": "requests", "failed": "failed"}),
    )
    result = Table(title=title, title_style="bold")
    result.add_column("policy")
    for row in rows:
        result.add_column(row["policy"], justify="right")
    for show, section in sections:
        for name, key in section.items():
            result.add_row(name.rjust(21), *(show(row[key]) for row in rows))
        result.add_section()
    return result


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _comparison(rows: Sequence[dict[str, Any]]) -> str:
    """How far the last policy's tail lies below the others'."""
    *others, last = rows
    return "\n".join(
        f"{last['policy']} against {row['policy']}: request p99 {row['p99_s'] / last['p99_s']:.1f}x, "
        f"group p95 {row['group_p95_s'] / last['group_p95_s']:.1f}x, std {row['std_s'] / last['std_s']:.1f}x lower"
        for row in others
    )


def main(argv: Sequence[str]) -> int:
    """Run the demo: 0 if it went well; ProcessError if a process failed."""
    parser = argparse.ArgumentParser(prog="python -m bench demo", description="Compare policies under stragglers.")
    parser.add_argument("--groups", type=int, default=150, help="closed groups of 9 per policy (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the images' order (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for figures and pictures (%(default)s)")
    args = parser.parse_args(argv)
    console = Console()
    cluster = Cluster(worker_flags=("--slowdown", f"quantiles:{LATENCY_TABLE}"))
    deadline_s = load_table().quantile(DEADLINE)
    rows = asyncio.run(run(cluster, load_samples(), deadline_s, args.groups, args.seed, args.out, console))
    console.print(table(f"{args.groups} groups of 9, stragglers as measured on 50 VMs", rows))
    console.print(_comparison(rows), highlight=False)
    console.print(
        f"\nfigures: {args.out}/demo.json   pictures: {args.out}/demo-collage.png, {args.out}/demo-latency.png"
    )
    return 0
