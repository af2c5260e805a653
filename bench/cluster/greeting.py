"""What ``make up`` prints once its cluster serves: how to call it, what its model knows, what its workers warn of."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cluster.processes import HOST, Child
from bench.samples import SAMPLES
from collage.cli import CLUSTER_FILE
from collage.client import DEFAULT_ADDRESS, Client, ClientError
from collage.texts import printable

SHOWN = 12
"""Classes that are listed."""


async def greeting(frontend: Child, s_cnn: Sequence[Child], coded: Sequence[Child], model: Path) -> str:
    """Lines for a person; all children run, and ``model`` is the file that the ``s_cnn`` workers serve."""
    web = f"http://{HOST}:{frontend.http_port}"
    option = "" if frontend.address == DEFAULT_ADDRESS else f" --address {frontend.address}"
    command, samples = typed("collage"), samples_of(model)
    sample = next((file for file in sorted(samples.rglob("*.*g")) if file.is_file()), Path("IMAGES/any.png"))
    sample = sample.relative_to(Path.cwd()) if sample.is_relative_to(Path.cwd()) else sample
    labels = await _labels(s_cnn[0])
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    unprotected = "" if coded else ", so late requests are replicated"
    return "\n".join((
        *(f"WARNING {printable(warning)}" for warning in _warnings([*s_cnn, *coded])),
        f"serving at {frontend.address}: {len(s_cnn)} s-cnn and {len(coded)} redundant workers{unprotected}",
        f"classes of {model.name}: {printable(', '.join(labels[:SHOWN]))}{more}",
        f"a page to try it: {web}",
        "",
        f"  {command} predict {sample}{option}",
        f"  {command} predict {sample.parent} --json{option}",
        f"  {command} health{option}",
        f"  curl -T {sample} {web}/v1/predict",
        f"  curl {frontend.metrics_address}",
        "",
        f"logs: {frontend.log.parent}/   every process: {CLUSTER_FILE}   Ctrl-C stops them all",
    ))  # fmt: skip


def samples_of(model: Path) -> Path:
    """The folder of sample images for an s-cnn; photos if it has none of its own."""
    own = SAMPLES.parent / model.name.removesuffix("-s-cnn.onnx")
    return own if own.is_dir() else SAMPLES.parent / "photos"


def typed(program: str) -> Path:
    """A program of this environment, as one types it here."""
    path = Path(sys.executable).with_name(program)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


async def _labels(worker: Child) -> Sequence[str]:
    """The classes that a worker's model knows; none if it does not say."""
    try:
        async with Client(worker.address) as client:
            info = await client.model()
    except ClientError:
        return ()
    return info.labels if info else ()


def _warnings(workers: Sequence[Child]) -> list[str]:
    """What workers have warned of in their logs, each text once."""
    lines = (line for worker in workers for line in worker.log.read_text(errors="replace").splitlines())
    return list(dict.fromkeys(line.partition(" WARNING ")[2] for line in lines if " WARNING " in line))
