"""How fast models run on execution providers of ONNX Runtime: ``python -m bench providers --providers CPU,OpenVINO``.

Run it by the Python of an environment whose ONNX Runtime has them, such as that of the package onnxruntime-openvino.
Workers of this process take turns, one image at a time, round after round.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collage.figures import OUT, Scalar, write_figures
from worker.model import Floats, ServedModel

ZOO = Path(__file__).parents[2] / "models" / "zoo"
MODELS = [ZOO / "imagenette-224-s-cnn.onnx", ZOO / "imagenette-224-collage-3x3.onnx"]
PACKAGES = ("onnxruntime", "onnxruntime-openvino", "onnxruntime-gpu")


async def timed(model: ServedModel, image: NDArray[np.uint8], runs: int) -> tuple[float, tuple[Floats, ...]]:
    """Median time of a run in seconds, and the outputs."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        outputs = await model.run(image)
        times.append(time.perf_counter() - started)
    return statistics.median(times), outputs


async def measure(
    path: Path, providers: Sequence[str], rounds: int, runs: int, threads: int
) -> list[dict[str, Scalar]]:
    """A row for each provider; the first one is the baseline."""
    models = [ServedModel(path, threads, provider) for provider in providers]
    size = models[0].info.size
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    for model in models:
        await model.warm_up()
    found: list[list[float]] = [[] for _ in models]
    outputs: list[tuple[Floats, ...]] = [() for _ in models]
    for _ in range(rounds):
        for number, model in enumerate(models):
            seconds, outputs[number] = await timed(model, image, runs)
            found[number].append(seconds)
    rows: list[dict[str, Scalar]] = []
    for number, model in enumerate(models):
        pairs = zip(found[number], found[0], strict=True)
        differences = (np.abs(one - other).max() for one, other in zip(outputs[number], outputs[0], strict=True))
        rows.append(
            {
                "model": path.stem,
                "provider": model.info.provider,
                "threads": threads,
                "latency_s": statistics.median(found[number]),
                "ratio": statistics.median(own / base for own, base in pairs),
                "difference": float(max(differences)),
                "package": _package(),
            }
        )
        model.close()
    return rows


def _package() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def main(argv: Sequence[str]) -> int:
    """Measure and print a line for each model and provider."""
    parser = argparse.ArgumentParser(prog="python -m bench providers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=Path, nargs="+", default=MODELS, help="ONNX files (two of models/zoo)")
    parser.add_argument(
        "--providers", default="CPU,OpenVINO", help="with commas; the first is the baseline (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of one inference (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="in which all take turns (%(default)s)")
    parser.add_argument("--runs", type=int, default=20, help="of each in a round (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the figures (%(default)s)")
    args = parser.parse_args(argv)
    rows = []
    for path in args.models:
        rows += asyncio.run(measure(path, args.providers.split(","), args.rounds, args.runs, args.threads))
    write_figures("providers", rows, directory=args.out)
    for row in rows:
        print(
            f"{row['model']} on {row['provider']}: {1000 * float(row['latency_s'] or 0):.2f} ms, "
            f"{row['ratio']:.2f} of the first one's time, outputs differ by {row['difference']:.2g}"
        )
    return 0
