"""Self-describing checkpoints: a file from which the model can be rebuilt and trained further, alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from collage.model_info import CodeInfo
from encoder.tasks import TaskName
from models.coding import LEARNED
from models.collage_cnn import CollageResNet, CollageTiny, CollageVGG, CollageYolo
from models.data import in_words
from models.layers import Perceptron
from models.learned_code import CodeNetworks, joint
from models.mobilenet import MobileNetV2
from models.resnet import resnet18, resnet32, resnet34
from models.vgg import VGG11
from models.wide import WideNet

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet32": resnet32,
    "mlp": Perceptron,
    "mobilenetv2": MobileNetV2,
    "vgg11": VGG11,
    "wide": WideNet,
    "collage-tiny": CollageTiny,
    "collage-yolo": CollageYolo,
    "collage-resnet": CollageResNet,
    "collage-vgg": CollageVGG,
    "learned-conv": partial(CodeNetworks, "conv"),
    "learned-mlp": partial(CodeNetworks, "mlp"),
    "learned-joint": joint,
}

SIDES = 4
"""Of a box."""


@dataclass(frozen=True)
class ModelSpec:
    """All that is needed to rebuild a model and to serve it.

    ``size`` is the input's side in pixels (a collage's whole side), ``k`` the grid (1 for an s-cnn), ``mean`` and
    ``std`` the per-channel statistics of inputs scaled to 0..1. ``code`` is what a parity model is for. A localiser,
    and what stands in for one, has no ``labels``.
    """

    architecture: str
    dataset: str
    labels: tuple[str, ...]
    size: int
    k: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: dict[str, Any] = field(default_factory=dict)
    code: CodeInfo | None = None

    def __post_init__(self) -> None:
        if isinstance(self.code, dict):  # as a file has it
            object.__setattr__(self, "code", CodeInfo(**self.code))
        object.__setattr__(self, "labels", in_words(self.labels))  # older files have the folders' names

    @property
    def kind(self) -> str:
        """``"s-cnn"``, ``"parity"`` or ``"collage-cnn"``, or ``"learned"`` for an encoder with its decoder."""
        if self.code:
            return LEARNED if self.architecture.startswith(LEARNED) else "parity"
        return "collage-cnn" if self.architecture.startswith("collage") else "s-cnn"

    @property
    def task(self) -> TaskName:
        """What it does: localisation if it knows no labels."""
        return TaskName.CLASSIFICATION if self.labels else TaskName.LOCALISATION

    @property
    def outputs(self) -> int:
        """m, the numbers that it says of one image: scores of classes, or the sides of a box."""
        return len(self.labels) or SIDES

    @property
    def image_size(self) -> int:
        """The side of the images it is shown, of the largest cell of a collage; pixels."""
        return -(-self.size // self.k)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input: ``size, size, 3``, behind the number of members for a stacked code."""
        image = (self.size, self.size, 3)
        return (self.code.members, *image) if self.code and self.code.stacked else image

    def build(self) -> nn.Module:
        """A freshly initialised model of this description."""
        make = ARCHITECTURES[self.architecture]
        if self.kind == "collage-cnn":
            return make(self.k, self.size, len(self.labels), **self.options)
        outputs, options = self.outputs, self.options
        if self.code and self.kind == LEARNED:
            return make(self.size, outputs, self.code.members, self.code.inputs, **options)
        if self.code and self.code.heads:
            outputs *= self.code.members
        if self.code and self.code.stacked:
            options = {**options, "channels": 3 * self.code.members}
        return make(outputs, **options)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 ``[B, H, W, 3]`` to the model's float32 ``[B, 3, H, W]``, channels last in memory.

        Of stacked images, ``[B, N, H, W, 3]``, all channels are one input's.
        """
        mean = torch.tensor(self.mean, device=pixels.device)
        std = torch.tensor(self.std, device=pixels.device)
        return as_channels((pixels.float() / 255 - mean) / std)

    @torch.no_grad()
    def ask(self, model: nn.Module, pixels: Tensor, bfloat16: bool) -> Tensor:
        """The raw float32 output of such a model for inputs uint8 ``[B, size, size, 3]``, which are where it is."""
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bfloat16):
            out: Tensor = model(self.normalise(pixels))
        return out.float()


def as_channels(pixels: Tensor) -> Tensor:
    """``[B, H, W, 3]`` to ``[B, 3, H, W]``, and stacked images ``[B, N, H, W, 3]`` to ``[B, 3 N, H, W]``."""
    return pixels.permute(0, 3, 1, 2) if pixels.dim() == 4 else pixels.permute(0, 1, 4, 2, 3).flatten(1, 2)


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
