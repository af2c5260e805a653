"""Single-image classifiers (s-cnn): ImageNet-style ResNets and the CIFAR ResNet-32.

Source: He et al., "Deep Residual Learning for Image Recognition", sections 4.1 and 4.2. Modules carry
torchvision's names (``conv1``, ``layer1.0.bn2``, ``fc`` ...), so torchvision checkpoints load unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers import Conv3x3


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut.

    Where shapes differ the shortcut is a strided 1 x 1 convolution, or with ``pool`` an average pool before it.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, pool: bool = False) -> None:
        super().__init__()
        self.conv1 = Conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = Conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.bn2.weight)  # every block starts as the identity
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            pooling: list[nn.Module] = [nn.AvgPool2d(stride)] if pool and stride > 1 else []
            project = nn.Conv2d(inputs, outputs, 1, 1 if pooling else stride, bias=False)
            self.downsample = nn.Sequential(*pooling, project, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W]`` to ``[B, outputs, ceil(H / stride), ceil(W / stride)]``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet(nn.Module):
    """A residual classifier: float32 ``[B, channels, H, W]`` (normalised) to logits ``[B, classes]``.

    ``stem`` is ``"imagenet"`` (7 x 7 stride 2, then 3 x 3 max-pool stride 2), ``"small"`` (3 x 3 stride 2, for
    inputs of about 32 px) or ``"cifar"`` (3 x 3 stride 1). Inputs have ``channels``.
    """

    def __init__(self, blocks: Sequence[int], widths: Sequence[int], classes: int, stem: str, channels: int) -> None:
        super().__init__()
        width = widths[0]
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
            self.maxpool: nn.Module = nn.MaxPool2d(3, 2, 1)
        else:
            self.conv1 = nn.Conv2d(channels, width, 3, 2 if stem == "small" else 1, 1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = len(blocks)
        for stage, (count, outputs) in enumerate(zip(blocks, widths, strict=True), start=1):
            layers = []
            for block in range(count):
                stride = 2 if stage > 1 and block == 0 else 1
                layers.append(BasicBlock(width, outputs, stride))
                width = outputs
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images float32 ``[B, channels, H, W]`` to logits ``[B, classes]``."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def resnet18(
    classes: int, stem: str = "imagenet", widths: Sequence[int] = (64, 128, 256, 512), channels: int = 3
) -> ResNet:
    """17 convolutions in the trunk and a linear layer; ``widths`` are the channels of the stages."""
    return ResNet((2, 2, 2, 2), widths, classes, stem, channels)


def resnet34(classes: int, stem: str = "imagenet", channels: int = 3) -> ResNet:
    """33 convolutions in the trunk and a linear layer."""
    return ResNet((3, 4, 6, 3), (64, 128, 256, 512), classes, stem, channels)


def resnet32(classes: int, channels: int = 3) -> ResNet:
    """The CIFAR ResNet-32 (31 convolutions in the trunk and a linear layer; projection shortcuts)."""
    return ResNet((5, 5, 5), (16, 32, 64), classes, "cifar", channels)
