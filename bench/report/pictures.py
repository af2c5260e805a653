"""Pictures of a collage, of latency distributions, and of curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from encoder.grid import Grid
from encoder.image import Pixels

COLOURS = ("#8c8c8c", "#1f77b4", "#d95f02", "#1b9e77", "#7570b3")
POLICY_COLOURS = {
    **{"none": "#8c8c8c", "equal-resources": "#a6761d", "ejection": "#66a61e", "replicate": "#7570b3"},
    **{
        "hedge": "#1f77b4",
        "collage-only": "#e7298a",
        "first-come": "#08a0a0",
        "collage": "#d95f02",
        "adaptive": "#1b9e77",
    },
    **{"power-of-two": "#bcbd22", "peak-ewma": "#9edae5", "prequal": "#17becf", "single-r": "#e6ab02"},
    **{"idle-cloning": "#fb9a99", "adaptive-hedge": "#08519c", "prequal-hedge": "#cb181d", "envoy": "#525252"},
}
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


def decoding(
    path: Path,
    members: Sequence[Pixels],
    redundant: Sequence[Pixels],
    said: Sequence[str],
    decoded: str,
    true: Sequence[str],
) -> None:
    """Draw a group whose first member's answer is lost: the members, the redundant inputs, and what is decoded.

    ``said`` are the members' own answers, with that of the first; ``redundant`` are pictures ``[height, width, 3]``.
    """
    figure = Figure(figsize=(2.4 * (len(members) + len(redundant)), 3.2), facecolor="white")
    grid = figure.subplots(1, len(members) + len(redundant), squeeze=False)[0]
    for place, (axes, pixels) in enumerate(zip(grid, [*members, *redundant], strict=True)):
        axes.imshow(pixels, interpolation="nearest")
        axes.set_axis_off()
        if place >= len(members):
            axes.set_title("redundant input", size=10)
        elif place:
            axes.set_title(f"own answer:\n{said[place]}\ntrue: {true[place]}", size=10)
        else:
            colour = RIGHT if decoded == true[0] else WRONG
            box = {"facecolor": "black", "alpha": 0.7, "linewidth": 0, "pad": 2}
            axes.set_title(f"lost, decoded:\n{decoded}\ntrue: {true[0]}", size=10, color=colour, bbox=box)
    figure.suptitle("One answer is lost, and follows from all others", size=10, y=0.09)
    _save(figure, path)


def latencies(path: Path, runs: Mapping[str, NDArray[np.float64]]) -> None:
    """Draw the latencies (seconds) of several policies: a histogram each, and all tails in one diagram."""
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


class Panel(NamedTuple):
    """One diagram: a heading, the axes' labels, and lines of points: x, y, half the interval of y; float64 ``[P, 3]``.

    A line's name begins with a policy's, or whatever has a colour. After a comma, ``real`` means markers only, anything
    else a dashed line.
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, NDArray[np.float64]]
    log: bool = False


def curves(path: Path, panels: Sequence[Panel], colours: Mapping[str, str] = POLICY_COLOURS) -> None:
    """Draw the panels, two in a row."""
    figure, grid = _grid(len(panels), columns=2)
    for axes, panel in zip(grid, panels, strict=True):
        for name, points in panel.lines.items():
            x, y, spread = points.T
            whose, _, kind = name.partition(", ")
            style = {"real": "none", "": "-"}.get(kind, "--")
            axes.errorbar(
                x, y, np.nan_to_num(spread), label=name, color=colours[whose], linestyle=style,
                marker="*" if kind == "real" else ".", markersize=11 if kind == "real" else 6, capsize=2,
            )  # fmt: skip
        axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y, yscale="log" if panel.log else "linear")
        # Wide intervals may leave the diagram; a logarithmic axis could not hold those that reach 0.
        shown = np.concatenate([points[:, 1] for points in panel.lines.values()])
        axes.set_ylim(0.8 * shown.min() if panel.log else 0, 1.25 * shown.max() or 1)
        axes.grid(alpha=0.3, which="both")
    known = {name: handle for axes in grid for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    if len(known) > 1:
        figure.legend(list(known.values()), list(known), loc="outside lower center", ncols=5, fontsize=8)
    _save(figure, path)


def generator(path: Path, probabilities: NDArray[np.float64], seconds: NDArray[np.float64]) -> None:
    """Draw a quantile function (float64 ``[P]``, both rising): its density, and its distribution with p99."""
    figure, (density, distribution) = _grid(2, columns=2)
    edges = np.linspace(0, float(seconds[-1]), 160)
    shares = np.diff(np.interp(edges, seconds, probabilities, left=0.0))
    density.stairs(100 * shares, 1000 * edges, fill=True, color=POLICY_COLOURS["hedge"])
    density.set(yscale="log", xlabel="latency, ms", ylabel=f"% of draws per {1000 * edges[1]:.1f} ms")
    distribution.plot(1000 * seconds, probabilities, color=POLICY_COLOURS["hedge"])
    p99 = 1000 * float(np.interp(0.99, probabilities, seconds))
    for axes in (density, distribution):
        axes.axvline(p99, color="black", linestyle=":", label=f"p99 {p99:.0f} ms")
        axes.grid(alpha=0.3)
        axes.legend()
    distribution.set(xlabel="latency, ms", ylabel="share of draws within it")
    _save(figure, path)


def densities(path: Path, panels: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> None:
    """Draw histograms of group latencies (seconds) of several policies, one panel over the other; p99 is dotted.

    A policy's name ends at the first comma.
    """
    figure, grid = _grid(len(panels), columns=1)
    longest = 1000 * max(float(np.quantile(times, 0.999)) for runs in panels.values() for times in runs.values())
    bins = np.linspace(0, longest, 100)
    for axes, (title, runs) in zip(grid, panels.items(), strict=True):
        for policy, times in runs.items():
            colour = POLICY_COLOURS[policy.partition(", ")[0]]
            p99 = 1000 * float(np.quantile(times, 0.99))
            shares = np.histogram(1000 * times, bins)[0] / len(times) / (bins[1] - bins[0])
            label = f"{policy}: p99 {p99:.0f} ms, std {1000 * times.std():.0f}"
            axes.stairs(shares, bins, color=colour, linewidth=1.3, label=label)
            axes.axvline(p99, color=colour, linestyle=":")
        axes.set(title=title, yscale="log", xlabel="group latency, ms", ylabel="density, 1/ms", xlim=(0, longest))
        axes.legend(fontsize=8)
    _save(figure, path)


def tails(path: Path, panels: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> None:
    """Draw distributions of latencies (seconds), on an axis that gives 90, 99 and 99.9 % equal steps.

    Dots mark p99, and p99.9 of 10,000 or more.
    """
    figure, grid = _grid(len(panels), columns=2)
    ticks = np.array([0, 0.5, 0.9, 0.99, 0.999, 0.9999])
    for axes, (title, runs) in zip(grid, panels.items(), strict=True):
        for policy, times in runs.items():
            colour = POLICY_COLOURS[policy.partition(", ")[0]]
            milliseconds = np.sort(1000 * times)
            nines = -np.log10(1 - np.arange(len(times)) / len(times))
            marked = [0.99, 0.999] if len(times) >= 10_000 else [0.99]
            values = np.quantile(milliseconds, marked)
            shown = [f"p{100 * share:g} {value:.0f}" for share, value in zip(marked, values, strict=True)]
            axes.step(milliseconds, nines, where="post", color=colour, label=f"{policy}: {', '.join(shown)}")
            axes.plot(values, -np.log10(1 - np.array(marked)), "o", color=colour)
        axes.set(title=title, xlabel="latency, ms", ylabel="share within it")
        axes.set_yticks(-np.log10(1 - ticks), [f"{100 * tick:g} %" for tick in ticks])
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    _save(figure, path)


def _grid(panels: int, columns: int) -> tuple[Figure, list[Axes]]:
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Figure(
        figsize=(5.5 * columns + (3 if columns == 1 else 0), 3.8 * rows), facecolor="white", layout="constrained"
    )
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(panels)]


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight")
