"""Instant stand-ins for trained models, which answer as these would: for timing many policies on few cores.

What the real models say of an image is worked out beforehand and painted into a tiny picture: red tells the s-cnn's
class, green the collage-cnn's, blue its confidence. The stand-ins read it off, in one process each, like any model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, parser

from bench.offer.load import Sample, slug
from collage.model_info import METADATA_KEY, ModelInfo, ModelKind
from encoder.image import Pixels, decode
from models.measure import OnnxModel

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
class Answers:
    """What the real models say of the members of one group: class indices, -1 for an empty cell, and confidences."""

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


def answers(s_cnn: OnnxModel, collage: OnnxModel, groups: Sequence[Sequence[Sample]]) -> Iterator[Answers]:
    """Run the real models over groups of labelled images, each as large as the collage's grid."""
    if s_cnn.info.kind is not ModelKind.S_CNN or collage.info.kind is not ModelKind.COLLAGE_CNN:
        raise ValueError("expected an s-cnn and a collage-cnn")
    known: dict[str, tuple[Pixels, int]] = {}
    code = collage.code
    for group in groups:
        for sample in group:
            if sample.name not in known:
                pixels = decode(sample.data, s_cnn.info.size)
                known[sample.name] = pixels, int(s_cnn(pixels[None])[0].argmax())
        (picture,) = code.encode([known[sample.name][0] for sample in group])
        found = code.decode({}, {0: [output[0] for output in collage(picture[None])]}, range(len(group)))
        cells = [found.get(cell) for cell in range(len(group))]
        yield Answers(
            np.array([known[sample.name][1] for sample in group]),
            np.array([-1 if cell is None else int(cell.output.argmax()) for cell in cells]),
            np.array([0.0 if cell is None else cell.confidence for cell in cells]),
        )


def stand_in_groups(
    groups: Sequence[Sequence[Sample]], said: Sequence[Answers], labels: Sequence[str]
) -> tuple[list[list[Pixels]], NDArray[np.bool_]]:
    """Pictures to send in place of the images, and whether the s-cnn is right of each, bool ``[requests]``."""
    available = np.concatenate([answer.s_cnn for answer in said]) == truth(groups, labels)
    return [answer.pictures() for answer in said], available


def truth(groups: Sequence[Sequence[Sample]], labels: Sequence[str]) -> NDArray[np.int64]:
    """The class of every image, an index into ``labels``, int64 ``[requests]``."""
    index = {slug(label): number for number, label in enumerate(labels)}
    return np.array([index[sample.label] for group in groups for sample in group])
