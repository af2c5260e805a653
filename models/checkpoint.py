"""Self-describing checkpoints: a file from which the model can be rebuilt and trained further, alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.collage_cnn import CollageResNet, CollageTiny, CollageVGG, CollageYolo
from models.data import in_words
from models.mobilenet import MobileNetV2
from models.resnet import resnet18, resnet32, resnet34
from models.wide import WideNet

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet32": resnet32,
    "mobilenetv2": MobileNetV2,
    "wide": WideNet,
    "collage-tiny": CollageTiny,
    "collage-yolo": CollageYolo,
    "collage-resnet": CollageResNet,
    "collage-vgg": CollageVGG,
}


@dataclass(frozen=True)
class ModelSpec:
    """All that is needed to rebuild a model and to serve it.

    ``size`` is the input's side in pixels (a collage's whole side), ``k`` the grid (1 for an s-cnn), ``mean`` and
    ``std`` the per-channel statistics of inputs scaled to 0..1.
    """

    architecture: str
    dataset: str
    labels: tuple[str, ...]
    size: int
    k: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", in_words(self.labels))  # older files have the folders' names

    @property
    def kind(self) -> str:
        """``"s-cnn"`` or ``"collage-cnn"``."""
        return "collage-cnn" if self.architecture.startswith("collage") else "s-cnn"

    @property
    def image_size(self) -> int:
        """The side of the images it is shown, of the largest cell of a collage; pixels."""
        return -(-self.size // self.k)

    def build(self) -> nn.Module:
        """A freshly initialised model of this description."""
        make = ARCHITECTURES[self.architecture]
        if self.kind == "s-cnn":
            return make(len(self.labels), **self.options)
        return make(self.k, self.size, len(self.labels), **self.options)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 ``[B, H, W, 3]`` to the model's float32 ``[B, 3, H, W]``, channels last in memory."""
        mean = torch.tensor(self.mean, device=pixels.device)
        std = torch.tensor(self.std, device=pixels.device)
        return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)

    @torch.no_grad()
    def ask(self, model: nn.Module, pixels: Tensor, bfloat16: bool) -> Tensor:
        """The raw float32 output of such a model for inputs uint8 ``[B, size, size, 3]``, which are where it is."""
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bfloat16):
            out: Tensor = model(self.normalise(pixels))
        return out.float()


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Where to write what becomes ``path`` if all went well: a crash never leaves half a file there."""
    partial = path.with_name(f"{path.name}.partial")
    yield partial
    partial.replace(path)


def save(path: Path, spec: ModelSpec, model: nn.Module, **extra: Any) -> None:
    """Write a checkpoint, whole or not at all."""
    with written(path) as partial:
        torch.save({"spec": asdict(spec), "model": model.state_dict(), **extra}, partial)


def read(path: Path) -> dict[str, Any]:
    """The whole content of a checkpoint, on the CPU."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def load(path: Path) -> tuple[ModelSpec, nn.Module, dict[str, Any]]:
    """Rebuild a model (in evaluation mode) from its checkpoint; also returns the file's whole content."""
    content = read(path)
    spec = ModelSpec(**content["spec"])
    model = spec.build()
    model.load_state_dict(content["model"])
    return spec, model.eval(), content
