"""Instant stand-ins for trained models, which answer as these would: for timing many policies on few cores.

The real models' answers to an image are computed beforehand and painted into a tiny picture: red tells the s-cnn's
class, green the collage-cnn's, blue its confidence. The stand-ins read it off, in one process each, like any model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, parser

from bench.cluster.local import LOGS, Child, Cluster, ProcessError, busy_s
from bench.offer import Outage
from collage.model_info import METADATA_KEY, ModelInfo, ModelKind
from collage.specs import CodeInfo
from encoder.image import Pixels

__all__ = ["LABELS", "LOGS", "SIDE", "GroupAnswers", "StandIns", "failing", "save_models", "save_parities"]

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
_LINEAR = """
<ir_version: 9, opset_import: ["" : 17]>
linear (uint8[N,{side},{side},3] image) => (float[N,{classes}] scores)
<int64[1] red = {{0}}, float[{classes}] codes = {{{codes}}}, float half = {{0.5}}> {{
  pixels = Cast<to=1>(image)
  colour = ReduceMean<axes=[1,2], keepdims=0>(pixels)
  code = Gather<axis=1>(colour, red)
  reach = Mul(half, codes)
  distance = Sub(code, reach)
  scores = Mul(distance, codes)
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
    k = collage.k
    edges = [i / k for i in range(k + 1)]
    boxes = [(edges[x], edges[y], edges[x + 1], edges[y + 1]) for y in range(k) for x in range(k)]
    cells = {"size": k * SIDE, "cells": k * k, "boxes": ", ".join(f"{edge:.6f}" for box in boxes for edge in box)}
    base = ModelInfo.make(f"{s_cnn.name}-stand-in", ModelKind.S_CNN, s_cnn.labels, SIDE)
    redundant = ModelInfo.collage(
        *(f"{collage.name}-stand-in", collage.labels, k * SIDE, k, collage.detection_threshold),
        accept_threshold=collage.accept_threshold,
    )
    return _save(folder, _S_CNN, base, **cells), _save(folder, _COLLAGE, redundant, **cells)


def save_parities(folder: Path, labels: Sequence[str], members: int) -> tuple[Path, Path]:
    """Write the stand-in of an s-cnn whose scores are linear in the pixels, and the same as its parity model."""
    base = ModelInfo.make("linear-stand-in", ModelKind.S_CNN, labels, SIDE)
    code = CodeInfo("linear", members, weights=(1 / members,) * members)
    parity = ModelInfo.make("parity-stand-in", ModelKind.PARITY, labels, SIDE, code=code)
    return _save(folder, _LINEAR, base), _save(folder, _LINEAR, parity)


def _save(folder: Path, text: str, info: ModelInfo, **about: object) -> Path:
    classes = len(info.labels)
    if _STEP * (classes + 1) > 255:
        raise ValueError(f"a picture tells at most {255 // _STEP - 1} classes apart, got {classes}")
    codes = ", ".join(str(float(_STEP * (i + 1))) for i in range(classes))
    model = parser.parse_model(text.format(side=SIDE, classes=classes, codes=codes, **about))
    helper.set_model_props(model, {METADATA_KEY: info.to_json()})
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, file := folder / f"{info.kind}.onnx")
    return file


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
