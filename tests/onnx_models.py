"""Tiny ONNX models for tests: instant, or slow on purpose.

Most tell colours apart: the score of class i is the mean of channel i modulo 3, so a red image is class 0 of
``COLOURS``. Grey means nothing: a collage's grey cells have confidence 0. The linear ones are exact in float32, so that
a linear code over them decodes exactly.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, save

from collage.model_info import CLASSIFICATION, LOCALISATION, METADATA_KEY, CodeInfo, ModelInfo, ModelKind
from encoder.heads import ConcatenationCode

COLOURS = ("red", "green", "blue")
ENDLESS = 100_000_000
"""Iterations of a loop that takes many minutes."""

LINEAR_STEP = 2.0**-10
"""All weights of a linear model are whole multiples of this: so is every score, and none needs more than 24 bits."""

_FLOAT, _UINT8, _INT64 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT64


def solid(colour: str, size: int) -> NDArray[np.uint8]:
    """An image of one colour, uint8 ``[size, size, 3]``."""
    image = np.zeros((size, size, 3), np.uint8)
    image[:, :, COLOURS.index(colour)] = 255
    return image


def save_s_cnn(path: Path, *, size: int = 8, labels: tuple[str, ...] = COLOURS, loops: int = 0, **info: Any) -> Path:
    """An s-cnn that describes itself; every iteration of ``loops`` costs about 10 microseconds."""
    nodes = [
        *_slow(loops),
        helper.make_node("Cast", ["image"], ["pixels"], to=_FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("Div", ["means", "white"], ["shares"]),
        helper.make_node("Gather", ["shares", "channels"], ["chosen"], axis=1),
        helper.make_node("Add", ["chosen", "zero"], ["scores"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "white": np.array(255, np.float32),
        "channels": np.arange(len(labels)) % 3,
    }
    model = _model(
        nodes,
        [helper.make_tensor_value_info("image", _UINT8, ["N", size, size, 3])],
        [helper.make_tensor_value_info("scores", _FLOAT, ["N", len(labels)])],
        constants,
    )
    return save_described(path, model, **{"name": "colours", "labels": labels, "size": size, **info})


def save_collage_cnn(path: Path, *, k: int = 2, cell: int = 4, loops: int = 0, **info: Any) -> Path:
    """A collage-cnn over ``k`` x ``k`` cells of ``cell`` pixels: one detection per cell, in order, of its colour."""
    size, cells = k * cell, k * k
    edges = np.arange(k + 1, dtype=np.float32) / k
    boxes = [[edges[x], edges[y], edges[x + 1], edges[y + 1]] for y in range(k) for x in range(k)]
    nodes = [
        *_slow(loops),
        helper.make_node("Cast", ["collage"], ["pixels"], to=_FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=[cell, cell], strides=[cell, cell]),
        helper.make_node("Reshape", ["pooled", "flat"], ["flattened"]),
        helper.make_node("Transpose", ["flattened"], ["colours"], perm=[0, 2, 1]),
        helper.make_node("Div", ["colours", "tenth"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["class_probabilities"], axis=2),
        helper.make_node("ReduceMax", ["colours"], ["most"], axes=[2], keepdims=0),
        helper.make_node("ReduceMin", ["colours"], ["least"], axes=[2], keepdims=0),
        helper.make_node("Sub", ["most", "least"], ["saturation"]),
        helper.make_node("Div", ["saturation", "white"], ["shares"]),
        helper.make_node("Add", ["shares", "zero"], ["confidences"]),
        helper.make_node("Shape", ["collage"], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "box"], ["extent"], axis=0),
        helper.make_node("Expand", ["cells", "extent"], ["boxes"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "white": np.array(255, np.float32),
        "tenth": np.array(25.5, np.float32),
        "flat": np.array([0, 3, cells]),
        "box": np.array([cells, 4]),
        "cells": np.array([boxes], np.float32),
    }
    model = _model(
        nodes,
        [helper.make_tensor_value_info("collage", _UINT8, ["N", size, size, 3])],
        [
            helper.make_tensor_value_info("boxes", _FLOAT, ["N", cells, 4]),
            helper.make_tensor_value_info("confidences", _FLOAT, ["N", cells]),
            helper.make_tensor_value_info("class_probabilities", _FLOAT, ["N", cells, 3]),
        ],
        constants,
    )
    described = {"name": "colour-collages", "kind": ModelKind.COLLAGE_CNN, "labels": COLOURS, "size": size, "k": k}
    return save_described(path, model, **{**described, **info})


def save_plain(path: Path, *, size: int = 8, softmax: bool = False, sidecar: dict[str, Any] | None = None) -> Path:
    """A stranger's classifier, float32 NCHW without metadata: means of its (normalised) channels, or their softmax."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["y"]),
    ]
    if softmax:
        nodes[-1] = helper.make_node("Flatten", ["pooled"], ["logits"])
        nodes.append(helper.make_node("Softmax", ["logits"], ["y"], axis=1))
    model = _model(
        nodes,
        [helper.make_tensor_value_info("x", _FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("y", _FLOAT, [1, 3])],
        {},
    )
    save(model, path)
    if sidecar is not None:
        path.with_name(path.name + ".json").write_text(json.dumps(sidecar))
    return path


def save_fragile(path: Path, *, size: int = 8, scores: tuple[tuple[float, ...], ...] = ((0.0,) * 3,)) -> Path:
    """An s-cnn whose scores an image's first byte chooses; it fails where there are no ``scores`` for it."""
    nodes = [
        helper.make_node("Reshape", ["image", "flat"], ["bytes"]),
        helper.make_node("Gather", ["bytes", "first"], ["byte"], axis=1),
        helper.make_node("Cast", ["byte"], ["index"], to=_INT64),
        helper.make_node("Gather", ["rows", "index"], ["scores"], axis=0),
    ]
    constants: dict[str, NDArray[Any]] = {
        "flat": np.array([1, -1]),
        "first": np.array(0),
        "rows": np.array(scores, np.float32),
    }
    model = _model(
        nodes,
        [helper.make_tensor_value_info("image", _UINT8, ["N", size, size, 3])],
        [helper.make_tensor_value_info("scores", _FLOAT, ["N", 3])],
        constants,
    )
    return save_described(path, model, name="fragile", labels=COLOURS, size=size)


def linear_weights(size: int, outputs: int) -> NDArray[np.float32]:
    """The weights of a linear model, float32 ``[size * size * 3, outputs]``."""
    whole = np.random.default_rng(size).integers(-3, 4, (size * size * 3, outputs))
    return (whole * LINEAR_STEP).astype(np.float32)


def linear_outputs(image: NDArray[np.uint8], outputs: int = len(COLOURS)) -> NDArray[np.float32]:
    """Exactly what a linear model says of an image, float32 ``[outputs]``."""
    exact = image.astype(np.float64).ravel() @ linear_weights(len(image), outputs).astype(np.float64)
    return exact.astype(np.float32)


def save_linear(
    path: Path,
    *,
    size: int = 8,
    labels: tuple[str, ...] = COLOURS,
    kind: ModelKind = ModelKind.S_CNN,
    task: str = CLASSIFICATION,
    loops: int = 0,
    **info: Any,
) -> Path:
    """One matrix times the pixels, for sizes up to 64: an s-cnn, a localiser, or with a ``code`` a parity model."""
    labels = labels if task == CLASSIFICATION else ()
    output, count = ("box", 4) if task == LOCALISATION else ("scores", len(labels))
    nodes = [
        *_slow(loops),
        helper.make_node("Cast", ["image"], ["pixels"], to=_FLOAT),
        helper.make_node("Reshape", ["pixels", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["products"]),
        helper.make_node("Add", ["products", "zero"], [output]),
    ]
    model = _model(
        nodes,
        [helper.make_tensor_value_info("image", _UINT8, ["N", size, size, 3])],
        [helper.make_tensor_value_info(output, _FLOAT, ["N", count])],
        {"flat": np.array([0, -1]), "weights": linear_weights(size, count)},
    )
    described = {"name": "linear", "labels": labels, "size": size, "kind": kind, "task": task}
    return save_described(path, model, **{**described, **info})


def save_parity(
    path: Path, *, weights: tuple[float, ...] = (0.5, 0.5), inputs: int = 1, row: int = 0, base: str = "", **info: Any
) -> Path:
    """The linear model as the parity model of redundant input ``row``, whose members weigh ``weights``."""
    code = CodeInfo("linear", len(weights), inputs, row, weights=weights, base=base)
    return save_linear(path, **{"name": "linear-parity", "kind": ModelKind.PARITY, "code": code, **info})


def save_heads(path: Path, *, code: str = "stacked", members: int = 2, size: int = 8, **info: Any) -> Path:
    """The linear model for every member, of images that are stacked or, in halves of one picture, concatenated.

    Of the latter it is exact for images whose rows come in pairs that are alike.
    """
    stacked = code == "stacked"
    weights = linear_weights(size, len(COLOURS)).reshape(size, size, 3, -1)
    if not stacked:
        places = ConcatenationCode(members)
        assert places.columns == 1
        spread = np.zeros((size, size, 3, members, len(COLOURS)), np.float32)
        for place in range(members):
            _, top, _, bottom = places.box(place, size)
            spread[top:bottom, :, :, place] = weights.reshape(bottom - top, members, size, 3, -1).sum(1)
        weights = spread
    image = [members, size, size, 3] if stacked else [size, size, 3]
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=_FLOAT),
        helper.make_node("Reshape", ["pixels", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weights"], ["products"]),
        helper.make_node("Reshape", ["products", "heads"], ["scores"]),
    ]
    model = _model(
        nodes,
        [helper.make_tensor_value_info("image", _UINT8, ["N", *image])],
        [helper.make_tensor_value_info("scores", _FLOAT, ["N", members, len(COLOURS)])],
        {
            "flat": np.array([0, members, -1] if stacked else [0, -1]),
            "weights": weights.reshape(size * size * 3, -1),
            "heads": np.array([0, members, len(COLOURS)]),
        },
    )
    described = CodeInfo(code, members, heads=True, stacked=stacked)
    usual = {"name": code, "kind": ModelKind.PARITY, "labels": COLOURS, "size": size, "code": described}
    return save_described(path, model, **{**usual, **info})


def save_described(path: Path, model: ModelProto, *, kind: ModelKind = ModelKind.S_CNN, **info: Any) -> Path:
    """Save with a description in the metadata."""
    described = ModelInfo.collage(**info) if kind is ModelKind.COLLAGE_CNN else ModelInfo.make(kind=kind, **info)
    helper.set_model_props(model, {METADATA_KEY: described.to_json()})
    save(model, path)
    return path


def _model(
    nodes: list[NodeProto],
    inputs: list[ValueInfoProto],
    outputs: list[ValueInfoProto],
    constants: dict[str, NDArray[Any]],
) -> ModelProto:
    if not any(output == "zero" for node in nodes for output in node.output):
        constants = {**constants, "zero": np.array(0, np.float32)}
    if any(node.op_type == "Loop" for node in nodes):
        constants = {**constants, "eye": np.eye(64, dtype=np.float32)}
    used = {name for node in nodes for name in node.input} | {"eye"}
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used]
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _slow(loops: int) -> list[NodeProto]:
    """Nodes that make a scalar ``zero`` the slow way; none for 0 loops."""
    if not loops:
        return []
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "eye"], ["product"]),
            helper.make_node("Tanh", ["product"], ["after"]),
            helper.make_node("Identity", ["going"], ["go_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("iteration", _INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", _FLOAT, [64, 64]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", _FLOAT, [64, 64]),
        ],
    )
    trips = numpy_helper.from_array(np.array(loops), "")
    nothing = numpy_helper.from_array(np.zeros((64, 64), np.float32), "")
    return [
        helper.make_node("Constant", [], ["trips"], value=trips),
        helper.make_node("Constant", [], ["start"], value=nothing),
        helper.make_node("Loop", ["trips", "", "start"], ["end"], body=body),
        helper.make_node("ReduceMax", ["end"], ["zero"], keepdims=0),
    ]
