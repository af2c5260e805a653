"""Pictures of an evaluation: accuracy against K, how much confidence buys, and a learning curve."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from collage.figures import Row, read_figures
from models.measure import ImageAnswer, risk_coverage

COLOURS = {2: "#1f77b4", 3: "#d95f02", 4: "#1b9e77", 5: "#7570b3"}
BASELINE, OTHER, PERCENT = "#444444", "#a6761d", PercentFormatter(1, symbol=" %")
FEWEST = 0.03
"""Share of cells from which on the accuracy of the accepted ones is more than noise."""
COLLAGE = re.compile(r"collage-(\d+)x\1")


def draw(
    folder: Path, rows: Sequence[Row], answers: Mapping[str, Mapping[str, Sequence[ImageAnswer]]], learning: Path
) -> None:
    """Draw all pictures of an evaluation into a folder.

    ``rows`` are those of ``models.evaluate``, ``answers`` are by data set and role. ``learning`` may not exist: figures
    with "collages" (distinct training collages, 0 for new ones all the time) and "validation" (top-1 from 0 to 1).
    """
    folder.mkdir(parents=True, exist_ok=True)
    for dataset in answers:
        accuracy_by_k(folder / f"fig6-{dataset}.png", dataset, [row for row in rows if row["dataset"] == dataset])
    confidence(folder / "risk-coverage.png", rows, answers)
    if learning.exists():
        learning_curve(folder / "learning-curve.png", read_figures(learning))


def accuracy_by_k(path: Path, dataset: str, rows: Sequence[Row]) -> None:
    """Draw top-1 against K with the s-cnns as horizontal lines (fig. 6); bars span the placements' accuracies."""
    figure, axes = _one()
    shipped = sorted((row for row in rows if COLLAGE.fullmatch(str(row["role"]))), key=lambda row: _number(row, "k"))
    others = [row for row in rows if row["kind"] == "collage-cnn" and row not in shipped]
    for row, style in zip(
        (row for row in rows if str(row["role"]).startswith("s-cnn")), ("-", "--", ":"), strict=False
    ):
        label = f"{row['role']}: {_number(row, 'top1'):.1%}"
        axes.axhline(_number(row, "top1"), color=BASELINE, linestyle=style, label=label)
    if shipped:
        placed = np.array([_placements(row) for row in shipped])
        mean = placed.mean(1)
        spread = np.stack((mean - placed.min(1), placed.max(1) - mean))
        axes.errorbar(
            [_number(row, "k") for row in shipped], mean, spread, marker="o", capsize=4, color=COLOURS[3],
            label="collage-cnn",
        )  # fmt: skip
    for row, marker in zip(others, "sD^v<>", strict=False):
        axes.plot(_number(row, "k"), _number(row, "top1"), marker, color=OTHER, label=str(row["role"]))
    axes.set(title=f"{dataset}, {rows[0]['images']:,} images", xlabel="K", ylabel="top-1")
    axes.set_xticks(sorted({_number(row, "k") for row in [*shipped, *others]}))
    axes.yaxis.set_major_formatter(PERCENT)
    axes.legend()
    _save(figure, path)


def confidence(path: Path, rows: Sequence[Row], answers: Mapping[str, Mapping[str, Sequence[ImageAnswer]]]) -> None:
    """Draw, for shipped collage-cnns, how good answers above a confidence are against how many these are.

    Solid: they agree with the s-cnn; dashed: they are right. Dots are calibrated thresholds, the grey line is the
    s-cnn's own accuracy.
    """
    coverage = {row["model"]: row["coverage"] for row in rows if row.get("coverage") is not None}
    figure = Figure(figsize=(5.5 * len(answers), 4.5), facecolor="white", layout="constrained")
    for axes, (dataset, roles) in zip(figure.subplots(1, len(answers), squeeze=False)[0], answers.items(), strict=True):
        reference = {answer.image: answer.prediction for answer in roles["s-cnn"]}
        own = np.mean([answer.prediction == answer.label for answer in roles["s-cnn"]])
        axes.axhline(float(own), color=BASELINE, linewidth=1, label=f"s-cnn: {own:.1%}")
        for role, given in roles.items():
            if not (match := COLLAGE.fullmatch(role)):
                continue
            k = int(match[1])
            confidences = np.array([answer.confidence for answer in given])
            agrees = np.array([answer.prediction == reference[answer.image] for answer in given])
            right = np.array([answer.prediction == answer.label for answer in given])
            for wanted, style, label in ((agrees, "-", f"{k} x {k}"), (right, "--", None)):
                _, covered, share = risk_coverage(confidences, wanted)
                covered, share = covered[covered >= FEWEST], share[covered >= FEWEST]
                axes.plot(covered, share, style, color=COLOURS.get(k, OTHER), linewidth=1.2, label=label)
                if style == "-" and (chosen := coverage.get(f"{dataset}-{role}")):
                    axes.plot(chosen, np.interp(float(chosen), covered, share), "o", color=COLOURS.get(k, OTHER))
        axes.set(title=dataset, xlabel="share of cells accepted", ylabel="as the s-cnn (solid), right (dashed)")
        axes.set(xlim=(0, 1), ylim=(None, 1.005))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.yaxis.set_major_formatter(PERCENT)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left", fontsize=8)
    _save(figure, path)


def learning_curve(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Draw validation top-1 against the number of distinct training collages; 0 of them means new ones every epoch."""
    figure, axes = _one()
    finite = sorted((row["collages"], row["validation"]) for row in rows if row["collages"])
    axes.plot([count for count, _ in finite], [top1 for _, top1 in finite], "o-", color=COLOURS[3], label="a fixed set")
    for row in rows:
        if not row["collages"]:
            label = f"new collages in every epoch: {row['validation']:.1%}"
            axes.axhline(row["validation"], color=BASELINE, linestyle="--", label=label)
    axes.set(xscale="log", xlabel="distinct training collages", ylabel="validation top-1")
    axes.set_xticks([count for count, _ in finite], [f"{count:,}" for count, _ in finite])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PERCENT)
    axes.legend()
    _save(figure, path)


def _number(row: Row, key: str) -> float:
    return float(row[key] or 0)


def _placements(row: Row) -> list[float]:
    return [_number(row, key) for key in row if key.startswith("top1_seed_") and row[key] is not None]


def _one() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 4.5), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120, bbox_inches="tight")
