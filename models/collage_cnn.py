"""Collage classifiers: one network, one pass, a prediction for every image of a K x K collage.

Four architectures share one output layout, raw float32 ``[B, G, G, A, 5 + classes]`` with YOLO's parametrisation
(x, y, w, h, objectness, class scores; A anchors at each of G x G positions). The position that holds a cell's centre
is responsible for its image:

* ``CollageTiny``: the paper's ten convolutions (Collage inference, section 4.2), shaped like yolov3-tiny; G = K.
* ``CollageYolo``: the same trunk with the head that the paper's authors released: G is the width of the feature map.
* ``CollageResNet``: ours, a small residual network whose strides align with the cells and which is told where the
  cells are by a learned embedding that repeats in each of them; G = K.
* ``CollageVGG``: ours for small images, at full resolution, with the same embedding; G = K.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import Conv3x3
from models.resnet import BasicBlock

BOX, CONFIDENCE, CLASSES = slice(0, 4), 4, slice(5, None)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1))


def _yolo_trunk(pools: int = 5) -> nn.Sequential:
    """Seven 3 x 3 convolutions (16 to 1024 channels) and a max-pool after the first six; ``pools`` have stride 2."""
    layers: list[nn.Module] = []
    inputs = 3
    for index, width in enumerate((16, 32, 64, 128, 256, 512, 1024)):
        layers.append(_conv(inputs, width, 3, padding=1))
        if index < pools:
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
        elif index < 6:
            layers.append(nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1)))
        inputs = width
    return nn.Sequential(*layers)


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
        self.trunk = _yolo_trunk()
        side = _map_side(k, size, pools=5)
        stride = max(1, (side - 1) // k)
        self.neck = nn.Sequential(_conv(1024, 256, 1), _conv(256, 512, side - (k - 1) * stride, stride=stride))
        self.head = nn.Conv2d(512, len(self.anchors) * (5 + classes), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised collages float32 ``[B, 3, size, size]`` to raw outputs ``[B, K, K, 2, 5 + classes]``."""
        return _layout(self.head(self.neck(self.trunk(x))), len(self.anchors))


class CollageYolo(nn.Module):
    """The network that the paper's authors released: yolov3-tiny's first output, on the trunk's full feature map.

    As ``CollageTiny``, but convolution 9 is a padded 3 x 3 that keeps the map, so that only decoding knows of K.
    ``pools`` of the six max-pools have stride 2: all five of the original at 416 px make 13 x 13 positions. Collages
    of small images need fewer for a map as fine: 96 px give 12 x 12 with 3 and, at a quarter of the cost, 6 x 6 with
    4. The map must be at least K wide.
    """

    anchors = (1.0, 0.5)  # box side in cells

    def __init__(self, k: int, size: int, classes: int, pools: int = 5) -> None:
        super().__init__()
        self.k = k
        _map_side(k, size, pools)
        self.trunk = _yolo_trunk(pools)
        self.neck = nn.Sequential(_conv(1024, 256, 1), _conv(256, 512, 3, padding=1))
        self.head = nn.Conv2d(512, len(self.anchors) * (5 + classes), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised collages float32 ``[B, 3, size, size]`` to raw outputs ``[B, G, G, 2, 5 + classes]``."""
        return _layout(self.head(self.neck(self.trunk(x))), len(self.anchors))


def _map_side(k: int, size: int, pools: int) -> int:
    """The width of the trunk's feature map; ValueError where it is narrower than the grid."""
    stride = 1 << pools
    side = -(-size // stride)
    if side < k:
        raise ValueError(f"a {k} x {k} collage needs an input of at least {stride * k} px, got {size}")
    return side


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
        kernel = 6 if stem == 2 else 2 * stem - stem % 2
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
            self.embeddings.append(_embedding(width, side))
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
            x = stage(_tell_cells(x, embedding, self.k, self.training))
        x = F.avg_pool2d(x, x.shape[-1] // self.k)
        return _layout(self.head(x), 1)


class CollageVGG(nn.Module):
    """Our collage-cnn for cells of small images: plain stages of convolution, max-pool, convolution at full resolution.

    Costs more per cell than ``CollageResNet`` and learns faster. ``widths`` are the channels of the stem and of each
    stage, which halves the map; the rest is a max-pool over the cell and a linear 1 x 1 with one box per cell.
    The stages and their first weights are those of Jordan, "94 % on CIFAR-10 in 3.29 seconds on a single GPU",
    sections 3.1 and 3.3, whose faster biases (section 3.4) are ``Recipe.bias_gain``.
    """

    anchors = (1.0,)

    def __init__(self, k: int, size: int, classes: int, widths: Sequence[int] = (24, 64, 192, 256)) -> None:
        super().__init__()
        self.k = k
        cell, rest = divmod(size, k)
        if rest or cell % (1 << (len(widths) - 1)):
            raise ValueError(f"cells of {size}/{k} px cannot be halved {len(widths) - 1} times")
        self.stem = nn.Sequential(Conv3x3(3, widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.stages, self.embeddings = nn.ModuleList(), nn.ParameterList()
        for inputs, outputs in pairwise(widths):
            self.embeddings.append(_embedding(inputs, cell))
            self.stages.append(
                nn.Sequential(
                    *(Conv3x3(inputs, outputs), nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.ReLU()),
                    *(Conv3x3(outputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU()),
                )
            )
            cell //= 2
        for convolution in self.stages.modules():
            if isinstance(convolution, Conv3x3):
                nn.init.dirac_(convolution.weight[: convolution.in_channels].detach())  # starts as the identity
        self.head = nn.Conv2d(widths[-1], 5 + classes, 1)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised collages float32 ``[B, 3, size, size]`` to raw outputs ``[B, K, K, 1, 5 + classes]``."""
        x = self.stem(x)
        for embedding, stage in zip(self.embeddings, self.stages, strict=True):
            x = stage(_tell_cells(x, embedding, self.k, self.training))
        return _layout(self.head(F.max_pool2d(x, x.shape[-1] // self.k)), 1)


def _embedding(width: int, side: int) -> nn.Parameter:
    """What is learned for one cell, in the shape in which it is added to all: ``[1, width, 1, side, 1, side]``."""
    return nn.Parameter(torch.zeros(1, width, 1, side, 1, side))


def resized(embedding: Tensor, side: int) -> Tensor:
    """The same for cells of another side, ``[1, width, 1, side, 1, side]``."""
    plane = F.interpolate(embedding[:, :, 0, :, 0], (side, side), mode="bilinear", align_corners=False)
    return plane[:, :, None, :, None]


def _tell_cells(x: Tensor, embedding: Tensor, k: int, training: bool) -> Tensor:
    """Add what is learned for one cell to each of K x K; in ``training`` in a way whose gradient is quick to sum."""
    side = x.shape[-1] // k
    if side != embedding.shape[-1]:  # training at another resolution
        embedding = resized(embedding, side)
    if training:
        whole = embedding.to(x.dtype).expand(-1, -1, k, -1, k, -1).reshape(1, -1, *x.shape[2:])
        return x + whole.contiguous(memory_format=torch.channels_last)
    return (x.view(*x.shape[:2], k, side, k, side) + embedding.to(x.dtype)).view(x.shape)


CollageCNN = CollageTiny | CollageYolo | CollageResNet | CollageVGG


def _layout(raw: Tensor, anchors: int) -> Tensor:
    batch, channels, side, _ = raw.shape
    return raw.permute(0, 2, 3, 1).reshape(batch, side, side, anchors, channels // anchors)


def detections(raw: Tensor, k: int, anchors: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Turn raw outputs of K x K collages into detections, M = G * G * A of them each.

    ``anchors`` are box sides in cells. Returns boxes ``[B, M, 4]`` (left, top, right, bottom, in shares of the
    collage's side), confidences ``[B, M]`` and class probabilities ``[B, M, classes]``, all float32.
    """
    batch, side, _, count, _ = raw.shape
    raw = raw.float()
    steps = torch.arange(side, device=raw.device, dtype=torch.float32)
    column = steps.view(1, 1, side, 1).expand(1, side, side, 1)
    row = steps.view(1, side, 1, 1).expand(1, side, side, 1)
    cells = torch.tensor(anchors, device=raw.device).view(1, 1, 1, count, 1) * raw[..., 2:4].clamp(-4, 4).exp()
    centre, size = (torch.stack((column, row), -1) + raw[..., 0:2].sigmoid()) / side, cells / k
    boxes = torch.cat((centre - size / 2, centre + size / 2), -1)
    return (
        boxes.reshape(batch, -1, 4),
        raw[..., CONFIDENCE].sigmoid().reshape(batch, -1),
        raw[..., CLASSES].softmax(-1).reshape(batch, side * side * count, -1),
    )


def responsible(boxes: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which of G x G positions hold the centres of boxes ``[N, 4]`` in shares of the side: rows and columns, int64.

    Third comes where in its position each centre lies, float32 ``[N, 2]`` (x, y) from 0 to 1.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 * side
    corners = (centres + 1e-4).floor()  # cells whose centre lies between two positions all take the latter
    columns, rows = corners.long().unbind(-1)
    return rows, columns, centres - corners


def cell_scores(raw: Tensor, boxes: Tensor) -> Tensor:
    """Class scores ``[B, N, classes]`` of N cells, given their boxes ``[N, 4]``: those of the most confident anchor
    at the responsible position. A training-time estimate of what decoding finds."""
    rows, columns, _ = responsible(boxes, raw.shape[1])
    matched = raw[:, rows, columns]
    best = matched[..., CONFIDENCE].argmax(-1)[..., None, None]
    return matched[..., CLASSES].take_along_dim(best, 2).squeeze(2)


def collage_loss(
    raw: Tensor, targets: Tensor, filled: Tensor, boxes: Tensor, *, confidence: float = 0.1, box: float = 0.1
) -> Tensor:
    """YOLO-style loss on the anchor of cell size: class CE, plus weighted confidence BCE and box MSE.

    ``targets`` is float32 ``[B, K * K, classes]``, the class probabilities to learn; ``filled`` bool, B * K * K long,
    says which cells hold an image (at least one must); ``boxes`` float32 ``[K * K, 4]`` are the ground-truth boxes in
    shares of the collage's side. Anchors other than the first, and positions that hold no cell's centre, learn only
    that they hold nothing. The confidence term is counted per cell, so that a finer map does not drown the cells.
    """
    batch, side, _, anchors, _ = raw.shape
    cells = len(boxes)
    raw = raw.float()
    rows, columns, centres = responsible(boxes, side)
    matched = raw[:, rows, columns, 0]
    filled = filled.view(batch, cells)
    objectness = torch.zeros_like(raw[..., CONFIDENCE])
    objectness[:, rows, columns, 0] = filled.float()
    sizes = ((boxes[:, 2:] - boxes[:, :2]) * cells**0.5).log()
    found = torch.cat((matched[..., 0:2].sigmoid(), matched[..., 2:4]), -1)
    wanted = torch.cat((centres, sizes), -1).expand_as(found)
    objects = F.binary_cross_entropy_with_logits(raw[..., CONFIDENCE], objectness, reduction="sum")
    return (
        F.cross_entropy(matched[..., CLASSES][filled], targets[filled])
        + confidence * objects / (batch * cells * anchors)
        + box * F.mse_loss(found[filled], wanted[filled])
    )
