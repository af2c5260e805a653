"""MobileNet-v2, the small classifier that the paper compares with (Sandler et al., "MobileNetV2", table 2).

Modules carry torchvision's names (``features.1.conv.0.0`` ..., ``classifier.1``), so its checkpoints load unchanged.
"""

from __future__ import annotations

from torch import Tensor, nn

STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
"""Expansion, channels, blocks, and stride of the first block."""


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Expand with a 1 x 1, filter each channel with a 3 x 3, project with a linear 1 x 1; a shortcut where it fits."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [_conv(inputs, hidden, 1)] if expansion > 1 else []
        project = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.conv = nn.Sequential(*expand, _conv(hidden, hidden, 3, stride, hidden), project, nn.BatchNorm2d(outputs))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W]`` to ``[B, outputs, ceil(H / stride), ceil(W / stride)]``."""
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """Width 1.0: float32 ``[B, 3, H, W]`` (normalised) to logits ``[B, classes]``.

    ``stem`` is ``"imagenet"`` (a total stride of 32) or ``"small"``: the first convolution and the first strided stage
    keep their size, which leaves 4 x 4 of inputs of 32 px.
    """

    def __init__(self, classes: int, stem: str = "imagenet") -> None:
        super().__init__()
        small = stem == "small"
        width = 32
        layers: list[nn.Module] = [_conv(3, width, 3, 1 if small else 2)]
        for stage, (expansion, outputs, blocks, stride) in enumerate(STAGES):
            for block in range(blocks):
                first = stride if block == 0 and not (small and stage == 1) else 1
                layers.append(InvertedResidual(width, outputs, expansion, first))
                width = outputs
        layers.append(_conv(width, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images float32 ``[B, 3, H, W]`` to logits ``[B, classes]``."""
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits
