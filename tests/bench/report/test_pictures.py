"""Pictures are drawn."""

from pathlib import Path

import numpy as np
from PIL import Image

from bench.report import pictures
from encoder.grid import Grid


def test_pictures_are_drawn(tmp_path: Path) -> None:
    grid = Grid(2, 64)
    pixels = np.zeros((64, 64, 3), np.uint8)
    predicted = ["Bag", None, "Coat", "Bag"]
    pictures.collage(tmp_path / "collage.png", pixels, grid, grid.boxes, predicted, ["Bag", "Bag", "Coat", "Coat"])
    runs = {name: np.linspace(0.1, 0.1 * i, 50) for i, name in enumerate(("none", "replicate", "collage"), start=2)}
    pictures.latencies(tmp_path / "latency.png", runs)
    for name in ("collage", "latency"):
        image = Image.open(tmp_path / f"{name}.png")
        assert min(image.size) > 400
        assert len(np.unique(np.asarray(image))) > 20
