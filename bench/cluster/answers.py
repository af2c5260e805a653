"""What stand-ins answer: what the shipped models say of real images, answers that are drawn, or a parity model's."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from bench.cluster.local import COLLAGE, S_CNN
from bench.cluster.standins import SIDE, GroupAnswers, save_models, save_parities
from bench.offer import (
    ImageAnswers,
    KnownModels,
    Models,
    Sample,
    TypicalModels,
    load_samples,
    measured_models,
    random_groups,
    slug,
)
from bench.samples import measured_factor
from collage.model_info import ModelInfo, ModelKind
from encoder.code import GroupShape
from encoder.image import Pixels, decode
from models import data
from models.measure import OnnxModel
from worker.slowdown import COLLAGE_FACTOR

__all__ = ["AnswerSource", "Drawn", "Parities", "Prepared", "Shipped", "answer_source", "png"]

DRAWN_LABELS = tuple(f"class {i}" for i in range(10))


class Prepared(NamedTuple):
    """Groups of pictures to send, and the models' answers to them, in the same order."""

    groups: list[list[Sample]]
    models: KnownModels


class AnswerSource(Protocol):
    """Where the stand-ins' answers come from; ``version`` tells one such source from another.

    ``shape``: the groups of its code. ``slowdown_scale``: that of redundant workers, if others have 1.
    """

    version: str
    shape: GroupShape
    slowdown_scale: float

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write the stand-ins of the base model and of the redundant one; returns both files."""
        ...

    def prepare(self, groups: int, seed: int) -> Prepared:
        """Random groups of as many members as the code has."""
        ...


class _Collages:
    """Stand-ins of an s-cnn and a collage-cnn, which takes ``factor`` times as long."""

    def __init__(self, s_cnn: ModelInfo, collage: ModelInfo, factor: float) -> None:
        self.s_cnn, self.collage, self.factor = s_cnn, collage, factor
        self.shape = GroupShape.collage(collage.k**2)
        self.slowdown_scale = factor / COLLAGE_FACTOR  # which the worker knows of

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write both; returns the files."""
        return save_models(folder, self.s_cnn, self.collage)


def answer_source(drawn: int | None = None, folder: Path | None = None) -> AnswerSource:
    """Answers drawn for groups of ``drawn`` members, or those of the shipped models.

    These answer the images that ship, or the test images of the data set in ``folder``. Raises OSError, or ValueError
    for a folder that holds no data set.
    """
    if drawn:
        return Drawn(drawn, measured_models(round(drawn**0.5)))
    if folder is None:
        return Shipped(S_CNN, COLLAGE, load_samples())
    found = data.load(folder, 32)
    images = zip(found.test.ids, found.test.labels.tolist(), found.test.images, strict=True)
    samples = [Sample(name, slug(found.labels[label]), png(image)) for name, label, image in images]
    return Shipped(S_CNN, COLLAGE, samples)


class Shipped(_Collages):
    """The answers of trained models to real images."""

    def __init__(self, s_cnn: Path, collage: Path, samples: Sequence[Sample]) -> None:
        self._s_cnn, self._collage, self._samples = OnnxModel(s_cnn), OnnxModel(collage), samples
        super().__init__(self._s_cnn.info, self._collage.info, measured_factor(self._collage.info.name))
        if self.s_cnn.kind is not ModelKind.S_CNN or self.collage.kind is not ModelKind.COLLAGE_CNN:
            raise ValueError("expected an s-cnn and a collage-cnn")
        self.version = f"{self.s_cnn.version} {self.collage.version} {len(samples)} {self.factor:g}"

    def prepare(self, groups: int, seed: int) -> Prepared:
        """Random images, none again before all have come."""
        chosen = random_groups(self._samples, self.collage.k**2, groups, seed)
        said = list(self._answers(chosen))
        index = {slug(label): number for number, label in enumerate(self.s_cnn.labels)}
        truth = np.array([index[sample.label] for group in chosen for sample in group])
        s_cnn, found = (
            np.concatenate(column) for column in zip(*((one.s_cnn, one.collage) for one in said), strict=True)
        )
        confidence = np.where(found < 0, np.nan, np.concatenate([answer.confidence for answer in said]))
        images = ImageAnswers(confidence.astype(np.float32), found == truth, s_cnn == truth)
        painted = [
            [replace(sample, data=png(picture)) for sample, picture in zip(group, answer.pictures(), strict=True)]
            for group, answer in zip(chosen, said, strict=True)
        ]
        return Prepared(painted, KnownModels(images, self.collage.accept_threshold, factor=self.factor))

    def _answers(self, groups: Sequence[Sequence[Sample]]) -> Iterator[GroupAnswers]:
        """Run the models over groups as large as the collage's grid; the s-cnn once per image."""
        known: dict[str, tuple[Pixels, int]] = {}
        code = self._collage.code
        for group in groups:
            for sample in group:
                if sample.name not in known:
                    pixels = decode(sample.data, self.s_cnn.size)
                    known[sample.name] = pixels, int(self._s_cnn(pixels[None])[0].argmax())
            (picture,) = code.encode([known[sample.name][0] for sample in group])
            found = code.decode({}, {0: [output[0] for output in self._collage(picture[None])]}, range(len(group)))
            cells = [found.get(cell) for cell in range(len(group))]
            yield GroupAnswers(
                np.array([known[sample.name][1] for sample in group]),
                np.array([-1 if cell is None else int(cell.output.argmax()) for cell in cells]),
                np.array([0.0 if cell is None else cell.confidence for cell in cells]),
            )


class Drawn(_Collages):
    """Answers as of ``TypicalModels``, or of models that were measured on images that do not ship."""

    def __init__(self, members: int, model: Models | None = None) -> None:
        self._model: Models = model or TypicalModels()
        k = round(members**0.5)
        collage = ModelInfo.collage("drawn", DRAWN_LABELS, k * SIDE, k, accept_threshold=self._model.accept)
        super().__init__(ModelInfo.make("drawn", ModelKind.S_CNN, DRAWN_LABELS, SIDE), collage, self._model.factor)
        self.version = repr(self._model)

    def prepare(self, groups: int, seed: int) -> Prepared:
        """Random classes."""
        images = self._model.draw(groups * self.shape.members, seed)
        painted = _painted(images, self.shape.members, seed)
        return Prepared(painted, KnownModels(images, self._model.accept, factor=self.factor))


class Parities:
    """A base model and a parity model of ``members``, as slow as each other; whatever is decoded is the base's answer.

    Answers are right as often as ``accuracy`` says.
    """

    slowdown_scale = 1.0

    def __init__(self, members: int, accuracy: float = 0.92) -> None:
        self._accuracy = accuracy
        self.shape = GroupShape(members, 1, needed=members, fewest=members)
        self.version = f"parities of {members}, {accuracy:g}"

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write both; returns the files."""
        return save_parities(folder, DRAWN_LABELS, self.shape.members)

    def prepare(self, groups: int, seed: int) -> Prepared:
        """Random classes."""
        right = np.random.default_rng((seed, 2)).random(groups * self.shape.members) < self._accuracy
        images = ImageAnswers(np.ones(len(right), np.float32), right, right)
        return Prepared(_painted(images, self.shape.members, seed), KnownModels(images, accept=0.5, factor=1.0))


def _painted(images: ImageAnswers, members: int, seed: int) -> list[list[Sample]]:
    """Pictures of random classes that make the models answer so, ``members`` to a group."""
    count = len(images.confidence)
    truth = np.random.default_rng((seed, 3)).integers(len(DRAWN_LABELS), size=count)
    wrong = (truth + 1) % len(DRAWN_LABELS)
    said = GroupAnswers(
        s_cnn=np.where(images.s_cnn_right, truth, wrong),
        collage=np.where(np.isnan(images.confidence), -1, np.where(images.coded_right, truth, wrong)),
        confidence=np.nan_to_num(images.confidence).astype(np.float64),
    )
    samples = [
        Sample(str(i), f"class-{label}", png(picture))
        for i, (label, picture) in enumerate(zip(truth.tolist(), said.pictures(), strict=True))
    ]
    return [samples[first : first + members] for first in range(0, count, members)]


def png(picture: Pixels) -> bytes:
    """A picture, uint8 ``[height, width, 3]``, as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
