"""CIFAR-10 with its official pixels: a wide network is trained first, and all others learn from it.

Epochs are plans: only the teacher was trained by these steps so far, see ``models/teachers/README.md``. Two free cores
take about 70 seconds for 10^12 multiply-adds of a forward pass with its backward pass: 50 hours for all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.recipes.parity import additions, protecting
from models.steps import PRETRAINED, S_CNN, AnyStep, Family, Protection, Recipe, Step, TeacherRecipe, TeacherStep

TEACHER = f"{PRETRAINED}-teacher"
RESNET18 = f"{S_CNN}-resnet18"
"""The base model that parity models share."""
FIRST_18, FIRST = f"{PRETRAINED}-resnet18", f"{PRETRAINED}-s-cnn"

_TAUGHT: dict[str, Any] = {"mix": 0.5, "distil": 0.9}
_LAST: dict[str, Any] = {**_TAUGHT, "batch": 252, "muon_lr": 0.03, "sgd_lr": 0.05, "epochs": 10}


def _resnet(model: str, stem: str, *parents: str, **settings: Any) -> Step:
    recipe = Recipe(**settings)
    return Step(model, options={"stem": stem}, recipe=recipe, parents=parents, live_teachers=(TEACHER,))


def _vgg(k: int, widths: Sequence[int], *parents: str, **settings: Any) -> Step:
    recipe = Recipe(**{"sgd_lr": 0.04, "bias_gain": 32.0, "muon_lr": 0.12, **_TAUGHT, **settings})
    options = {"widths": [*widths]}
    return Step("collage-vgg", k=k, options=options, recipe=recipe, parents=parents, live_teachers=(TEACHER,))


_BASE_18 = _resnet("resnet18", "cifar", FIRST_18, **_LAST)
"""The step of the parity models' base."""


def _protecting(code: str, members: int, inputs: int = 1, row: int = 0) -> dict[str, AnyStep]:
    return protecting(RESNET18, _BASE_18, Protection(code, members, inputs, row), epochs=20)


CIFAR10_OFFICIAL = Family(
    data_sets=("cifar10-png",),
    source="CIFAR-10 (Krizhevsky, 2009), the official pixels as PNG files",
    licence="none stated",
    ships=(S_CNN, "collage-2x2", "collage-3x3", "collage-4x4", "collage-5x5", RESNET18),
    steps={
        # Two views are cheap enough for a network that is asked about every image.
        TEACHER: TeacherStep(options={"views": 2}, recipe=TeacherRecipe(minutes=103, epochs=40)),
        FIRST_18: _resnet("resnet18", "small", epochs=30, **_TAUGHT),
        RESNET18: _BASE_18,
        FIRST: _resnet("resnet34", "small", epochs=24, **_TAUGHT),
        S_CNN: _resnet("resnet34", "cifar", FIRST, **_LAST),
        "collage-3x3": _vgg(3, (24, 64, 192, 256), batch=504, epochs=60),
        "collage-2x2": _vgg(2, (32, 96, 320, 320), "collage-3x3", batch=504, muon_lr=0.08, epochs=28),
        "collage-4x4": _vgg(4, (16, 48, 160, 256), batch=496, epochs=60),
        "collage-5x5": _vgg(5, (16, 32, 128, 192), batch=500, epochs=60),
        **additions(RESNET18, _BASE_18, 2, 3, 4, epochs=20),
        **_protecting("addition", 2, inputs=2, row=0),
        **_protecting("addition", 2, inputs=2, row=1),
        **_protecting("concatenation", 2),
        **_protecting("concatenation", 4),
        **_protecting("stacked", 2),
        **_protecting("stacked", 3),
        **_protecting("stacked", 4),
    },
)
