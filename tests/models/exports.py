"""Small models as after training, and their graphs, each exported once for all tests: an export takes seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import onnx
import torch
from torch import nn

from models.checkpoint import ModelSpec
from models.export import Served, describe, pack, store, to_onnx
from models.lineage import of_checkpoint

SPECS = {
    "s-cnn": ModelSpec("resnet32", "pets", ("cat", "dog", "owl"), 16, 1, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)),
    "collage-resnet": ModelSpec(
        "collage-resnet", "pets", ("cat", "dog"), 48, 3, (0.5,) * 3, (0.25,) * 3, {"widths": [8, 16, 16]}
    ),
    "collage-vgg": ModelSpec(
        "collage-vgg", "pets", ("cat", "dog"), 48, 3, (0.5,) * 3, (0.25,) * 3, {"widths": [8, 16, 16]}
    ),
    "collage-tiny": ModelSpec("collage-tiny", "pets", ("cat", "dog"), 64, 2, (0.5,) * 3, (0.25,) * 3),
    "collage-yolo": ModelSpec("collage-yolo", "pets", ("cat", "dog"), 64, 2, (0.5,) * 3, (0.25,) * 3, {"pools": 3}),
}
RECIPE = {"seed": 5, "epochs": 2.0}
LOG = [{"loss": 2.0, "validation": 0.5, "seconds": 1.25}, {"loss": 1.0, "validation": 0.75, "seconds": 1.5}]


def trained(spec: ModelSpec) -> nn.Module:
    """A model whose weights and running statistics are its own, as after training."""
    torch.manual_seed(0)
    model = spec.build()
    for name, weight in model.named_parameters():
        if "embedding" in name or name == "head.weight":
            nn.init.normal_(weight, 0, 0.2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = 1.0
    model(torch.randn(8, 3, spec.size, spec.size))
    return model.eval()


@cache
def graph(name: str) -> tuple[Served, onnx.ModelProto]:
    """One of ``SPECS`` as it is served, and its float32 graph; to be read only."""
    served = Served(SPECS[name], trained(SPECS[name])).eval()
    return served, to_onnx(served)


def write(name: str, file: Path, storage: str = "fp32") -> Path:
    """Write the files that ``export`` writes for one of ``SPECS``, without its proof."""
    content = {"spec": {"architecture": SPECS[name].architecture}, "recipe": RECIPE, "log": LOG}
    info = describe(SPECS[name], content, of_checkpoint(file.stem, content), file.stem, storage, 1.0)
    file.write_bytes(pack(store(graph(name)[1], storage), info))
    return file
