"""The next models of the zoo: the official pixels of CIFAR-10, and Tiny-ImageNet.

They are no part of ``make zoo`` yet, because their teacher has a command of its own: ``models.teacher`` with the
arguments ``TEACHER`` writes the checkpoint of the role ``TEACHER_ROLE``, and the steps follow in their order. Epochs
are plans, not findings: nothing but the teacher was trained yet. Two free cores take about 70 seconds for 10^12
multiply-adds of a forward pass with its backward pass, which makes 50 hours of CIFAR-10's steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.steps import PRETRAINED, S_CNN, Family, Recipe, Step

TEACHER_ROLE = f"{PRETRAINED}-teacher"
TEACHER = "--views 2 --minutes 103"
"""``models/teachers/README.md`` has what came of it. Two views are cheap enough to be asked about every image."""
RESNET18 = f"{S_CNN}-resnet18"
"""The base model that parity models share."""
FIRST_18, FIRST = f"{PRETRAINED}-resnet18", f"{PRETRAINED}-s-cnn"

_TAUGHT: dict[str, Any] = {"mix": 0.5, "distil": 0.9}
_LAST: dict[str, Any] = {**_TAUGHT, "batch": 252, "muon_lr": 0.03, "sgd_lr": 0.05, "epochs": 10}


def _resnet(model: str, stem: str, *parents: str, **settings: Any) -> Step:
    recipe = Recipe(**settings)
    return Step(model, options={"stem": stem}, recipe=recipe, parents=parents, live_teachers=(TEACHER_ROLE,))


def _vgg(k: int, widths: Sequence[int], *parents: str, **settings: Any) -> Step:
    recipe = Recipe(**{"sgd_lr": 0.04, "bias_gain": 32.0, "muon_lr": 0.12, **_TAUGHT, **settings})
    options = {"widths": [*widths]}
    return Step("collage-vgg", k=k, options=options, recipe=recipe, parents=parents, live_teachers=(TEACHER_ROLE,))


def _residual(k: int, widths: Sequence[int], epochs: float) -> Step:
    options = {"widths": [*widths], "blocks": [1, 1, 3, 2], "strides": [1, 2, 2, 2], "stem": 2}
    recipe = Recipe(epochs=epochs, crop=0.5, mix=0.5, distil=0.7)
    return Step("collage-resnet", size=64, k=k, options=options, recipe=recipe, live_teachers=(S_CNN,))


CIFAR10_OFFICIAL = Family(
    data_sets=("cifar10-png",),
    source="CIFAR-10 (Krizhevsky, 2009), the official pixels as PNG files",
    licence="none stated",
    ships=(S_CNN, "collage-2x2", "collage-3x3", "collage-4x4", "collage-5x5", RESNET18),
    steps={
        FIRST_18: _resnet("resnet18", "small", epochs=30, **_TAUGHT),
        RESNET18: _resnet("resnet18", "cifar", FIRST_18, **_LAST),
        FIRST: _resnet("resnet34", "small", epochs=24, **_TAUGHT),
        S_CNN: _resnet("resnet34", "cifar", FIRST, **_LAST),
        "collage-3x3": _vgg(3, (24, 64, 192, 256), batch=504, epochs=60),
        "collage-2x2": _vgg(2, (32, 96, 320, 320), "collage-3x3", batch=504, muon_lr=0.08, epochs=28),
        "collage-4x4": _vgg(4, (16, 48, 160, 256), batch=496, epochs=60),
        "collage-5x5": _vgg(5, (16, 32, 128, 192), batch=500, epochs=60),
    },
)

TINY_IMAGENET = Family(
    data_sets=("tiny-imagenet-100", "tiny-imagenet-200"),
    source="Tiny-ImageNet (Stanford CS231n): 200 classes of ImageNet at 64 px; tiny-imagenet-100 has the first 100 by "
    "WordNet number; its validation images are the test part",
    licence="none stated; the photos are ImageNet's, for research and education",
    ships=(),
    steps={
        S_CNN: Step(
            "resnet34",
            size=64,
            options={"stem": "small"},
            recipe=Recipe(epochs=24, crop=0.35, mix=0.5, small_size=40, small_share=0.6),
        ),
        "collage-2x2": _residual(2, (48, 112, 256, 512), epochs=30),
        "collage-3x3": _residual(3, (48, 96, 208, 416), epochs=40),
        "collage-4x4": _residual(4, (48, 80, 160, 320), epochs=50),
    },
)

OFFICIAL = (CIFAR10_OFFICIAL, TINY_IMAGENET)
