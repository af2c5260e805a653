"""Calibrate a collage-cnn: from which confidence on are its answers accepted, and what do they cost?

``python -m models.calibrate --data DIR --s-cnn FILE.onnx --collage FILE.onnx [FILE.onnx ...]`` finds, on the validation
split, the lowest confidence threshold at which accepted answers agree with the s-cnn as often as the s-cnn agrees with
the truth, and writes it into each collage-cnn's description. That does not make them as accurate as the s-cnn's: where
both models agree, both may be wrong.

How much less accurate they are is a table beside it: by confidence, the share of answers that are wrong beyond the
s-cnn's own. ``--sidecar`` writes the table alone, into ``FILE.onnx.json``.

Photos need no labels (``--unlabelled``): then the mean confidence of the s-cnn, which is seldom too low, stands for its
accuracy, and every answer that is not the s-cnn's counts as wrong.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from collage.model_files import sidecar
from collage.model_info import ErrorRate
from models import description, photos
from models.checkpoint import written
from models.data import UNKNOWN, Split, load, relabelled
from models.measure import ImageAnswer, OnnxModel, classify, classify_collages, risk_coverage, top1

STEPS = 8
"""Most entries of a table of errors: more would be noise."""
_DIGITS = 1e4


@dataclass(frozen=True)
class Calibration:
    """``coverage`` is the share of cells whose answers are accepted at ``threshold``; these agree with the s-cnn in
    ``agreement`` of the cases, at least ``target``: the s-cnn's own accuracy. All from 0 to 1. ``errors``: what answers
    cost by their confidence."""

    threshold: float
    coverage: float
    agreement: float
    target: float
    errors: tuple[ErrorRate, ...] = ()


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
        return top1(known)
    return float(np.mean([answer.confidence for answer in answers]))


@dataclass(frozen=True)
class Compared:
    """Coded answers beside the s-cnn's for the same images; arrays ``[N]``, without empty cells."""

    confidences: NDArray[np.float64]
    images: NDArray[np.int64]
    """Which image each answer is of: of one image there are several, in several groups."""
    lost: NDArray[np.int64]
    """1 where the s-cnn alone is right, -1 where the collage-cnn alone is, else 0."""
    differs: NDArray[np.bool_]
    """Whether the two answers are not the same."""


def compare(own: Sequence[ImageAnswer], coded: Sequence[ImageAnswer]) -> Compared:
    """Coded answers beside the s-cnn's ``own``, which there is one of for each image."""
    answers = {answer.image: (index, answer.prediction) for index, answer in enumerate(own)}
    pairs = [(answer, *answers[answer.image]) for answer in coded if answer.prediction is not None]
    return Compared(
        np.array([each.confidence for each, _, _ in pairs], float),
        np.array([image for _, image, _ in pairs], np.int64),
        np.array([_lost(each, exact) for each, _, exact in pairs], np.int64),
        np.array([exact != each.prediction for each, _, exact in pairs], bool),
    )


def _lost(coded: ImageAnswer, exact: int | None) -> int:
    """1 where ``exact``, the s-cnn's answer, alone is right, -1 where the coded one is, else 0.

    Of an image without a label, the s-cnn's answer is taken to be right.
    """
    label = exact if coded.label == UNKNOWN else coded.label
    return (exact == label) - (coded.prediction == label)


def error_rates(compared: Compared, most: int = STEPS) -> tuple[ErrorRate, ...]:
    """What answers cost by their confidence: at most as many entries as asked for, whose errors fall.

    Isotonic regression (pool adjacent violators) of the errors beyond the s-cnn's on the confidence, then the
    neighbours that differ least become one. Where the collage-cnn is the better of the two, errors are 0. The standard
    error is over images, and counts one more that differs: among a few hundred that agree nobody knows of none.
    """
    if not len(compared.lost):
        return ()
    levels, places = np.unique(np.floor(compared.confidences * _DIGITS), return_inverse=True)
    pools: list[tuple[int, float, float]] = []  # the first level, how many answers, and errors in all
    for level, (count, lost) in enumerate(zip(np.bincount(places), np.bincount(places, compared.lost), strict=True)):
        pools.append((level, float(count), float(lost)))
        while len(pools) > 1 and _mean(pools[-2]) <= _mean(pools[-1]):
            pools[-2:] = [_pooled(*pools[-2:])]
    while len(pools) > most or (len(pools) > 1 and _mean(pools[-2]) == 0):
        worst = min(range(len(pools) - 1), key=lambda index: _apart(*pools[index : index + 2]))
        pools[worst : worst + 2] = [_pooled(*pools[worst : worst + 2])]
    bounds = [*(first for first, _, _ in pools), len(levels)]
    return tuple(
        _rate(compared, float(levels[first]) / _DIGITS if first else 0.0, (places >= first) & (places < end))
        for first, end in pairwise(bounds)
    )


def _mean(pool: tuple[int, float, float]) -> float:
    return max(0.0, pool[2] / pool[1])


def _pooled(one: tuple[int, float, float], other: tuple[int, float, float]) -> tuple[int, float, float]:
    return one[0], one[1] + other[1], one[2] + other[2]


def _apart(one: tuple[int, float, float], other: tuple[int, float, float]) -> float:
    """The squared error that is lost by taking two pools for one."""
    return one[1] * other[1] / (one[1] + other[1]) * (_mean(one) - _mean(other)) ** 2


def _rate(compared: Compared, confidence: float, within: NDArray[np.bool_]) -> ErrorRate:
    lost, images, count = compared.lost[within], compared.images[within], int(within.sum())
    mean = lost.mean()
    residuals = np.bincount(images, lost - mean)
    error = min(1.0, math.sqrt(float((residuals**2).sum()) + 1) / count)
    errors, differs = max(0.0, float(mean)), float(compared.differs[within].mean())
    return ErrorRate(confidence, *(round(value, 5) for value in (errors, error, differs)))


def calibrate(own: Sequence[ImageAnswer], collage: OnnxModel, split: Split, seeds: int = 3) -> Calibration:
    """Calibrate on a split, with ``seeds`` random placements of every image. Empty cells are never accepted.

    ``own`` are the s-cnn's answers to its images.
    """
    reference = {answer.image: answer for answer in own}
    target = aim(own)
    answers = [answer for seed in range(seeds) for answer in classify_collages(collage, split, seed)]
    confidences = np.array([answer.confidence for answer in answers])
    agrees = np.array([answer.prediction == reference[answer.image].prediction for answer in answers])
    return replace(find_threshold(confidences, agrees, target), errors=error_rates(compare(own, answers)))


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Put a calibration into the description of an exported model; the threshold rounded down, to accept no less."""
    threshold = math.floor(calibration.threshold * 1e4) / 1e4
    info = replace(OnnxModel(path).info, version="", accept_threshold=threshold, errors=calibration.errors)
    shares = {"coverage": calibration.coverage, "agreement": calibration.agreement, "target": calibration.target}
    measured = {name: round(value, 4) for name, value in shares.items()}
    info = replace(info, extra={**info.extra, "calibration": measured})
    model = onnx.load(path)
    others = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, {**others, **description.entry(info)})
    with written(path) as partial:
        onnx.save(model, partial)


def write_sidecar(path: Path, errors: Sequence[ErrorRate]) -> None:
    """Put a table of errors into the sidecar of an exported model, beside what that has; the model stays as it is."""
    file = sidecar(path)
    content = json.loads(file.read_text()) if file.exists() else {}
    content["errors"] = [asdict(rate) for rate in errors]
    with written(file) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


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
    parser.add_argument(
        "--sidecar", action="store_true", help="write the table of errors alone, beside each file, which stays as it is"
    )
    args = parser.parse_args(arguments)
    try:
        s_cnn = OnnxModel(args.s_cnn)
        labels, size = s_cnn.info.labels, s_cnn.info.size
        if args.unlabelled:
            validation = photos.validation(args.data, labels, size)
        else:
            validation = relabelled(load(args.data, size), labels).validation
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
    own = list(classify(s_cnn, validation))
    for path in args.collage:
        collage = OnnxModel(path)
        found = calibrate(own, collage, validation)
        if args.sidecar:
            write_sidecar(path, found.errors)
        else:
            write_calibration(path, found)
        print(
            f"{collage.info.name}: at confidence {found.threshold:.4f} and above, {found.coverage:.1%} of the cells "
            f"agree with the s-cnn in {found.agreement:.2%} of the cases (its own accuracy: {found.target:.2%})"
        )


if __name__ == "__main__":
    main()
