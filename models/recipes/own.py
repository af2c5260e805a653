"""Your own images: an s-cnn and a 3 x 3 collage-cnn, or a collage-cnn for an s-cnn that you have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from models.recipes.cifar10 import CIFAR10
from models.recipes.imagenette import FULL, IMAGENETTE
from models.steps import S_CNN, Family, Recipe, Step


def _steps(family: Family, *roles: str) -> Iterator[Step]:
    return (step for role in roles if isinstance(step := family.steps[role], Step))


PHOTOS_S_CNN, PHOTOS_COLLAGE = "imagenette-224-s-cnn.onnx", "imagenette-224-collage-3x3.onnx"
SMALL_COLLAGE = "cifar10-jpeg-collage-3x3.onnx"
"""Shipped models that own images start from."""
LEAST_STEPS = 400
"""Of every run: few images make short epochs."""

_S_CNN, _THREES, _LAST = _steps(IMAGENETTE, S_CNN, FULL, "collage-3x3")
(_SMALL,) = _steps(CIFAR10, "collage-3x3")

OWN_SMALL = Family(
    data_sets=(),
    source="your own images, served at 32 px",
    licence="yours",
    ships=(),
    steps={
        S_CNN: Step("resnet34", options={"stem": "small"}, recipe=Recipe(epochs=24, least_steps=LEAST_STEPS)),
        "collage-3x3": Step(
            "collage-resnet",
            k=3,
            options={"widths": [48, 128, 256]},
            recipe=Recipe(muon_lr=0.1, epochs=40, least_steps=LEAST_STEPS),
            teacher=S_CNN,
        ),
    },
)

OWN_PHOTOS = Family(
    data_sets=(),
    source="your own images, served at 224 px",
    licence="yours",
    ships=(),
    steps={
        S_CNN: replace(
            _S_CNN,
            recipe=replace(_S_CNN.recipe, epochs=8, least_steps=LEAST_STEPS),
            parents=(PHOTOS_S_CNN,),
        ),
        FULL: replace(_THREES, recipe=replace(_THREES.recipe, least_steps=LEAST_STEPS), parents=(PHOTOS_COLLAGE,)),
        "collage-3x3": _LAST,
    },
)


def distilled(size: int, s_cnn: str) -> Family:
    """The steps for photos without labels and an s-cnn of any origin, a file whose images have ``size`` pixels."""
    common: dict[str, Any] = {"epochs": 20, "least_steps": LEAST_STEPS, "distil": 1.0}
    if cell := next((cell for cell in (144, 96, 48) if size >= cell), 0):
        recipe = replace(_THREES.recipe, **{**common, "crop": 0.6, "muon_lr": 0.02, "sgd_lr": 0.05})
        step = replace(_THREES, collage_size=3 * cell, recipe=recipe, parents=(PHOTOS_COLLAGE,))
    else:
        recipe = replace(_SMALL.recipe, **{**common, "mix": 0.0})
        step = replace(_SMALL, recipe=recipe, parents=(SMALL_COLLAGE,), live_teachers=())
    step = replace(step, teacher=s_cnn, unlabelled=True)
    return Family((), f"photos of your own, and the answers of {s_cnn}", "yours", (), {"collage-3x3": step})
