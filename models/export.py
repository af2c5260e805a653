"""Export a checkpoint to ONNX: ``python -m models.export CHECKPOINT --out FILE.onnx``.

The file is all that a worker needs: uint8 pixels in (normalisation is part of the graph), scores or detections out,
and a description in its metadata. Export fails unless ONNX Runtime gives what torch gives.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import Tensor, nn

from collage.model_info import ModelInfo, ModelKind
from encoder.tasks import TaskName
from models import checkpoint, coding, description
from models.checkpoint import ModelSpec, as_channels
from models.collage_cnn import CollageCNN, detections
from models.data import Split, load
from models.lineage import Lineage, of_checkpoint
from models.lost import CodeAtWork, degraded, metrics_of, outputs_of
from models.lost import accuracy as own_accuracy
from models.measure import OnnxModel, classify, classify_collages, top1

INPUT = {"s-cnn": "image", "parity": "image", "collage-cnn": "collage"}
DETECTIONS = ["boxes", "confidences", "class_probabilities"]
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3, "int8": 0.1}
"""How far an exported model may be from torch, by how its weights are stored; see ``difference``."""


class ExportError(Exception):
    """The exported model is not the trained one."""


class Served(nn.Module):
    """A model as it is served: uint8 ``[N, size, size, 3]`` in, the outputs of its description out.

    What the model of a stacked code takes has one such image for each member: ``[N, members, size, size, 3]``.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, spec: ModelSpec, model: nn.Module) -> None:
        super().__init__()
        self.spec, self.model = spec, model
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Logits ``[N, classes]`` of an s-cnn, boxes ``[N, 4]`` of a localiser, or the detections of a collage-cnn.

        Of a parity model what its base model gives, for every member if its code has heads: ``[N, members, classes]``.
        """
        raw: Tensor = self.model(as_channels(pixels.float() * self.scale + self.shift))
        if self.spec.code and self.spec.code.heads:
            return raw.reshape(-1, self.spec.code.members, self.spec.outputs)
        return detections(raw, self.model.k, self.model.anchors) if isinstance(self.model, CollageCNN) else raw


def to_onnx(served: Served) -> onnx.ModelProto:
    """The float32 graph, batch norm folded into convolutions, batch size free, nothing of this machine in it."""
    spec = served.spec
    example = torch.zeros(2, *spec.input_shape, dtype=torch.uint8)
    single = ["box" if spec.task == TaskName.LOCALISATION else "scores"]
    outputs = DETECTIONS if spec.kind == "collage-cnn" else single
    model = to_graph(served, example, INPUT[spec.kind], outputs, batched=True)
    convolved = {name for node in model.graph.node if node.op_type == "Conv" for name in node.output}
    if any(node.op_type == "BatchNormalization" and node.input[0] in convolved for node in model.graph.node):
        raise ExportError("batch norm is left behind a convolution")
    return model


def to_graph(
    network: nn.Module, example: Tensor, name: str, outputs: Sequence[str], *, batched: bool = False
) -> onnx.ModelProto:
    """The float32 graph of a network with one input, and nothing of this machine in it; ``batched``: of any length."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses a torchvision that is not needed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            input_names=[name],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("N")},) if batched else None,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch made no graph")
    model: onnx.ModelProto = program.model_proto
    graph = model.graph
    described: list[Any] = [*graph.node, *graph.input, *graph.output, graph, model]
    for entry in described:
        del entry.metadata_props[:]  # the exporter's source paths and stack traces
    del graph.value_info[:]
    return model


def store(model: onnx.ModelProto, storage: str) -> onnx.ModelProto:
    """A copy whose convolution and linear weights take 2 bytes (``fp16``) or 1 (``int8``) each, or 4 (``fp32``).

    int8 weights are symmetric with one scale per output channel. ONNX Runtime turns either back to float32 when it
    loads the model, so inference costs the same.
    """
    small = onnx.ModelProto()
    small.CopyFrom(model)
    graph = small.graph
    if storage == "fp32":
        return small
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    unpacking = []
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm") or node.input[1] not in tensors:
            continue
        tensor = tensors[node.input[1]]
        name, weight = tensor.name, numpy_helper.to_array(tensor)
        if storage == "fp16":
            tensor.CopyFrom(numpy_helper.from_array(weight.astype(np.float16), name))
            unpacking.append(helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT))
        else:
            axes = tuple(axis for axis in range(weight.ndim) if axis != _output_axis(node))
            scale = np.abs(weight).max(axes, keepdims=True) / 127
            scale[scale == 0] = 1
            tensor.CopyFrom(numpy_helper.from_array(np.rint(weight / scale).astype(np.int8), name))
            graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale"))
            unpacking += [
                helper.make_node("Cast", [name], [f"{name}_cast"], to=TensorProto.FLOAT),
                helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [f"{name}_float"]),
            ]
        node.input[1] = f"{name}_float"
    nodes = [*unpacking, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(small)
    return small


def _output_axis(node: onnx.NodeProto) -> int:
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if transposed else 1


def probes(size: int, count: int = 8) -> NDArray[np.uint8]:
    """Images to compare on, uint8 ``[count, size, size, 3]``: noise, and smooth blobs that look more like pictures."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (count // 2, size, size, 3), np.uint8)
    coarse = rng.integers(0, 256, (count - count // 2, 8, 8, 3), np.uint8)
    blobs = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in coarse]
    return np.concatenate((noise, np.stack(blobs)))


def difference(served: Served, exported: OnnxModel, pixels: NDArray[np.uint8]) -> float:
    """How far ONNX Runtime is from torch: root-mean-square error over root-mean-square value, of the worst output."""
    with torch.inference_mode():
        expected = served(torch.from_numpy(pixels))
    worst = 0.0
    outputs = expected if isinstance(expected, tuple) else (expected,)
    for output, found in zip(outputs, exported(pixels), strict=True):
        wanted = output.numpy()
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            raise ExportError(f"an output is {found.dtype}{found.shape}, torch's is {wanted.dtype}{wanted.shape}")
        error, value = (float(np.sqrt(np.square(array).mean())) for array in (found - wanted, wanted))
        worst = max(worst, error / max(value, 0.01)) if np.isfinite(found).all() else np.inf
    return worst


def check(served: Served, exported: OnnxModel, pixels: NDArray[np.uint8], storage: str) -> float:
    """The difference from torch, over all inputs at once or one by one; ExportError if it exceeds ``TOLERANCE``."""
    worst = max(difference(served, exported, pixels), difference(served, exported, pixels[-1:]))
    if not worst <= TOLERANCE[storage]:
        raise ExportError(f"ONNX Runtime and torch differ by {worst:.2g} ({storage}, allowed {TOLERANCE[storage]:.2g})")
    return worst


def accuracy(exported: OnnxModel, split: Split) -> float:
    """Top-1 on a split of an s-cnn, and of a collage-cnn over cells; of a localiser, intersection over union."""
    if exported.info.task == TaskName.LOCALISATION:
        return float(own_accuracy(outputs_of(exported, split), split, metrics_of(split))[0])
    single = exported.info.kind is ModelKind.S_CNN
    return top1(list(classify(exported, split) if single else classify_collages(exported, split, seed=0)))


def recovery(exported: OnnxModel, base: OnnxModel, split: Split) -> float:
    """Top-1 (or intersection over union) of what is decoded with a parity model on a split, every answer of a group
    being lost in turn.

    The model of one of several redundant inputs is measured as if it were the only one.
    """
    if exported.info.code is None:
        raise ExportError(f"{exported.info.name} belongs to no code")
    its = replace(exported.info.code, inputs=1, row=0)
    work = CodeAtWork(its.name, coding.built(its, exported.info.size), [exported], 1)
    metrics = metrics_of(split)
    return float(degraded(work, split, outputs_of(base, split), seed=0, metrics=metrics)[0, 0])


def describe(
    spec: ModelSpec, content: dict[str, Any], lineage: Lineage, name: str, storage: str, accept_threshold: float
) -> ModelInfo:
    """The description that travels with the model, from what its checkpoint says."""
    log = content["log"]
    extra = {
        "dataset": spec.dataset,
        "architecture": spec.architecture,
        "options": spec.options,
        "mean": spec.mean,
        "std": spec.std,
        "recipe": content["recipe"],
        "seed": content["recipe"]["seed"],
        "epochs": len(log),
        "training_s": round(sum(epoch["seconds"] for epoch in log), 1),
        "lineage": [asdict(stage) for stage in lineage],
        "validation_accuracy": log[-1]["validation"],
        "storage": storage,
    }
    about = (name, spec.kind, spec.labels, spec.size, spec.k, extra, accept_threshold, spec.code)
    return description.describe(*about, task=spec.task)


def pack(model: onnx.ModelProto, info: ModelInfo) -> bytes:
    """The content of the file: the graph and its description."""
    del model.metadata_props[:]
    helper.set_model_props(model, description.entry(info))
    return model.SerializeToString()


def export(
    source: Path,
    out: Path,
    storage: str = "fp32",
    name: str | None = None,
    accept_threshold: float = 1.0,
    data: Path | None = None,
    base: Path | None = None,
) -> ModelInfo:
    """Write the ONNX file of a checkpoint, proved equal to it; returns its description.

    With ``data`` the description's ``validation_accuracy`` is that of the exported file, and its ``accuracy_change``
    what the storage did to it. ``base`` is the exported base model of a parity model, from whose answers others are
    decoded: it is named in the description, and needed to measure the accuracy, see ``recovery``. Raises ExportError,
    and writes nothing, where ONNX Runtime and torch differ.
    """
    spec, trained, content = checkpoint.load(source)
    if spec.kind not in INPUT:
        raise ExportError(f"{source} holds the networks of a learned code: export them with models.learned_export")
    lineage = of_checkpoint(source.stem, content)
    its_base = OnnxModel(base) if base and spec.code else None
    if its_base and spec.code and not spec.code.heads:
        spec = replace(spec, code=replace(spec.code, base=its_base.info.version))
    info = describe(spec, content, lineage, name or out.stem, storage, accept_threshold)
    dataset = load(data, round(spec.size / spec.k)) if data else None
    if dataset and dataset.labels != spec.labels:
        raise ExportError(f"{data} has other classes than {source}")
    served = Served(spec, trained).eval()
    full = to_onnx(served)
    stored = store(full, storage)
    float32, exported = OnnxModel(pack(full, info)), OnnxModel(pack(stored, info))
    pixels = probes(spec.size)
    if spec.code and spec.code.stacked:
        pixels = np.stack([np.roll(pixels, place, 0) for place in range(spec.code.members)], 1)
    found = {"torch_difference_fp32": check(served, float32, pixels, "fp32")}
    found["torch_difference"] = check(served, exported, pixels, storage)
    if dataset and (its_base or not spec.code):
        after, before = (
            recovery(model, its_base, dataset.validation) if its_base else accuracy(model, dataset.validation)
            for model in (exported, float32)
        )
        found |= {"validation_accuracy": after, "accuracy_change": after - before}
    info = replace(info, extra={**info.extra, **found})
    out.parent.mkdir(parents=True, exist_ok=True)
    with checkpoint.written(out) as partial:
        partial.write_bytes(pack(stored, info))
    return info


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a file written by models.train")
    parser.add_argument("--out", type=Path, required=True, help="the .onnx file to write")
    parser.add_argument("--storage", choices=sorted(TOLERANCE), default="fp32", help="of the weights")
    parser.add_argument("--name", help="the model's name; the file's without one")
    parser.add_argument("--accept-threshold", type=float, default=1.0, help="coded answers this sure are accepted")
    parser.add_argument("--data", type=Path, help="data set: measure the accuracy on its validation split")
    parser.add_argument("--base", type=Path, help="exported base model of a parity model")
    args = parser.parse_args(arguments)
    try:
        info = export(args.checkpoint, args.out, args.storage, args.name, args.accept_threshold, args.data, args.base)
    except ExportError as error:
        raise SystemExit(f"not exported: {error}") from None
    print(f"{args.out}: {info.name}, {info.kind}, {args.out.stat().st_size / 1e6:.1f} MB")
    for key in ("torch_difference_fp32", "torch_difference", "validation_accuracy", "accuracy_change"):
        if key in info.extra:
            print(f"  {key.replace('_', ' ')}: {info.extra[key]:.4g}")


if __name__ == "__main__":
    main()
