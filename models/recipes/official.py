"""The plan of the next zoo: the official pixels of CIFAR-10, taught by a wide net, and Tiny-ImageNet.

Epochs are plans, not findings: nothing but the teacher was trained by these steps yet. Two cores that are free take
about 100 seconds for 10^13 multiply-adds forward and backward, which makes 50 hours of CIFAR-10's steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.steps import PRETRAINED, S_CNN, Family, Recipe, Step

TEACHER = f"{PRETRAINED}-teacher"
"""The role of the wide net that ``python -m models.teacher`` trains: it is no step of ``models.train``."""
TEACHER_ARGUMENTS = ("--views", "6", "--minutes", "112")
"""Of that command. It had two cores, which others used as well, for 112 minutes."""
RESNET18 = f"{S_CNN}-resnet18"
"""The role of the base model that parity models share."""


def _resnet(model: str, *parents: str, stem: str = "cifar", **settings: Any) -> Step:
    recipe = Recipe(**{"mix": 0.5, "distil": 0.9, **settings})
    return Step(model, options={"stem": stem}, recipe=recipe, parents=parents, live_teachers=(TEACHER,))


def _long(model: str, epochs: int) -> Step:
    """Cheap epochs, at a quarter of the positions."""
    return _resnet(model, stem="small", epochs=epochs)


def _full(model: str, parent: str) -> Step:
    """The last epochs, at full resolution."""
    return _resnet(model, parent, batch=252, muon_lr=0.03, sgd_lr=0.05, epochs=10)


def _vgg(k: int, widths: Sequence[int], *parents: str, **settings: Any) -> Step:
    recipe = Recipe(**{"mix": 0.5, "distil": 0.9, "sgd_lr": 0.04, "bias_gain": 32.0, **settings})
    options = {"widths": [*widths]}
    return Step("collage-vgg", k=k, options=options, recipe=recipe, parents=parents, live_teachers=(TEACHER,))


def _tiny(k: int, widths: Sequence[int], epochs: int) -> Step:
    options = {"widths": [*widths], "blocks": [1, 1, 3, 2], "strides": [1, 2, 2, 2], "stem": 2}
    recipe = Recipe(crop=0.5, mix=0.5, distil=0.7, epochs=epochs)
    return Step("collage-resnet", size=64, k=k, options=options, recipe=recipe, live_teachers=(S_CNN,))


CIFAR10_OFFICIAL = Family(
    data_sets=("cifar10-png",),
    source="CIFAR-10 (Krizhevsky, 2009), the official pixels as PNG files",
    licence="none stated",
    ships=(S_CNN, "collage-2x2", "collage-3x3", "collage-4x4", "collage-5x5", RESNET18),
    steps={
        f"{PRETRAINED}-resnet18": _long("resnet18", 30),
        RESNET18: _full("resnet18", f"{PRETRAINED}-resnet18"),
        f"{PRETRAINED}-s-cnn": _long("resnet34", 24),
        S_CNN: _full("resnet34", f"{PRETRAINED}-s-cnn"),
        "collage-3x3": _vgg(3, (24, 64, 192, 256), batch=504, muon_lr=0.12, epochs=60),
        "collage-2x2": _vgg(2, (32, 96, 320, 320), "collage-3x3", batch=504, muon_lr=0.08, epochs=28),
        "collage-4x4": _vgg(4, (16, 48, 160, 256), batch=496, muon_lr=0.12, epochs=60),
        "collage-5x5": _vgg(5, (16, 32, 128, 192), batch=500, muon_lr=0.12, epochs=60),
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
            recipe=Recipe(crop=0.35, mix=0.5, epochs=24, small_size=40, small_share=0.6),
        ),
        "collage-2x2": _tiny(2, (48, 112, 256, 512), 30),
        "collage-3x3": _tiny(3, (48, 96, 208, 416), 40),
        "collage-4x4": _tiny(4, (48, 80, 160, 320), 50),
    },
)

OFFICIAL = (CIFAR10_OFFICIAL, TINY_IMAGENET)
