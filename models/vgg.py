"""VGG-11 with batch norm, for small inputs: one linear layer behind a mean over places, in place of three.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", table 1, column A.
Convolutions and batch norms carry torchvision's names of ``vgg11_bn`` (``features.0`` ...).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from models.layers import Conv3x3

STAGES = (1, 1, 2, 2, 2)
"""Convolutions before each max-pool."""


class VGG11(nn.Module):
    """8 convolutions: float32 ``[B, channels, H, W]`` (normalised, sides of at least 32) to logits ``[B, classes]``.

    ``widths`` are the channels of the five stages; the paper has 64, 128, 256, 512, 512.
    """

    def __init__(self, classes: int, widths: Sequence[int] = (64, 128, 256, 512, 512), channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for count, width in zip(STAGES, widths, strict=True):
            for _ in range(count):
                layers += [Conv3x3(before, width), nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised inputs float32 ``[B, channels, H, W]`` to logits ``[B, classes]``."""
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits
