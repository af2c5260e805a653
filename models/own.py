"""Your own images: what is wrong with a folder is told before training starts, and what came of it at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from collage.model_info import ModelInfo, ModelKind
from models.data import training_files
from models.recipes import OWN_PHOTOS, OWN_SMALL
from models.steps import Family

SAMPLE = 200
"""Images whose size is looked at."""
LARGE = 96
"""Images whose shorter side has more pixels are photos."""
FEW = 20
"""Images of a class, below which that is said."""
FEW_VALIDATION = 100
USEFUL = 0.5
"""Share of answers of a collage-cnn that are sure, below which that is said."""


def family(folder: Path) -> Family:
    """The recipes for a folder of images; says which, and why.

    Raises ValueError, one line for a person, where it holds no images, or images of one class.
    """
    files = training_files(folder)
    counts = Counter(file.relative_to(folder / "train").parts[0] for file in files)
    if not files:
        raise ValueError(f"{folder / 'train'} holds no images: expected {folder / 'train'}/<class>/*.jpg")
    if len(counts) < 2:
        raise ValueError(f"{folder / 'train'} holds images of one class, {next(iter(counts))}: at least 2 are needed")
    side = shorter_side(files)
    chosen = OWN_PHOTOS if side > LARGE else OWN_SMALL
    print(
        f"{folder.resolve().name}: {len(files):,} images of {len(counts)} classes, the shorter side is {side} px in "
        f"the middle: {'photos, served at 224 px' if chosen is OWN_PHOTOS else 'small images, served at 32 px'}",
        flush=True,
    )
    few = {name: count for name, count in counts.items() if count < FEW}
    if few:
        listed = ", ".join(f"{name} ({count})" for name, count in sorted(few.items(), key=lambda item: item[1])[:5])
        print(f"WARNING: few images of {listed}: at least {FEW} of each class, better 200, are needed", flush=True)
    return chosen


def shorter_side(files: list[Path]) -> int:
    """The median of the shorter sides of some images, in pixels; raises ValueError for one that is no image."""
    chosen = np.random.default_rng(0).permutation(len(files))[:SAMPLE]
    sides = []
    for number in chosen:
        try:
            with Image.open(files[number]) as image:
                sides.append(min(image.size))
        except OSError:
            raise ValueError(f"{files[number]} is no image that can be read: repair or remove it") from None
    return int(np.median(sides))


def summary(info: ModelInfo, images: int) -> Iterator[str]:
    """What came of a model, in words for a person; ``images`` were those of the validation split."""
    found, classes = info.extra, len(info.labels)
    if info.kind is ModelKind.S_CNN:
        right = float(found["validation_accuracy"])
        yield f"{info.name}: right in {right:.0%} of {images} validation images ({classes} classes)"
        if 1 - right > 0.5 * (1 - 1 / classes):
            yield (
                f"WARNING: {info.name} is no good yet: wrong in {100 * (1 - right):.0f} of 100 images; more images of "
                "each class help most, and folders in which no image is misplaced"
            )
    elif info.kind is ModelKind.PARITY:
        yield f"{info.name}: of {images} validation images, {found['validation_accuracy']:.0%} are right when lost"
    else:
        seen = found["calibration"]
        yield (
            f"{info.name}: sure of {seen['coverage']:.0%} of its answers in {images} validation images, of which "
            f"{seen['agreement']:.0%} are those of the s-cnn"
        )
        if seen["coverage"] < USEFUL:
            yield (
                f"WARNING: {info.name} is no good yet: {100 * (1 - seen['coverage']):.0f} of 100 late requests will "
                "be replicated instead of answered; more photos, or more epochs, help"
            )
    if images < FEW_VALIDATION:
        interval = 98 / images**0.5 if images else 100
        yield f"WARNING: {images} validation images are few: these shares may be off by {interval:.0f} points"
