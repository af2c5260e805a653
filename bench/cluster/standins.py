"""Instant stand-ins for trained models, which answer as these would: for timing many policies on few cores.

The real models' answers to an image are computed beforehand and painted into a tiny picture: red tells the s-cnn's
class, green the collage-cnn's, blue its confidence. The stand-ins read it off, in one process each, like any model.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, parser
from PIL import Image

from bench.cluster.local import COLLAGE, LOGS, S_CNN, Child, Cluster, ProcessError, busy_s
from bench.offer import (
    ImageAnswers,
    KnownModels,
    Models,
    Outage,
    Sample,
    TypicalModels,
    load_samples,
    measured_models,
    random_groups,
    slug,
)
from bench.samples import measured_factor
from collage.model_info import METADATA_KEY, ModelInfo, ModelKind
from encoder.image import Pixels, decode
from models import data
from models.measure import OnnxModel

__all__ = [
    "LABELS",
    "LOGS",
    "SIDE",
    "AnswerSource",
    "Drawn",
    "GroupAnswers",
    "Prepared",
    "Shipped",
    "StandIns",
    "answer_source",
    "failing",
    "png",
    "save_models",
]

LABELS = tuple("abcdefghij")  # of the stand-ins of no model in particular
SIDE = 8  # of a picture, pixels
_STEP = 5  # of brightness, between classes

_S_CNN = """
<ir_version: 9, opset_import: ["" : 17]>
s_cnn (uint8[N,{side},{side},3] image) => (float[N,{classes}] scores)
<int64[1] red = {{0}}, float[{classes}] codes = {{{codes}}}> {{
  pixels = Cast<to=1>(image)
  colour = ReduceMean<axes=[1,2], keepdims=0>(pixels)
  code = Gather<axis=1>(colour, red)
  distance = Sub(code, codes)
  squared = Mul(distance, distance)
  scores = Neg(squared)
}}
"""
_COLLAGE = """
<ir_version: 9, opset_import: ["" : 17]>
collage_cnn (uint8[N,{size},{size},3] collage) => (
  float[N,{cells},4] boxes, float[N,{cells}] confidences, float[N,{cells},{classes}] class_probabilities)
<int64[1] green = {{1}}, int64 blue = {{2}}, int64[3] flat = {{0, 3, -1}}, int64[2] box = {{{cells}, 4}},
 float white = {{255}}, float[{classes}] codes = {{{codes}}}, float[1,{cells},4] cells = {{{boxes}}}> {{
  pixels = Cast<to=1>(collage)
  planes = Transpose<perm=[0,3,1,2]>(pixels)
  pooled = AveragePool<kernel_shape=[{side},{side}], strides=[{side},{side}]>(planes)
  colours = Reshape(pooled, flat)
  code = Gather<axis=1>(colours, green)
  column = Transpose<perm=[0,2,1]>(code)
  distance = Sub(column, codes)
  squared = Mul(distance, distance)
  scores = Neg(squared)
  class_probabilities = Softmax<axis=2>(scores)
  level = Gather<axis=1>(colours, blue)
  confidences = Div(level, white)
  batch = Shape<start=0, end=1>(collage)
  extent = Concat<axis=0>(batch, box)
  boxes = Expand(cells, extent)
}}
"""


@dataclass(frozen=True)
class GroupAnswers:
    """Answers to the members of one group: class indices, -1 for an empty cell, and confidences."""

    s_cnn: NDArray[np.int64]
    collage: NDArray[np.int64]
    confidence: NDArray[np.float64]

    def pictures(self) -> list[Pixels]:
        """One picture per member, uint8 ``[8, 8, 3]``."""
        found = self.collage.clip(0)
        level = np.where(self.collage < 0, 0, (255 * self.confidence).round().clip(0, 255))
        colours = np.stack((_code(self.s_cnn), _code(found), level), -1).astype(np.uint8)
        return [np.tile(colour, (SIDE, SIDE, 1)) for colour in colours]


def _code(index: NDArray[np.int64]) -> NDArray[np.int64]:
    return _STEP * (index + 1)


def save_models(folder: Path, s_cnn: ModelInfo, collage: ModelInfo) -> tuple[Path, Path]:
    """Write the stand-ins of two models, with their labels, grid and thresholds; returns both files."""
    classes, k = len(s_cnn.labels), collage.k
    if _STEP * (classes + 1) > 255:
        raise ValueError(f"a picture tells at most {255 // _STEP - 1} classes apart, got {classes}")
    edges = [i / k for i in range(k + 1)]
    boxes = [(edges[x], edges[y], edges[x + 1], edges[y + 1]) for y in range(k) for x in range(k)]
    about = {
        **{"side": SIDE, "size": k * SIDE, "cells": k * k, "classes": classes},
        "codes": ", ".join(str(float(_STEP * (i + 1))) for i in range(classes)),
        "boxes": ", ".join(f"{edge:.6f}" for box in boxes for edge in box),
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for text, info, size in ((_S_CNN, s_cnn, SIDE), (_COLLAGE, collage, k * SIDE)):
        model = parser.parse_model(text.format(**about))
        name = f"{info.name}-stand-in"
        if info.kind is ModelKind.S_CNN:
            described = ModelInfo.make(name, info.kind, info.labels, size)
        else:
            described = ModelInfo.collage(
                name, info.labels, size, k, info.detection_threshold, accept_threshold=info.accept_threshold
            )
        helper.set_model_props(model, {METADATA_KEY: described.to_json()})
        onnx.checker.check_model(model)
        files.append(folder / f"{info.kind}.onnx")
        onnx.save(model, files[-1])
    return files[0], files[1]


class StandIns(Cluster):
    """A cluster whose workers run stand-ins."""

    @classmethod
    def instant(
        cls,
        folder: Path,
        s_cnn_workers: int,
        *,
        worker_flags: Sequence[str] = (),
        frontend_flags: Sequence[str] = (),
        logs: Path = LOGS,
    ) -> Self:
        """Stand-ins of no model in particular, with ``LABELS`` and a 2 x 2 grid; ``folder`` takes their files."""
        s_cnn = ModelInfo.make("instant", ModelKind.S_CNN, LABELS, SIDE)
        models = save_models(folder, s_cnn, ModelInfo.collage("instant", LABELS, 2 * SIDE, 2))
        return cls(
            *models, s_cnn_workers=s_cnn_workers, worker_flags=worker_flags, frontend_flags=frontend_flags, logs=logs
        )


@asynccontextmanager
async def failing(workers: Sequence[Child], outages: Iterable[Outage]) -> AsyncIterator[list[float]]:
    """Kill or freeze workers at the times of their outages, in seconds from now. At the end all of them run again.

    A worker that is still starting when its next outage comes is spared. The value is a list of busy seconds: those
    that killed workers had counted, and forgot. Raises ProcessError if one does not start again.
    """
    lost_s: list[float] = []
    out: set[int] = set()
    down: set[int] = set()  # of the workers that are out: those that were killed
    clock = asyncio.get_running_loop().time
    start = clock()

    async def fail(outage: Outage) -> None:
        worker = workers[outage.index]
        if outage.frozen:
            worker.freeze()
        else:
            lost_s.append(await busy_s([worker]))
            down.add(outage.index)
            await worker.kill()
        await asyncio.sleep(max(0.0, start + outage.until - clock()))
        if outage.frozen:
            worker.resume()
        else:
            await worker.start()
            down.discard(outage.index)
        out.discard(outage.index)

    async def follow() -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for outage in outages:
                    await asyncio.sleep(max(0.0, start + outage.at - clock()))
                    if outage.index not in out:
                        out.add(outage.index)
                        tasks.create_task(fail(outage))
        except* ProcessError as failures:
            raise failures.exceptions[0] from None

    following = asyncio.create_task(follow())
    try:
        yield lost_s
    finally:
        following.cancel()
        await asyncio.wait([following])
        for worker in workers:
            worker.resume()
        for index in down:
            await workers[index].kill()  # it may be about to end, or half started
            await workers[index].start()
    if not following.cancelled() and (error := following.exception()):
        raise error


class Prepared(NamedTuple):
    """Groups of pictures to send, and the models' answers to them, in the same order."""

    groups: list[list[Sample]]
    models: KnownModels


class AnswerSource(Protocol):
    """Where the stand-ins' answers come from; ``version`` tells one such source from another.

    The collage-cnn takes ``factor`` times as long as the s-cnn.
    """

    version: str
    factor: float
    s_cnn: ModelInfo
    collage: ModelInfo

    def prepare(self, groups: int, seed: int) -> Prepared:
        """Random groups of as many members as the collage has cells."""
        ...


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


class Shipped:
    """The answers of trained models to real images."""

    def __init__(self, s_cnn: Path, collage: Path, samples: Sequence[Sample]) -> None:
        self._s_cnn, self._collage, self._samples = OnnxModel(s_cnn), OnnxModel(collage), samples
        self.s_cnn, self.collage = self._s_cnn.info, self._collage.info
        if self.s_cnn.kind is not ModelKind.S_CNN or self.collage.kind is not ModelKind.COLLAGE_CNN:
            raise ValueError("expected an s-cnn and a collage-cnn")
        self.factor = measured_factor(self.collage.name)
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


class Drawn:
    """Answers as of ``TypicalModels``, or of models that were measured on images that do not ship."""

    def __init__(self, members: int, model: Models | None = None) -> None:
        self._model: Models = model or TypicalModels()
        self.factor = self._model.factor
        labels = tuple(f"class {i}" for i in range(10))
        self.s_cnn = ModelInfo.make("drawn", ModelKind.S_CNN, labels, SIDE)
        k = round(members**0.5)
        self.collage = ModelInfo.collage("drawn", labels, k * SIDE, k, accept_threshold=self._model.accept)
        self.version = repr(self._model)

    def prepare(self, groups: int, seed: int) -> Prepared:
        """Random classes."""
        classes, members = len(self.s_cnn.labels), self.collage.k**2
        images = self._model.draw(groups * members, seed)
        truth = np.random.default_rng((seed, 3)).integers(classes, size=groups * members)
        wrong = (truth + 1) % classes
        empty = np.isnan(images.confidence)
        said = GroupAnswers(
            s_cnn=np.where(images.s_cnn_right, truth, wrong),
            collage=np.where(empty, -1, np.where(images.coded_right, truth, wrong)),
            confidence=np.nan_to_num(images.confidence).astype(np.float64),
        )
        samples = [
            Sample(str(i), f"class-{label}", png(picture))
            for i, (label, picture) in enumerate(zip(truth.tolist(), said.pictures(), strict=True))
        ]
        split = [samples[first : first + members] for first in range(0, len(samples), members)]
        return Prepared(split, KnownModels(images, self._model.accept, factor=self.factor))


def png(picture: Pixels) -> bytes:
    """A picture, uint8 ``[height, width, 3]``, as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
