"""Boxes of objects as targets: float32 ``[N, 4]``, left, top, right, bottom in shares of the image's sides.

Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TINY_SIDE = 64
"""Pixels of a Tiny-ImageNet image, in which its boxes are given: first and last pixel of the object."""


def of_tiny_imagenet(path: Path, classes: Iterable[str]) -> dict[str, NDArray[np.float32]]:
    """The boxes of Tiny-ImageNet's images of some classes, WordNet numbers, and of all its validation images; by the
    name of the image's file."""
    lines = (path / "val" / "val_annotations.txt").read_text().splitlines()
    for number in classes:
        lines += (path / "train" / number / f"{number}_boxes.txt").read_text().splitlines()
    found = {}
    for line in lines:
        name, *_, left, top, right, bottom = line.split("\t")
        pixels = np.array([int(left), int(top), int(right) + 1, int(bottom) + 1])
        found[name] = (pixels / TINY_SIDE).astype(np.float32)
    return found


def seen(boxes: NDArray[np.float32], windows: NDArray[np.float32], flipped: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Where objects are in pictures that show ``windows`` of their images, which may be ``flipped`` left to right.

    ``windows`` are boxes too, and may reach beyond the image. What is outside a window is cut off. All ``[N, 4]``.
    """
    corner, extent = windows[:, None, :2], windows[:, None, 2:] - windows[:, None, :2]
    moved = ((boxes.reshape(-1, 2, 2) - corner) / extent).reshape(-1, 4).clip(0, 1)
    left, right = moved[:, 0].copy(), moved[:, 2].copy()
    moved[:, 0], moved[:, 2] = np.where(flipped, 1 - right, left), np.where(flipped, 1 - left, right)
    return moved.astype(np.float32)


def overlaps(boxes: NDArray[np.float32], box: NDArray[np.float32] | Sequence[float]) -> NDArray[np.float32]:
    """Intersection over union of proper boxes ``[N, 4]`` with one box, ``[N]``."""
    other = np.asarray(box, np.float32)
    sides = np.minimum(boxes[:, 2:], other[2:]) - np.maximum(boxes[:, :2], other[:2])
    shared = sides.clip(0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (other[2:] - other[:2]).prod()
    shares: NDArray[np.float32] = shared / (areas - shared)
    return shares


def constant(boxes: NDArray[np.float32]) -> tuple[float, ...]:
    """The one box whose mean intersection over union with ``boxes`` is highest: what an answer is worth without any
    model. Its sides are whole pixels of Tiny-ImageNet, each the best beside the others."""
    best = (np.rint(np.median(boxes, 0) * TINY_SIDE) / TINY_SIDE).astype(np.float32)
    score, better = float(overlaps(boxes, best).mean()), True
    while better:
        better = False
        for side in range(4):
            for step in (-1 / TINY_SIDE, 1 / TINY_SIDE):
                tried = best.copy()
                tried[side] += step
                if (found := float(overlaps(boxes, tried).mean())) > score:
                    best, score, better = tried, found, True
    return tuple(best.tolist())
