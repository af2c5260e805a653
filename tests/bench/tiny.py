"""A small cluster of real processes with tiny models, and images for it."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from bench.cluster.local import Cluster
from bench.offer import Sample
from tests import onnx_models


def samples() -> list[Sample]:
    """One image of every colour that the tiny models know."""
    made = []
    for colour in onnx_models.COLOURS:
        file = io.BytesIO()
        Image.fromarray(onnx_models.solid(colour, 8)).save(file, "PNG")
        made.append(Sample(f"{colour}/0", colour, file.getvalue()))
    return made


def cluster(folder: Path, *frontend_flags: str, worker_flags: tuple[str, ...] = ()) -> Cluster:
    """Four s-cnn workers and one 2 x 2 collage worker."""
    return Cluster(
        onnx_models.save_s_cnn(folder / "s-cnn.onnx"),
        onnx_models.save_collage_cnn(folder / "collage.onnx"),
        s_cnn_workers=4,
        worker_flags=worker_flags,
        frontend_flags=frontend_flags,
        logs=folder / "logs",
    )
