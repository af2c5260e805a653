"""Write model cards from what the files say of themselves and from what an evaluation measured.

``python -m models.cards --models models/zoo --figures docs/results/evaluate.json`` writes ``models/zoo/README.md``;
with ``--codes docs/results/codes.json`` the parity models are in it.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from collage.figures import MADE, Row, interval, read_figures
from collage.model_info import ModelInfo, ModelKind
from models.lineage import Lineage, Stage, epochs, of_description, planned, recorded
from models.measure import describe, discover
from models.recipes import FAMILIES
from models.steps import S_CNN, AnyStep, Family
from models.tables import top1_interval

INTRODUCTION = """# Model zoo

Written by `make cards` from each file's own description and from the measurements in `docs/results/evaluate.json`.
Weights are stored as each card says and computed in float32; the description travels in the file's metadata. Epochs,
widths and thresholds were chosen on validation images cut from the training data. Test images served for the figures
below and nothing else, with three random placements of each for a collage-cnn. `make zoo` builds these files, and the
models of the evaluation that are not kept here, by the steps in [models/recipes](../recipes).

In the table, epochs and hours are those of all training runs that a model's weights went through, without those of its
teachers'; durations are those of two cores that had other work. A cell is answered if the collage-cnn finds an image in
it. It is accepted if the answer also reaches the calibrated threshold.
"""
PARITY_INTRODUCTION = """## Parity models

A lost answer is decoded from that of a parity model and those of the other members of its group, measured in
`docs/results/codes.json`. "Cost" is the time of a parity model's execution, in the base model's.
"""
COLUMNS = (
    "model", "top-1", "cells answered", "cells accepted", "runs", "epochs", "epochs of its s-cnn", "hours",
    "latency", "/ s-cnn", "file",
)  # fmt: skip
PARITY_COLUMNS = ("model", "code, N", "top-1 if lost", "top-1 of its base", "cost", "runs", "epochs", "hours", "file")


def lineages(infos: Mapping[str, ModelInfo], family: Family | None) -> dict[str, Lineage]:
    """The runs behind the files of one data set, by role: as a file records them, or as the step by which it was
    trained tells; a file that no step made tells its last run alone."""
    steps = family.steps if family else {}
    durations = {role: info.extra["training_s"] for role, info in infos.items() if _made_by(info, steps.get(role))}
    return {
        role: planned(steps, role, durations)
        if role in durations and "lineage" not in info.extra
        else of_description(info.name, info.extra)
        for role, info in infos.items()
    }


def _made_by(info: ModelInfo, step: AnyStep | None) -> bool:
    """Whether a file's last run had the settings of a step; an older file has fewer, all others being off then."""
    return step is not None and info.extra["recipe"].items() <= asdict(step.recipe).items()


def line(info: ModelInfo, row: Row, runs: Lineage, s_cnn: Lineage) -> str:
    """One model's line in the table."""
    fields = (
        f"[{info.name}](#{info.name})",
        _percent(row["top1"]),
        _percent(row["answered_share"]) if info.kind is ModelKind.COLLAGE_CNN else "",
        _percent(row["coverage"]) if info.kind is ModelKind.COLLAGE_CNN else "",
        str(len(runs)),
        f"{epochs(runs):g}",
        f"{epochs(s_cnn):g}" if info.kind is ModelKind.COLLAGE_CNN else "",
        _hours_cell(runs),
        f"{1e3 * float(row['latency_s'] or 0):.1f} ms",
        f"{row['latency_ratio']:.2f}",
        f"{float(row['size_bytes'] or 0) / 1e6:.1f} MB",
    )
    return f"| {' | '.join(fields)} |"


def card(info: ModelInfo, row: Row, family: Family | None, runs: Lineage, s_cnn: Lineage) -> str:
    """One model's card, in Markdown; ``s_cnn`` is the lineage of the classifier that a collage-cnn protects."""
    extra: Mapping[str, Any] = info.extra
    collage = info.kind is ModelKind.COLLAGE_CNN
    beside = f"; its s-cnn: {_total(s_cnn)}" if collage else ""
    lines = [
        f"## {info.name}",
        "",
        f"{info.kind}, {extra['architecture']}"
        + (f", {info.k} x {info.k} collages of {info.size} px" if collage else f", images of {info.size} px"),
        "",
        f"- Data: {extra['dataset']}{f': {family.source}. Licence: {family.licence}' if family else ''}.",
        *_training(info, runs, beside),
        f"- Accuracy: {_percent(row['top1'])} ± {100 * (top1_interval(row) or 0):.2f} top-1 on {row['images']:,} test "
        f"images (95 % interval over images), "
        f"{_percent(extra['validation_accuracy'])} on validation images; {extra['storage']} weights changed the latter "
        f"by {100 * extra['accuracy_change']:+.2f} points.",
    ]
    if collage:
        found = extra["calibration"]
        placements = [_percent(row[key]) for key in row if key.startswith("top1_seed_") and row[key] is not None]
        lines += [
            f"- Top-1 by placement: {', '.join(placements)}.",
            f"- Cells answered: {_percent(row['answered_share'])}. Cells accepted at the calibrated threshold: "
            f"{_percent(row['coverage'])}; of these answers {_percent(row['covered_agreement'])} are the s-cnn's, "
            f"{_percent(row['covered_top1'])} are right.",
            f"- Calibration, on validation images: at a confidence of {info.accept_threshold:.3f} and above, "
            f"{_percent(found['coverage'])} of the cells are accepted; {_percent(found['agreement'])} of these agree "
            f"with the s-cnn, which is right in {_percent(found['target'])}.",
        ]
    lines.append(
        f"- Latency: {1e3 * float(row['latency_s'] or 0):.1f} ms on one thread, {row['latency_ratio']:.2f} of the "
        f"s-cnn's in the same run. Size: {float(row['size_bytes'] or 0) / 1e6:.1f} MB."
    )
    return "\n".join(lines) + "\n"


def parity_card(info: ModelInfo, rows: Sequence[Row], runs: Lineage, size_bytes: int) -> tuple[str, str]:
    """A parity model's line in the table, and its card, in Markdown; ``rows`` are those of one lost answer."""
    lost, there, cost = (
        statistics.mean(float(row[name] or 0) for row in rows) for name in ("a_degraded", "a_available", "cost_ratio")
    )
    row = rows[0]
    fields = (
        f"[{info.name}](#{info.name})",
        f"{row['code']}, {row['k']}",
        _percent(lost),
        _percent(there),
        f"{cost:.2f}",
        str(len(runs)),
        f"{epochs(runs):g}",
        _hours_cell(runs),
        f"{size_bytes / 1e6:.1f} MB",
    )
    lines = [
        f"### {info.name}",
        "",
        f"{info.kind}, {info.extra['architecture']}, images of {info.size} px; base model: {row['base']}",
        "",
        f"- Data: {row['dataset']}.",
        *_training(info, runs),
        f"- Accuracy where an answer of a group of {row['k']} is lost: {_percent(lost)} ± "
        f"{100 * interval(lost, int(row['images'] or 0)):.2f} top-1 on {row['images']:,} test images, means of "
        f"{len(rows)} placements (95 % interval over images); {_percent(info.extra['validation_accuracy'])} on "
        f"validation images.",
    ]
    return f"| {' | '.join(fields)} |", "\n".join(lines) + "\n"


def _training(info: ModelInfo, runs: Lineage, beside: str = "") -> Iterator[str]:
    settings = ", ".join(f"{name} {value}" for name, value in info.extra["recipe"].items() if value)
    yield f"- Training: {_total(runs)}{beside}. {_hours(runs)}"
    yield from (f"  {number}. {_stage(stage)}" for number, stage in enumerate(runs, 1))
    yield f"- Settings of the last run, by their names in `models.train`: {settings}."


def provenance(rows: Sequence[Row]) -> str:
    """The command, commit and machine that measured each model, and those of its latency if they are others."""
    made: dict[tuple[Any, ...], list[str]] = {}
    for row in rows:
        made.setdefault(("", *(row[key] for key in MADE)), []).append(str(row["model"]))
    for row in rows:
        if "latency_commit" in row:
            made.setdefault(("Latency: ", *(row[f"latency_{key}"] for key in MADE)), []).append(str(row["model"]))
    lines = [
        f"- {what}`{command}` at commit {commit}, on {machine}: {', '.join(models)}."
        for (what, command, commit, machine), models in made.items()
    ]
    return "\n".join(["## Measurements", "", *lines]) + "\n"


def write(zoo: Path, figures: Path, codes: Path | None = None) -> Path:
    """Write the cards of all models in a folder that were measured; returns the file. See ``text``."""
    out = zoo / "README.md"
    out.write_text(text(zoo, figures, codes))
    return out


def text(zoo: Path, figures: Path, codes: Path | None = None) -> str:
    """The cards of all models in a folder that were measured in ``figures``, or in ``codes``, in Markdown.

    ``figures`` is an evaluation, and ``codes`` what parity models are good for.
    """
    measured: Mapping[str, Row] = {row["model"]: row for row in read_figures(figures)}
    told, table, cards = [], [], []
    for dataset, roles in discover([zoo]).items():
        family = next((family for family in FAMILIES if dataset in family.data_sets), None)
        infos = {role: describe(path) for role, path in roles.items()}
        runs = lineages(infos, family)
        s_cnn = runs.get(S_CNN, ())
        for role, info in infos.items():
            if (row := measured.get(f"{dataset}-{role}")) and row["version"] == info.version:
                told.append(row)
                table.append(line(info, row, runs[role], s_cnn))
                cards.append(card(info, row, family, runs[role], s_cnn))
    parities = _parities(zoo, read_figures(codes)) if codes else []
    cards += [PARITY_INTRODUCTION, *_head(PARITY_COLUMNS), *(line for line, _, _ in parities), ""] if parities else []
    cards += [card for _, card, _ in parities]
    told += [row for _, _, row in parities]
    return "\n".join([INTRODUCTION, *_head(COLUMNS), *table, "", *cards, provenance(told)])


def _parities(zoo: Path, rows: Sequence[Row]) -> list[tuple[str, str, Row]]:
    """Of each parity model that was measured: its line in the table, its card, and one of the rows."""
    found = []
    for roles in discover([zoo], [ModelKind.PARITY]).values():
        for path in roles.values():
            info = describe(path)
            its = [
                row for row in rows
                if (row.get("model"), row.get("version"), row["lost"], row["metric"])
                == (info.name, info.version, 1, "top1")
            ]  # fmt: skip
            if its:
                runs = of_description(info.name, info.extra)
                found.append((*parity_card(info, its, runs, path.stat().st_size), its[0]))
    return found


def _head(columns: Sequence[str]) -> tuple[str, str]:
    return f"| {' | '.join(columns)} |", f"|---{'|---:' * (len(columns) - 1)}|"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of exported models")
    parser.add_argument("--figures", type=Path, required=True, help="evaluate.json of the same files")
    parser.add_argument("--codes", type=Path, help="codes.json of the same files, for parity models")
    args = parser.parse_args(arguments)
    print(f"written: {write(args.models, args.figures, args.codes)}")


def _total(runs: Lineage) -> str:
    return f"{_epochs(epochs(runs))} in {len(runs)} run{'s' if len(runs) > 1 else ''}"


def _epochs(number: float) -> str:
    return f"{number:g} epoch{'' if number == 1 else 's'}"


def _hours_cell(runs: Lineage) -> str:
    seconds, unknown = recorded(runs)
    return "not recorded" if unknown else f"{seconds / 3600:.1f}"


def _hours(runs: Lineage) -> str:
    """How long training took, or which part of it is recorded."""
    seconds, unknown = recorded(runs)
    if not unknown:
        return f"{_duration(seconds)} in all."
    known = len(runs) - unknown
    return (
        f"{_duration(seconds)} in {known} of the runs; the duration{'s' if unknown > 1 else ''} of the other {unknown} "
        f"{'are' if unknown > 1 else 'is'} not recorded."
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"


def _stage(stage: Stage) -> str:
    names = [f"`{name}`" for name in stage.parents or ()]
    start = "from weights that are not recorded" if stage.parents is None else "from random weights"
    if names:
        start = f"from {names[0]}" if len(names) == 1 else f"from the mean of {' and '.join(names)}"
    taught = f", taught by {', '.join(f'`{name}`' for name in stage.teachers)}" if stage.teachers else ""
    return f"`{stage.name}`: {stage.architecture}, {_epochs(stage.epochs)}, {start}{taught}"


def _percent(share: Any) -> str:
    return "-" if share is None else f"{100 * float(share):.2f} %"


if __name__ == "__main__":
    main()
