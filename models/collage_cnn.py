"""Collage classifiers: one network, one pass, a prediction for every image of a K x K collage.

Two architectures share one output layout, raw float32 ``[B, K, K, A, 5 + classes]`` with YOLO's parametrisation
(x, y, w, h, objectness, class scores; A anchors per grid cell):

* ``CollageTiny``: the paper's ten convolutions (Collage inference, section 4.2), shaped like yolov3-tiny.
* ``CollageResNet``: ours, a small residual network whose strides align with the cells and which is told where the
  cells are by a learned embedding that repeats in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.resnet import BasicBlock

BOX, CONFIDENCE, CLASSES = slice(0, 4), 4, slice(5, None)


class CollageTiny(nn.Module):
    """The paper's collage-cnn: 10 convolutions, two anchors per grid cell, no residuals, no upsampling.

    Seven 3 x 3 convolutions (16 to 1024 channels, a max-pool after the first six, the sixth with stride 1), a 1 x 1
    to 256, an unpadded convolution that takes the feature map to K x K with 512 channels, and a linear 1 x 1. Only
    the last three depend on K. Any input ``size`` works whose map (size / 32, rounded up) is at least K wide.
    """

    anchors = (1.0, 0.5)  # box side in cells

    def __init__(self, k: int, size: int, classes: int) -> None:
        super().__init__()
        self.k = k
        layers: list[nn.Module] = []
        inputs = 3
        for index, width in enumerate((16, 32, 64, 128, 256, 512, 1024)):
            layers += [self._conv(inputs, width, 3, padding=1)]
            if index < 5:
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            elif index == 5:
                layers.append(nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1)))
            inputs = width
        self.trunk = nn.Sequential(*layers)
        side = -(-size // 32)
        if side < k:
            raise ValueError(f"a {k} x {k} collage needs an input of at least {32 * k} px, got {size}")
        stride = max(1, (side - 1) // k)
        self.neck = nn.Sequential(
            self._conv(1024, 256, 1), self._conv(256, 512, side - (k - 1) * stride, stride=stride)
        )
        self.head = nn.Conv2d(512, len(self.anchors) * (5 + classes), 1)

    @staticmethod
    def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised collages float32 ``[B, 3, size, size]`` to raw outputs ``[B, K, K, 2, 5 + classes]``."""
        return _layout(self.head(self.neck(self.trunk(x))), len(self.anchors))


class CollageResNet(nn.Module):
    """Our collage-cnn: a strided stem and residual stages on maps that align with the cells.

    ``stem`` is the stride of the first convolution; ``strides`` those of the stages. Their product must divide the
    cell; the rest is an average pool over the cell and a linear 1 x 1 with one box per cell.
    """

    anchors = (1.0,)

    def __init__(
        self,
        k: int,
        size: int,
        classes: int,
        stem: int = 2,
        widths: Sequence[int] = (48, 112, 256),
        blocks: Sequence[int] = (1, 2, 1),
        strides: Sequence[int] = (1, 2, 2),
    ) -> None:
        super().__init__()
        self.k = k
        kernel = 6 if stem == 2 else 2 * stem
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], kernel, stem, (kernel - stem) // 2, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        cell, rest = divmod(size, k)
        reduction = stem
        self.stages = nn.ModuleList()
        self.embeddings = nn.ParameterList()
        width = widths[0]
        for outputs, count, stride in zip(widths, blocks, strides, strict=True):
            side = cell // reduction
            self.embeddings.append(nn.Parameter(torch.zeros(1, width, side, side)))
            stage = []
            for block in range(count):
                stage.append(BasicBlock(width, outputs, stride if block == 0 else 1, pool=True))
                width = outputs
            self.stages.append(nn.Sequential(*stage))
            reduction *= stride
        if rest or cell % reduction:
            raise ValueError(f"cells of {size}/{k} px do not align with a total stride of {reduction}")
        self.head = nn.Conv2d(width, 5 + classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised collages float32 ``[B, 3, size, size]`` to raw outputs ``[B, K, K, 1, 5 + classes]``."""
        x = self.stem(x)
        for embedding, stage in zip(self.embeddings, self.stages, strict=True):
            side = x.shape[-1] // self.k
            cell = embedding
            if side != embedding.shape[-1]:  # training at another resolution
                cell = F.interpolate(embedding, (side, side), mode="bilinear", align_corners=False)
            x = stage(x + cell.to(x.dtype).repeat(1, 1, self.k, self.k))
        x = F.avg_pool2d(x, x.shape[-1] // self.k)
        return _layout(self.head(x), 1)


CollageCNN = CollageTiny | CollageResNet


def _layout(raw: Tensor, anchors: int) -> Tensor:
    batch, channels, k, _ = raw.shape
    return raw.permute(0, 2, 3, 1).reshape(batch, k, k, anchors, channels // anchors)


def detections(raw: Tensor, anchors: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Turn raw outputs into detections, M = K * K * A of them per collage.

    Returns boxes ``[B, M, 4]`` (left, top, right, bottom, in shares of the collage's side), confidences ``[B, M]`` and
    class probabilities ``[B, M, classes]``, all float32.
    """
    batch, k, _, count, _ = raw.shape
    raw = raw.float()
    steps = torch.arange(k, device=raw.device, dtype=torch.float32)
    column = steps.view(1, 1, k, 1).expand(1, k, k, 1)
    row = steps.view(1, k, 1, 1).expand(1, k, k, 1)
    size = torch.tensor(anchors, device=raw.device).view(1, 1, 1, count, 1) * raw[..., 2:4].clamp(-4, 4).exp()
    centre = torch.stack((column, row), -1) + raw[..., 0:2].sigmoid()
    boxes = torch.cat((centre - size / 2, centre + size / 2), -1) / k
    return (
        boxes.reshape(batch, -1, 4),
        raw[..., CONFIDENCE].sigmoid().reshape(batch, -1),
        raw[..., CLASSES].softmax(-1).reshape(batch, k * k * count, -1),
    )


def collage_loss(
    raw: Tensor, targets: Tensor, filled: Tensor, boxes: Tensor, *, confidence: float = 0.1, box: float = 0.1
) -> Tensor:
    """YOLO-style loss on the anchor of cell size: class CE, plus weighted confidence BCE and box MSE.

    ``targets`` is float32 ``[B, K * K, classes]``, the class probabilities to learn; ``filled`` bool, B * K * K long,
    says which cells hold an image (at least one must); ``boxes`` float32 ``[K * K, 4]`` are the ground-truth boxes in
    shares of the collage's side. Anchors other than the first learn only that they hold nothing.
    """
    batch, k, _, _, _ = raw.shape
    raw = raw.float()
    matched = raw[..., 0, :].reshape(batch, k * k, -1)
    filled = filled.view(batch, k * k)
    objectness = torch.zeros_like(raw[..., CONFIDENCE])
    objectness[..., 0] = filled.view(batch, k, k).float()
    offsets = torch.arange(k, device=raw.device)
    corner = torch.stack((offsets.repeat(k), offsets.repeat_interleave(k)), -1)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 * k - corner
    size = ((boxes[:, 2:] - boxes[:, :2]) * k).log()
    found = torch.cat((matched[..., 0:2].sigmoid(), matched[..., 2:4]), -1)
    wanted = torch.cat((centre, size), -1).expand_as(found)
    return (
        F.cross_entropy(matched[..., CLASSES][filled], targets[filled])
        + confidence * F.binary_cross_entropy_with_logits(raw[..., CONFIDENCE], objectness)
        + box * F.mse_loss(found[filled], wanted[filled])
    )
