"""Labelled images to send, and answers of models to images."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from collage.figures import Row, read_figures
from frontend.policy.accuracy import ErrorStep
from worker.slowdown import COLLAGE_FACTOR

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "samples" / "fashion-mnist"
CONFIDENCES = ROOT / "bench" / "confidences.json"
"""How sure and how right the shipped models are: of ``python -m bench confidences``."""
KINDS = ("both_right", "coded_right", "s_cnn_right", "both_wrong")
"""Kinds of answers to an image: both models right, the collage-cnn alone, the s-cnn alone, neither."""


@dataclass(frozen=True)
class Sample:
    """A labelled image: ``name`` tells where it is from, ``label`` is its folder's slug, ``data`` a file's bytes."""

    name: str
    label: str
    data: bytes


def slug(label: str) -> str:
    """A label as a folder's name: ``T-shirt/top`` becomes ``t-shirt-top``."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def load_samples(folder: Path = SAMPLES) -> list[Sample]:
    """Every ``<label>/<name>.png`` below ``folder``, sorted; raises FileNotFoundError if there is none."""
    files = sorted(folder.glob("*/*.png"))
    if not files:
        raise FileNotFoundError(f"there are no sample images in {folder}")
    return [Sample(f"{file.parent.name}/{file.stem}", slug(file.parent.name), file.read_bytes()) for file in files]


def random_groups(samples: Sequence[Sample], members: int, groups: int, seed: int) -> list[list[Sample]]:
    """``groups`` lists of ``members`` samples in random order; none comes again before all have come."""
    rng = np.random.default_rng(seed)
    rounds = -(-members * groups // len(samples))
    order = np.concatenate([rng.permutation(len(samples)) for _ in range(rounds)])
    return [[samples[i] for i in order[start : start + members]] for start in range(0, members * groups, members)]


@dataclass(frozen=True)
class ImageAnswers:
    """Answers of the models to images, in the order sent; arrays ``[count]``."""

    confidence: NDArray[np.float32]  # of the image's cell; nan where the cell is empty
    coded_right: NDArray[np.bool_]  # the collage-cnn is right
    s_cnn_right: NDArray[np.bool_]  # the s-cnn is right


class Models(Protocol):
    """The models of a simulated cluster; from confidence ``accept`` on (0 to 1) a cell is sure.

    ``errors`` is the table of what coded answers cost, empty if there is none. A redundant model takes ``factor`` times
    as long as the s-cnn.
    """

    @property
    def accept(self) -> float:
        """The collage-cnn's threshold."""
        ...

    @property
    def errors(self) -> Sequence[ErrorStep]:
        """The collage-cnn's table."""
        ...

    @property
    def factor(self) -> float:
        """The collage-cnn's latency, as a share of the s-cnn's."""
        ...

    def draw(self, count: int, seed: int) -> ImageAnswers:
        """Answers to ``count`` images."""
        ...


@dataclass(frozen=True)
class KnownModels:
    """Models whose answers to certain images are known, in the order sent."""

    images: ImageAnswers
    accept: float
    errors: Sequence[ErrorStep] = ()
    factor: float = COLLAGE_FACTOR

    def draw(self, count: int, seed: int) -> ImageAnswers:
        """Answers to the first ``count`` images, whatever the seed; ValueError if fewer are known."""
        if count > len(self.images.confidence):
            raise ValueError(f"{count} images are needed, {len(self.images.confidence)} are known")
        known = self.images
        return ImageAnswers(known.confidence[:count], known.coded_right[:count], known.s_cnn_right[:count])


@dataclass(frozen=True)
class TypicalModels:
    """Models of given worth; shares and accuracies from 0 to 1.

    A cell is sure (confidence 1), unsure (0.25), or seen as empty. Images that the collage-cnn is sure of are easy for
    the s-cnn as well. Defaults: a 3 x 3 collage-cnn on CIFAR-10.
    """

    sure: float = 0.6
    empty: float = 0.003
    sure_accuracy: float = 0.989
    accuracy: float = 0.9  # of the collage-cnn, over all cells
    s_cnn_sure_accuracy: float = 0.99
    s_cnn_accuracy: float = 0.93
    accept: float = 0.5
    errors: Sequence[ErrorStep] = ()
    factor: float = COLLAGE_FACTOR

    def draw(self, count: int, seed: int) -> ImageAnswers:
        """Answers to ``count`` random images."""
        rng = np.random.default_rng((seed, 2))
        kind, coded, exact = rng.random((3, count))
        sure = kind < self.sure
        confidence = np.where(sure, 1.0, np.where(kind < 1 - self.empty, 0.25, np.nan)).astype(np.float32)

        def right(draws: NDArray[np.float64], of_sure: float, of_all: float) -> NDArray[np.bool_]:
            of_unsure = (of_all - self.sure * of_sure) / (1 - self.sure) if self.sure < 1 else 0.0
            return draws < np.where(sure, of_sure, of_unsure)

        return ImageAnswers(
            confidence,
            right(coded, self.sure_accuracy, self.accuracy) & ~np.isnan(confidence),
            right(exact, self.s_cnn_sure_accuracy, self.s_cnn_accuracy),
        )


@dataclass(frozen=True)
class MeasuredModels:
    """A shipped collage-cnn and its s-cnn, as they answered validation images.

    ``steps`` float64 ``[S, 5]``: for answers of neighbouring confidence their mean confidence (nan for empty cells),
    and how many there are of each of ``KINDS``.
    """

    steps: NDArray[np.float64]
    accept: float
    factor: float
    errors: Sequence[ErrorStep] = ()

    @classmethod
    def of(cls, rows: Sequence[Row], accept: float, factor: float, errors: Sequence[ErrorStep] = ()) -> MeasuredModels:
        """From rows that have a ``confidence``, None for empty cells, and a column for each of ``KINDS``."""
        steps = [[row[column] for column in ("confidence", *KINDS)] for row in rows]
        return cls(np.array(steps, np.float64), accept, factor, errors)  # None becomes nan

    def draw(self, count: int, seed: int) -> ImageAnswers:
        """Answers to ``count`` random images, as common as among the validation images."""
        counts = self.steps[:, 1:].ravel()
        cells = np.random.default_rng((seed, 2)).choice(len(counts), count, p=counts / counts.sum())
        step, kind = np.divmod(cells, 4)
        return ImageAnswers(self.steps[step, 0].astype(np.float32), kind <= 1, kind % 2 == 0)


@functools.cache
def measured_models(k: int, file: Path = CONFIDENCES) -> MeasuredModels:
    """The shipped models for a grid of ``k`` x ``k``; ValueError if they were not measured."""
    rows = [row for row in read_figures(file) if row["k"] == k]
    if not rows:
        raise ValueError(f"{file} has no models for a grid of {k} x {k}")
    return MeasuredModels.of(rows, float(rows[0]["accept"]), float(rows[0]["factor"]))


def measured_factor(name: str) -> float:
    """The latency of a collage-cnn as a share of its s-cnn's, of the stored evaluation; the usual one if not there."""
    found = (row for row in read_figures(ROOT / "docs" / "results" / "evaluate.json") if row.get("model") == name)
    return next((float(row["latency_ratio"]) for row in found if row["latency_ratio"]), COLLAGE_FACTOR)
