"""Calibrate a collage-cnn: from which confidence on are its answers accepted?

``python -m models.calibrate --data DIR --s-cnn FILE.onnx --collage FILE.onnx [FILE.onnx ...]`` finds, on the validation
split, the lowest confidence threshold at which accepted answers agree with the s-cnn as often as the s-cnn agrees with
the truth, and writes it into each collage-cnn's description. Photos need no labels (``--unlabelled``): then the mean
confidence of the s-cnn, which is seldom too low, stands for its accuracy.

That does not make accepted answers as accurate as the s-cnn's: where both models agree, both may be wrong.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from models import description, photos
from models.checkpoint import written
from models.data import UNKNOWN, Split, load, relabelled
from models.measure import ImageAnswer, OnnxModel, classify, classify_collages, risk_coverage


@dataclass(frozen=True)
class Calibration:
    """``coverage`` is the share of cells whose answers are accepted at ``threshold``; these agree with the s-cnn in
    ``agreement`` of the cases, at least ``target``: the s-cnn's own accuracy. All from 0 to 1."""

    threshold: float
    coverage: float
    agreement: float
    target: float


def find_threshold(confidences: NDArray[np.float64], agrees: NDArray[np.bool_], target: float) -> Calibration:
    """The threshold of the largest coverage whose agreement reaches ``target``; 1 and nothing covered if none does."""
    thresholds, coverage, agreement = risk_coverage(confidences, agrees)
    reached = np.flatnonzero(agreement >= target)
    if not len(reached):
        return Calibration(1.0, 0.0, 1.0, target)
    best = reached[-1]
    return Calibration(float(thresholds[best]), float(coverage[best]), float(agreement[best]), target)


def aim(answers: Sequence[ImageAnswer]) -> float:
    """The share of answers that are right; of images without labels, the share that the s-cnn expects to be right."""
    known = [answer for answer in answers if answer.label != UNKNOWN]
    if known:
        return float(np.mean([answer.prediction == answer.label for answer in known]))
    return float(np.mean([answer.confidence for answer in answers]))


def calibrate(s_cnn: OnnxModel, collage: OnnxModel, split: Split, seeds: int = 3) -> Calibration:
    """Calibrate on a split, with ``seeds`` random placements of every image. Empty cells are never accepted."""
    reference = {answer.image: answer for answer in classify(s_cnn, split)}
    target = aim(list(reference.values()))
    answers = [answer for seed in range(seeds) for answer in classify_collages(collage, split, seed)]
    confidences = np.array([answer.confidence for answer in answers])
    agrees = np.array([answer.prediction == reference[answer.image].prediction for answer in answers])
    return find_threshold(confidences, agrees, target)


def write_threshold(path: Path, calibration: Calibration) -> None:
    """Put a calibration into the description of an exported model; the threshold rounded down, to accept no less."""
    threshold = math.floor(calibration.threshold * 1e4) / 1e4
    info = replace(OnnxModel(path).info, version="", accept_threshold=threshold)
    measured = {name: round(value, 4) for name, value in vars(calibration).items() if name != "threshold"}
    info = replace(info, extra={**info.extra, "calibration": measured})
    model = onnx.load(path)
    others = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, {**others, **description.entry(info)})
    with written(path) as partial:
        onnx.save(model, partial)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--s-cnn", type=Path, required=True, help="the exported s-cnn")
    parser.add_argument("--collage", type=Path, nargs="+", required=True, help="exported collage-cnns, rewritten")
    parser.add_argument(
        "--unlabelled",
        action="store_true",
        help="the folder holds photos in any order: those a model was distilled from",
    )
    args = parser.parse_args(arguments)
    try:
        s_cnn = OnnxModel(args.s_cnn)
        labels, size = s_cnn.info.labels, s_cnn.info.size
        data = photos.load(args.data, labels, size) if args.unlabelled else relabelled(load(args.data, size), labels)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
    validation = data.validation
    for path in args.collage:
        collage = OnnxModel(path)
        found = calibrate(s_cnn, collage, validation)
        write_threshold(path, found)
        print(
            f"{collage.info.name}: at confidence {found.threshold:.4f} and above, {found.coverage:.1%} of the cells "
            f"agree with the s-cnn in {found.agreement:.2%} of the cases (its own accuracy: {found.target:.2%})"
        )


if __name__ == "__main__":
    main()
