"""Pictures of a collage and of latency distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from encoder.grid import Grid
from encoder.image import Pixels

COLOURS = ("#8c8c8c", "#1f77b4", "#d95f02", "#1b9e77", "#7570b3")
RIGHT, WRONG, BORDER, BOX = "#4dd17a", "#ff5a5a", "#ffffff", "#d62728"


def collage(
    path: Path,
    pixels: Pixels,
    grid: Grid,
    boxes: NDArray[np.float32],
    predicted: Sequence[str | None],
    true: Sequence[str],
) -> None:
    """Draw one collage, uint8 ``[size, size, 3]``: cell borders, decoded boxes, and labels of every cell.

    ``boxes`` float32 ``[M, 4]`` are those that were decoded (left, top, right, bottom in shares of the side);
    ``predicted`` has None where a cell stayed empty.
    """
    figure = Figure(figsize=(7.5, 8), facecolor="white")
    axes = figure.add_subplot()
    axes.imshow(pixels, interpolation="nearest", extent=(0, grid.size, grid.size, 0))
    for edge in grid.edges:
        axes.axhline(edge, color=BORDER, linewidth=4)
        axes.axvline(edge, color=BORDER, linewidth=4)
    for cell, (guess, truth) in enumerate(zip(predicted, true, strict=True)):
        left, top, _, _ = grid.box(cell)
        axes.text(
            left + 0.01 * grid.size, top + 0.01 * grid.size, f"{guess or 'empty'}\ntrue: {truth}",
            color=RIGHT if guess == truth else WRONG, fontsize=24 / grid.k, va="top",
            bbox={"facecolor": "black", "alpha": 0.7, "linewidth": 0, "pad": 2},
        )  # fmt: skip
    for left, top, right, bottom in boxes * grid.size:
        box = Rectangle((left, top), right - left, bottom - top, fill=False, linestyle="--", linewidth=2, edgecolor=BOX)
        axes.add_patch(box)
    axes.set(xlim=(-0.02 * grid.size, 1.02 * grid.size), ylim=(1.02 * grid.size, -0.02 * grid.size))
    axes.set_axis_off()
    right = sum(guess == truth for guess, truth in zip(predicted, true, strict=True))
    axes.set_title(
        f"One {grid.k} x {grid.k} collage, {grid.size} px, one inference: {right} of {grid.cells} right\n"
        "cell borders white, decoded boxes dashed"
    )
    _save(figure, path)


def latencies(path: Path, runs: Mapping[str, NDArray[np.float64]]) -> None:
    """Draw the latencies (seconds) of several policies: a histogram each, and their tails over each other."""
    figure = Figure(figsize=(11, 5), facecolor="white")
    left, right = figure.subfigures(1, 2, squeeze=False)[0]
    histograms = left.subplots(len(runs), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    tails = right.subplots()
    longest = 1000 * max(float(times.max()) for times in runs.values())
    bins = np.linspace(0, longest, 60)
    for axes, colour, (policy, times) in zip(histograms, COLOURS, runs.items(), strict=False):
        milliseconds = np.sort(1000 * times)
        axes.hist(milliseconds, bins=bins, color=colour, weights=np.full(len(times), 1 / len(times)))
        p99 = float(np.percentile(milliseconds, 99))
        axes.axvline(p99, color="black", linewidth=1, linestyle=":")
        axes.set_yscale("log")
        axes.set_ylabel("share")
        axes.set_title(
            f"{policy}: mean {milliseconds.mean():.0f} ms, std {milliseconds.std():.0f}, p99 {p99:.0f}", size=10
        )
        slower = 1 - np.arange(len(milliseconds)) / len(milliseconds)
        tails.step(milliseconds, slower, where="pre", color=colour, label=policy)
    histograms[-1].set_xlabel("request latency, ms")
    tails.set(
        yscale="log", xlabel="request latency, ms", ylabel="share of requests that take longer", xlim=(0, longest)
    )
    tails.grid(alpha=0.3)
    tails.legend()
    left.subplots_adjust(hspace=0.45, left=0.14, right=0.95)
    right.subplots_adjust(left=0.15, right=0.95)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight")
