"""Training pictures: random variations of images, and collages of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from encoder.grid import Grid


class Varied(NamedTuple):
    """Varied images, and what was done to them."""

    images: Tensor
    """uint8 ``[B, size, size, 3]``."""
    flipped: NDArray[np.bool_]
    """Whether each was mirrored left to right, ``[B]``."""
    windows: NDArray[np.float32]
    """The part of the image that is shown, ``[B, 4]``: left, top, right, bottom in shares of its sides."""


def augment(
    images: Tensor,
    size: int,
    rng: np.random.Generator,
    *,
    shift: int,
    crop: float,
    flip: bool,
    cutout: int = 0,
) -> Varied:
    """Random flips, with shifts (black borders) or crops, of uint8 ``[B, H, W, 3]``, on the device where they are.

    Shifts are by up to ``shift`` pixels, and show a window of ``size`` pixels; with ``crop`` > 0 they are replaced by
    resized crops of at least that share of the area. A square of ``cutout`` pixels is blackened somewhere, partly
    outside perhaps (DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout").
    """
    batch, height, width, _ = images.shape
    flipped: NDArray[np.bool_] = rng.random(batch) < np.full(batch, 0.5 if flip else 0.0)
    if crop:
        crops, windows = random_crops(images, size, crop, flipped, rng)
        return Varied(cut_out(crops, cutout, rng), flipped, windows)
    padded = F.pad(images, (0, 0, shift, shift, shift, shift))
    rows = rng.integers(0, 2 * shift + height - size + 1, (batch, 1)) + np.arange(size)
    columns = rng.integers(0, 2 * shift + width - size + 1, (batch, 1)) + np.arange(size)
    first = np.concatenate((columns[:, :1], rows[:, :1]), 1) - shift
    windows = (np.concatenate((first, first + size), 1) / [width, height, width, height]).astype(np.float32)
    columns = np.where(flipped[:, None], columns[:, ::-1], columns)
    return Varied(cut_out(windowed(padded, rows, columns), cutout, rng), flipped, windows)


def windowed(images: Tensor, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Tensor:
    """The pixels of ``[B, H, W, 3]`` at an image's own ``rows`` and ``columns``, both ``[B, size]``."""
    down, across = (torch.from_numpy(places).to(images.device) for places in (rows, columns))
    seen: Tensor = images[
        torch.arange(len(images), device=images.device)[:, None, None], down[:, :, None], across[:, None]
    ]
    return seen


def cut_out(images: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """Blacken a square of ``side`` pixels, centred anywhere, in each of uint8 ``[B, H, W, 3]``; 0 blackens nothing."""
    if not side:
        return images
    batch, height, width, _ = images.shape
    top, left = rng.integers(0, height, (batch, 1)) - side // 2, rng.integers(0, width, (batch, 1)) - side // 2
    rows, columns = np.arange(height) - top, np.arange(width) - left
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
    return images * torch.from_numpy(~inside).to(images.device)[..., None]


def cut_mix(images: Tensor, targets: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Paste a box of another image into a ``share`` of uint8 ``[B, H, W, 3]``, and mix their ``targets`` by area.

    The boxes' area is uniform between none and all, their centre is anywhere (Yun et al., "CutMix: Regularization
    Strategy to Train Strong Classifiers with Localizable Features", section 3.1).
    """
    if not share:
        return images, targets
    batch, height, width, _ = images.shape
    side = np.sqrt(rng.random((batch, 1))) * (rng.random((batch, 1)) < share) / 2
    rows = np.abs(np.arange(height) + 0.5 - rng.random((batch, 1)) * height) < side * height
    columns = np.abs(np.arange(width) + 0.5 - rng.random((batch, 1)) * width) < side * width
    pasted = torch.from_numpy(rows[:, :, None] & columns[:, None, :]).to(images.device)
    other = torch.from_numpy(rng.permutation(batch)).to(images.device)
    portion = pasted.float().mean((1, 2))[:, None]
    return torch.where(pasted[..., None], images[other], images), targets + portion * (targets[other] - targets)


def mean_of_two(images: Tensor, targets: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Turn a ``share`` of uint8 ``[B, H, W, 3]`` into means with another image, and their ``targets`` likewise.

    The pixels are those that the addition code makes of a group of two (Zhang et al., "mixup: Beyond Empirical Risk
    Minimization", with equal parts).
    """
    if not share:
        return images, targets
    batch = len(images)
    chosen = torch.from_numpy(rng.random(batch) < share).to(images.device)
    other = torch.from_numpy(rng.permutation(batch)).to(images.device)
    means = ((images.short() + images[other].short() + 1) // 2).byte()
    mixed = torch.where(chosen[:, None, None, None], means, images)
    return mixed, torch.where(chosen[:, None], (targets + targets[other]) / 2, targets)


def random_crops(
    images: Tensor, size: int, least: float, flipped: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Tensor, NDArray[np.float32]]:
    """Random resized crops of at least the share ``least`` of the area, with brightness and contrast varied by 20 %.

    Returns them, and their windows as in ``Varied``.
    """
    batch = len(images)
    area = rng.uniform(least, 1.0, batch)
    aspect = np.exp(rng.uniform(-0.29, 0.29, batch))  # 3:4 to 4:3
    width, height = np.minimum(np.sqrt(area * aspect), 1.0), np.minimum(np.sqrt(area / aspect), 1.0)
    affine = np.zeros((batch, 2, 3), np.float32)
    affine[:, 0, 0], affine[:, 1, 1] = np.where(flipped, -width, width), height
    affine[:, 0, 2] = rng.uniform(-1, 1, batch) * (1 - width)
    affine[:, 1, 2] = rng.uniform(-1, 1, batch) * (1 - height)
    corner = (1 + affine[:, :, 2] - np.stack((width, height), 1)) / 2
    windows = np.concatenate((corner, corner + np.stack((width, height), 1)), 1).astype(np.float32)
    device = images.device
    grid = F.affine_grid(torch.from_numpy(affine).to(device), [batch, 3, size, size], align_corners=False)
    pixels = F.grid_sample(images.permute(0, 3, 1, 2).float(), grid, padding_mode="border", align_corners=False)
    light = rng.uniform(0.8, 1.2, (2, batch, 1, 1, 1)).astype(np.float32)
    contrast, brightness = torch.from_numpy(light).to(device)
    mean = pixels.mean((1, 2, 3), keepdim=True)
    pixels = ((pixels - mean) * contrast + mean) * brightness
    varied: Tensor = pixels.clamp(0, 255).byte().permute(0, 2, 3, 1)
    return varied, windows


def tile(cells: Tensor, grid: Grid) -> Tensor:
    """Cells uint8 ``[B * N, h, w, 3]`` to collages ``[B, size, size, 3]``; a surplus pixel of a cell is cut off."""
    batch = len(cells) // grid.cells
    collages = cells.new_zeros(batch, grid.size, grid.size, 3)
    members = cells.view(batch, grid.cells, *cells.shape[1:])
    for cell in range(grid.cells):
        left, top, right, bottom = grid.box(cell)
        collages[:, top:bottom, left:right] = members[:, cell, : bottom - top, : right - left]
    return collages
