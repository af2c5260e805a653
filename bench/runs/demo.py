"""``python -m bench demo``: the same stragglers under several policies, on a cluster of real processes, in one table.

Workers straggle as in figure 2 of Collage inference, redrawn for every request (the transient regime). With ``--code``
parity models take the collage-cnn's place, one worker of them for k s-cnn workers, and ParM's policy is there as well.
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
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bench.cluster.local import COLLAGE, S_CNN, Cluster, ProcessError, parity_models
from bench.offer import DEADLINE, LATENCY_TABLE, Sample, closed_groups, load_samples, load_table, random_groups, slug
from bench.report import pictures
from collage.channels import channel_options
from collage.client import Client
from collage.figures import OUT, write_figures
from collage.model_info import ModelInfo, ModelKind
from collage.tensors import array_from_tensor, to_tensor
from collage.v1 import model_pb2, model_pb2_grpc
from encoder.collage import CollageCode
from encoder.grid import Grid
from encoder.image import decode
from frontend.fitting import CodingSettings, code_of

POLICIES = ("none", "replicate", "collage")
CODE_POLICIES = ("none", "replicate", "first-come", "collage")
WORKERS = 9
WARM_UP_GROUPS = 5


async def run(
    cluster: Cluster,
    samples: Sequence[Sample],
    deadline_s: float,
    groups: int,
    seed: int,
    out: Path,
    console: Console,
    *,
    name: str = "demo",
    policies: Sequence[str] = POLICIES,
    extra_load: float = 0.25,
) -> list[dict[str, Any]]:
    """Start the cluster, send it the same groups under every policy, write figures and pictures to ``out``.

    A group has as many members as the cluster has s-cnn workers. Files begin with ``name``. Returns one row per policy;
    see ``Run.brief``.
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
        bar = progress.add_task(f"starting {len(cluster.children)} processes", total=len(policies) * groups)
        async with cluster:
            for policy in policies:
                progress.update(bar, description=f"policy {policy}")
                limits = ("--deadline-s", f"{deadline_s:.4f}", "--extra-load", f"{extra_load:.4f}")
                await cluster.restart_frontend(("--policy", policy, *limits))
                async with Client(cluster.frontend.address) as client:
                    await closed_groups(client, warm_up, prefix="w")
                    before = await cluster.sent()
                    runs[policy] = await closed_groups(client, measured, done=lambda: progress.advance(bar))
                rows.append(runs[policy].run(await cluster.sent() - before).brief(policy))
            progress.update(bar, description="drawing")
            s_cnn, rows_of = cluster.s_cnn[0].address, [workers[0].address for workers in cluster.rows]
            if (await _model(rows_of[0])).kind is ModelKind.COLLAGE_CNN:
                await draw_collage(out / f"{name}-collage.png", s_cnn, rows_of[0], measured[0])
            else:
                await draw_decoding(out / f"{name}-decoding.png", s_cnn, rows_of, measured[0])
        latencies = {policy: np.array([record.latency_s for record in records]) for policy, records in runs.items()}
        pictures.latencies(out / f"{name}-latency.png", latencies)
        progress.update(bar, description="done")
    records = ({"policy": policy, **asdict(record)} for policy, records in runs.items() for record in records)
    write_figures(name, rows, records, out)
    return rows


async def draw_collage(path: Path, s_cnn: str, collage: str, group: Sequence[Sample]) -> None:
    """Send one group's collage to the worker at ``collage``, as the frontend does, and draw what comes back."""
    size, model = (await _model(s_cnn)).size, await _model(collage)
    grid = Grid(model.k, model.size)
    code = CollageCode(grid, model.detection_threshold)
    (pixels,) = code.encode([decode(sample.data, size) for sample in group])
    boxes, confidences, classes = await _outputs(collage, pixels)
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


async def draw_decoding(path: Path, s_cnn: str, rows: Sequence[str], group: Sequence[Sample]) -> None:
    """Lose the answer of a group's first member, decode it as the frontend does, and draw what led there."""
    base, code = await _model(s_cnn), code_of([await _model(address) for address in rows], CodingSettings())
    members = group[: code.shape.members]
    inputs = [decode(sample.data, base.size) for sample in members]
    own = {place: (await _outputs(s_cnn, pixels))[0] for place, pixels in enumerate(inputs)}
    encoded = code.encode(inputs)
    coded = {row: await _outputs(address, encoded[row]) for row, address in enumerate(rows)}
    said = [base.labels[int(output.argmax())] for output in own.values()]
    del own[0]
    found = code.decode(own, coded, range(len(inputs)))
    names = {slug(label): label for label in base.labels}
    pictures.decoding(
        path,
        inputs,
        [each if each.ndim == 3 else np.hstack([*each]) for each in encoded],
        said,
        base.labels[int(found[0].output.argmax())] if 0 in found else "nothing",
        [names.get(sample.label, sample.label) for sample in members],
    )


async def _outputs(address: str, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """What the worker at an address says of one input."""
    async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
        stub = model_pb2_grpc.ModelServiceStub(channel)
        answer = await stub.Run(model_pb2.RunRequest(input=to_tensor(pixels)), timeout=10)
    return [array_from_tensor(output) for output in answer.outputs]


async def _model(address: str) -> ModelInfo:
    async with Client(address) as client:
        model = await client.model()
    if model is None:
        raise ProcessError(f"the worker at {address} serves no model")
    return model


def table(title: str, rows: Sequence[dict[str, Any]], code: str = "collage") -> Table:
    """Rows of ``Run.brief`` for a terminal of 80 columns: one policy per column."""
    runs = "collages" if code == "collage" else "code"
    sections = (
        (_milliseconds, {f"request {name}": f"{name}_s" for name in ("p50", "p95", "p99", "mean", "std")}),
        (_milliseconds, {"group p95": "group_p95_s"}),
        (_percent, {"answered by s-cnn": "s_cnn_share", "by replica": "replica_share", f"by {code}": "coded_share"}),
        (_percent, {"accuracy": "accuracy", "of coded answers": "coded_accuracy"}),
        (_percent, {f"extra load: {runs}": "collage_load", "replicas": "replica_load"}),
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
    parser.add_argument("--groups", type=int, default=150, help="closed groups per policy (%(default)s)")
    parser.add_argument("--code", help="another code, with its parity models of the zoo: addition, stacked ...")
    parser.add_argument("--k", type=int, default=2, help="requests that this code protects together (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the images' order (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for figures and pictures (%(default)s)")
    args = parser.parse_args(argv)
    console = Console()
    name, code, drawn, members, each, budget = "demo", "collage", "collage", WORKERS, 1, 0.25
    policies: Sequence[str] = POLICIES
    models: Path | list[Path] = COLLAGE
    if args.code:
        code, drawn, policies = args.code, "decoding", CODE_POLICIES
        name, models, budget = f"demo-{code}-{args.k}", parity_models(S_CNN, code, args.k, 1), 1 / args.k
        members = WORKERS // args.k * args.k
        each = members // args.k
    cluster = Cluster(
        S_CNN,
        models,
        s_cnn_workers=members,
        coded_workers=each,
        worker_flags=("--slowdown", f"quantiles:{LATENCY_TABLE}"),
    )
    deadline_s = load_table().quantile(DEADLINE)
    rows = asyncio.run(
        run(
            cluster,
            load_samples(),
            deadline_s,
            args.groups,
            args.seed,
            args.out,
            console,
            name=name,
            policies=policies,
            extra_load=budget,
        )
    )
    console.print(table(f"{args.groups} groups of {members}, stragglers as measured on 50 VMs", rows, code))
    console.print(_comparison(rows), highlight=False)
    console.print(
        f"\nfigures: {args.out}/{name}.json   pictures: {args.out}/{name}-{drawn}.png, {args.out}/{name}-latency.png"
    )
    return 0
