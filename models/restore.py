"""Exported models back into torch, to teach others or to be trained further: what ``models.export`` did, undone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from collage.model_info import ModelInfo, ModelKind
from models import description
from models.checkpoint import ModelSpec, as_channels

EXPORTED = ".onnx"
EPSILON = nn.BatchNorm2d(1).eps
SERVED = "model."
"""What names of weights begin with in exported files: the network's place in ``models.export.Served``."""


def restore(path: Path) -> tuple[ModelSpec, nn.Module]:
    """The network of a file that ``models.export`` wrote, in evaluation mode; its weights are as exact as the file's.

    Batch norm that the export folded into a convolution adds that convolution's bias and does nothing else: to train
    further, ``anchor`` it. Raises ValueError for a file of another origin.
    """
    file = onnx.load(path)
    info = _info(file, path)
    try:
        about = {name: info.extra[name] for name in ("architecture", "dataset", "mean", "std", "options")}
    except KeyError as missing:
        raise ValueError(f"{path} was not exported from a checkpoint of ours: it does not tell its {missing}") from None
    code = info.code if info.kind is ModelKind.PARITY else None
    spec = ModelSpec(labels=info.labels, size=info.size, k=info.k, code=code, **about)
    spec = replace(spec, mean=tuple(spec.mean), std=tuple(spec.std))
    stored = {tensor.name.removeprefix(SERVED): tensor for tensor in file.graph.initializer}

    def read(name: str) -> Tensor:
        if name not in stored:
            raise ValueError(f"{path} holds no {name}")
        value = torch.from_numpy(numpy_helper.to_array(stored[name]).astype(np.float32))
        return value * read(f"{name}_scale") if f"{name}_scale" in stored else value

    model = spec.build().eval()
    folded = _folded(model, as_channels(torch.zeros(1, *spec.input_shape)))
    fixed = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    identity = {"weight": torch.ones(()), "running_mean": torch.zeros(()), "running_var": torch.tensor(1 - EPSILON)}
    for name, value in model.state_dict().items():
        module, _, parameter = name.rpartition(".")
        if parameter == "num_batches_tracked":
            continue
        if name in fixed and name not in stored and module not in folded:
            continue  # never trained, and all ones: the export stores equal ones once, under the name of the first
        if name in stored or module not in folded:
            value.copy_(read(name).view_as(value))
        else:
            value.copy_(identity[parameter] if parameter in identity else read(f"{folded[module]}.weight_bias"))
    return spec, model


def described(path: Path) -> ModelInfo:
    """What an exported file says of itself; ValueError if it says nothing."""
    return _info(onnx.load(path), path)


def _info(file: onnx.ModelProto, path: Path) -> ModelInfo:
    return description.read({entry.key: entry.value for entry in file.metadata_props}, path)


@torch.no_grad()
def _folded(model: nn.Module, x: Tensor) -> dict[str, str]:
    """Batch norms directly behind a convolution, and the names of these; ``x`` is an input of the model."""
    made: list[tuple[Tensor, str]] = []
    found: dict[str, str] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(lambda _, __, out, name=name: made.append((out, name))))
        elif isinstance(module, nn.BatchNorm2d):

            def look(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                found.update((name, maker) for out, maker in made if out is inputs[0])

            hooks.append(module.register_forward_pre_hook(look))
    model(x)
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
def anchor(model: nn.Module, x: Tensor) -> None:
    """Give every batch norm the statistics of a batch, and weights with which it still computes what it did.

    From then on training mode, which normalises by a batch's own statistics, starts where evaluation mode is. ``x`` is
    the model's input, normalised, of some hundred images.
    """

    def adapt(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        weight, bias = norm.get_parameter("weight"), norm.get_parameter("bias")
        old_mean, old_var = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        var, mean = torch.var_mean(inputs[0].float(), (0, 2, 3), correction=0)
        scale = weight / (old_var + EPSILON).sqrt()
        bias.add_(scale * (mean - old_mean))
        weight.copy_(scale * (var + EPSILON).sqrt())
        old_mean.copy_(mean)
        old_var.copy_(var)

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(adapt) for norm in norms]
    model.eval()(x)
    for hook in hooks:
        hook.remove()
