"""What the documents show of models: accuracy, latency, training, and the codes' losses."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from bench.report.findings import FoundRow, markdown
from bench.report.stored import ZOO, Stored, ms, one, paragraph, percent, within
from collage.figures import interval
from encoder.linear import mean_weights
from models import cards
from models.lineage import epochs, planned
from models.measure import describe, discover
from models.recipes import FAMILIES
from models.steps import S_CNN, Family

DATA_SETS = {"fashion-mnist": "Fashion-MNIST", "cifar10-jpeg": "CIFAR-10 (JPEG copy)", "imagenette-224": "Imagenette"}
GRIDS = (2, 3, 4, 5)
NINE = {
    "s-cnn": "the s-cnn, images at {size} px, batch of 9",
    "rival-lowres": "the same network at {size} px (as large as a cell), batch of 9",
    "collage-3x3": "our 3 x 3 collage-cnn, {size} px",
    "rival-student": "a distilled student (narrow ResNet-18), batch of 9",
    "rival-mobilenet": "MobileNet-v2, batch of 9",
    "collage-3x3-yolo": "yolov3-tiny with the authors' 13 x 13 head, {size} px",
    "collage-3x3-paper": "the paper's collage-cnn, {size} px",
}
EVALUATE = "evaluate"


def accuracy_short(found: Stored) -> str:
    """Top-1 of the shipped models for the first page."""
    lines, used = [], []
    for dataset, name in DATA_SETS.items():
        rows = {str(row["role"]): row for row in _models(found, dataset)}
        shown = [rows[S_CNN], *(rows[f"collage-{k}x{k}"] for k in GRIDS)]
        seen = _epochs(dataset)
        lines.append([f"{name}, {shown[0]['images']:,} images", *map(_top1, shown)])
        lines.append(["cells accepted", "", *(percent(row["coverage"], 2) for row in shown[1:])])
        lines.append(["epochs", *(f"{seen[str(row['role'])]:.0f}" for row in shown)])
        used += shown
    headings = ["top-1 on test images", "s-cnn (ResNet-34)", *(f"{k} x {k}" for k in GRIDS)]
    return f"{markdown(headings, lines)}\n\n{found.origin(EVALUATE, used)}"


def models(found: Stored) -> str:
    """Every model that protects or is protected: accuracy, cells, latency, size, epochs."""
    lines, used = [], []
    for dataset, name in DATA_SETS.items():
        seen = _epochs(dataset)
        for row in _models(found, dataset):
            role = str(row["role"])
            if role.startswith("rival") or role.endswith("yolo"):
                continue
            used.append(row)
            lines.append(
                [
                    f"{name}: {_described(row)}",
                    _top1(row),
                    percent(row["answered_share"], 2),
                    percent(row["coverage"], 2),
                    percent(row["covered_top1"], 2),
                    f"{seen[role]:.0f}",
                    ms(row["latency_s"], 1),
                    f"{row['latency_ratio']:.2f}",
                    f"{row['size_bytes'] / 1e6:.1f}",
                ]
            )
    headings = "model|top-1|cells answered|cells accepted|top-1 of accepted|epochs|latency, ms|/ s-cnn|file, MB".split(
        "|"
    )
    images = ", ".join(f"{_models(found, dataset)[0]['images']:,} of {name}" for dataset, name in DATA_SETS.items())
    note = paragraph(
        f"Test images: {images}; three random placements of each in collages. The interval of top-1 is that of images: "
        "placements do not shrink it. Epochs are those of all runs behind a model, for one that is not shipped as its "
        "recipe plans. Latency is the median of one image or one collage on one thread, in turns within one run for "
        "each data set."
    )
    return f"{markdown(headings, lines)}\n\n{note}\n\n{found.origin(EVALUATE, used)}"


def threshold(found: Stored) -> str:
    """How many cells the calibrated thresholds accept."""
    rows = [row for dataset in DATA_SETS for row in _models(found, dataset) if str(row["role"]) in _SHIPPED]
    least = min(rows, key=lambda row: float(row["coverage"]))
    threes = [row for row in rows if row["k"] == 3]
    return paragraph(
        "A cell is answered if it is not empty. It is accepted if its confidence also reaches the threshold that is "
        "calibrated on validation images, from which on coded answers agree with the s-cnn as often as the s-cnn is "
        f"right. That accepts {percent(min(row['coverage'] for row in threes), 2)} or more of the cells at 3 x 3, and "
        f"the least, {percent(least['coverage'])}, for {DATA_SETS[str(least['dataset'])]} at {least['k']} x "
        f"{least['k']}. It bounds how often the two differ. It does not make coded answers as accurate as the s-cnn's "
        "on the same cells."
    )


def nine(found: Stored) -> str:
    """Nine images at once, by collage-cnns and by small networks that see them apart."""
    dataset = "imagenette-224"
    rows = sorted(
        (row for row in _models(found, dataset) if row["nine_s"] and row["role"] in NINE),
        key=lambda row: -float(row["nine_s"]),
    )
    seen = _epochs(dataset)
    lines = [
        [
            NINE[str(row["role"])].format(size=row["size"]),
            _top1(row),
            f"{seen[str(row['role'])]:.0f}",
            ms(row["nine_s"], 1),
            f"{row['nine_to_collage']:.1f}",
            f"{row['size_bytes'] / 1e6:.1f}",
        ]
        for row in rows
    ]
    headings = ["", "top-1", "epochs", "nine images, ms", "/ our collage", "file, MB"]
    return f"{markdown(headings, lines)}\n\n{found.origin(EVALUATE, rows)}"


def coding(found: Stored) -> str:
    """What encoding and decoding a collage takes."""
    row = one(found.rows(EVALUATE, dataset="imagenette-224", kind="code"))
    return paragraph(
        f"Encoding {row['model']} takes {ms(row['encode_s'], 1)} ms, decoding {ms(row['decode_s'], 1)} ms (the paper: "
        "10 ms each). A frontend does it when a collage is sent, in a thread of its own: the requests themselves never "
        "wait for it."
    )


def curve(found: Stored) -> str:
    """Accuracy against the number of training collages."""
    rows = sorted(found.rows("learning-curve"), key=lambda row: row["collages"] or float("inf"))
    lines = [
        [f"{row['collages']:,}" if row["collages"] else "new ones all the time", percent(row["validation"], 2)]
        for row in rows
    ]
    table = markdown(["different training collages", "top-1 of validation images"], lines)
    return f"{table}\n\n{found.origin('learning-curve', rows)}"


def conditions(found: Stored) -> str:
    """How much noise the worst loss multiplies, for means."""
    shapes, worst = [(2, 1), (2, 2), (3, 2), (4, 2)], []
    for members, inputs in shapes:
        rows = np.vstack([np.eye(members), mean_weights(members, inputs)])
        kept = combinations(range(members + inputs), members)
        worst.append(max(float(np.linalg.cond(rows[list(places)])) for places in kept))
    return markdown(
        ["N, r", *(f"{members}, {inputs}" for members, inputs in shapes)],
        [["condition", *(f"{value:.1f}" for value in worst)]],
    )


_SHIPPED = {f"collage-{k}x{k}" for k in GRIDS}


def _models(found: Stored, dataset: str) -> list[FoundRow]:
    """A data set's rows of models: the s-cnn first, then by grid and role."""
    rows = [row for row in found.rows(EVALUATE, dataset=dataset) if row["kind"] != "code"]
    return sorted(rows, key=lambda row: (row["role"] != S_CNN, row["k"], str(row["role"])))


def _described(row: FoundRow) -> str:
    names = {"s-cnn": "ResNet-34", "s-cnn-resnet32": "ResNet-32, the paper's s-cnn"}
    role, k = str(row["role"]), row["k"]
    papers = " of the paper's shape (not shipped)" if role.endswith("paper") else ""
    return f"{names.get(role) or f'{k} x {k} collage-cnn{papers}'}, {row['size']} px"


def _top1(row: FoundRow) -> str:
    return within(row["top1"], interval(row["top1"], row["images"]))


def _epochs(dataset: str) -> Mapping[str, float]:
    """Epochs behind every model of a data set: as its file tells, or for one that is not kept as its step plans."""
    family: Family = next(family for family in FAMILIES if dataset in family.data_sets)
    infos = {role: describe(path) for role, path in discover([ZOO])[dataset].items()}
    known = {role: epochs(runs) for role, runs in cards.lineages(infos, family).items()}
    return {role: epochs(planned(family.steps, role, {})) for role in family.steps} | known


def trained(found: Stored) -> str:
    """Epochs of s-cnns beside those of their collage-cnns."""
    told, longer = [], 0
    for dataset, name in DATA_SETS.items():
        seen = _epochs(dataset)
        ours = [seen[role] for role in sorted(_SHIPPED)]
        longer += sum(epochs > seen[S_CNN] for epochs in ours)
        told.append(f"{name} {seen[S_CNN]:.0f} and {min(ours):.0f} to {max(ours):.0f}")
    return paragraph(
        f"Epochs of the s-cnn and of its collage-cnns: {'; '.join(told)}. {longer} of {len(DATA_SETS) * len(GRIDS)} "
        "collage-cnns were trained for longer than the s-cnn that they protect. Expect them below an s-cnn that was "
        "trained for as long."
    )


PASSAGES = {
    "accuracy-short": accuracy_short, "models": models, "threshold": threshold, "nine": nine, "coding": coding,
    "curve": curve, "conditions": conditions, "trained": trained,
}  # fmt: skip
