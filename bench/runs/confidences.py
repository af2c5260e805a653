"""``python -m bench confidences``: how sure and how right the shipped collage-cnns are, for the simulator.

Every collage-cnn of a data set and its s-cnn answer the validation images. Answers of neighbouring confidence become
one row: how many there are of each kind. The latency of a collage-cnn, as a share of its s-cnn's, is that of the stored
evaluation (``docs/results/evaluate.json``).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from bench.offer import CONFIDENCES
from bench.progress import watched
from bench.report.stored import RESULTS, ZOO
from bench.samples import KINDS
from collage.figures import Row, read_figures, write_figures
from models import data
from models.data import Split
from models.measure import ImageAnswer, OnnxModel, classify, classify_collages

STEPS = 25  # rows of a model, beside one of its empty cells


def steps(answers: Sequence[ImageAnswer], s_cnn: dict[str, ImageAnswer], accept: float) -> Iterator[Row]:
    """Rows: the mean ``confidence`` (None for empty cells) and the number of answers of each of ``KINDS``.

    A step ends at ``accept``, the model's threshold, so that sure answers are never mixed with others.
    """
    filled = sorted((answer for answer in answers if answer.prediction is not None), key=lambda it: it.confidence)
    sure = sum(answer.confidence < accept for answer in filled)
    ends = sorted({sure, *np.linspace(0, len(filled), STEPS + 1).astype(int).tolist()})
    parts = [filled[start:end] for start, end in pairwise(ends)]
    empty = [answer for answer in answers if answer.prediction is None]
    for part in [*parts, empty] if empty else parts:
        counts = dict.fromkeys(KINDS, 0)
        for answer in part:
            rights = answer.prediction == answer.label, s_cnn[answer.image].prediction == answer.label
            counts[KINDS[(not rights[0]) * 2 + (not rights[1])]] += 1
        confidence = None if part is empty else math.fsum(answer.confidence for answer in part) / len(part)
        yield {"confidence": confidence, **counts}


def measure(folder: Path, dataset: str, split: Split, seeds: int) -> list[Row]:
    """Rows of all grids that ship for a data set, from ``seeds`` random placements of its validation images."""
    factors = {
        int(row["k"]): float(row["latency_ratio"])
        for row in read_figures(RESULTS / "evaluate.json")
        if row["dataset"] == dataset and row.get("role") == f"collage-{row['k']}x{row['k']}"
    }
    s_cnn = {answer.image: answer for answer in classify(OnnxModel(folder / f"{dataset}-s-cnn.onnx"), split)}
    rows: list[Row] = []
    for k, factor in watched(factors.items(), dataset):
        model = OnnxModel(folder / f"{dataset}-collage-{k}x{k}.onnx")
        answers = [answer for seed in range(seeds) for answer in classify_collages(model, split, seed)]
        accept = model.info.accept_threshold
        about: Row = {"dataset": dataset, "k": k, "version": model.info.version, "images": len(split)}
        known = {**about, "accept": accept, "factor": factor}
        rows += [{**known, **step} for step in steps(answers, s_cnn, accept)]
    return rows


def main(argv: Sequence[str]) -> int:
    """Measure and write the table: 0 if it went well, 2 if the data or models cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m bench confidences", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--models", type=Path, default=ZOO, help="folder of its models (%(default)s)")
    parser.add_argument("--seeds", type=int, default=2, help="placements of every image in collages (%(default)s)")
    parser.add_argument("--out", type=Path, default=CONFIDENCES, help="the table, JSON (%(default)s)")
    args = parser.parse_args(argv)
    try:
        dataset = data.name_of(args.data) or args.data.name
        size = OnnxModel(args.models / f"{dataset}-s-cnn.onnx").info.size
        rows = measure(args.models, dataset, data.load(args.data, size).validation, args.seeds)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"table: {write_figures(args.out.stem, rows, directory=args.out.parent)}")
    return 0
