"""CIFAR-10: networks that learn from each other in rounds, and means of two networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.recipes.parity import additions, narrow
from models.steps import CURVE, PRETRAINED, S_CNN, Family, Protection, Recipe, Step

PLAIN = f"{PRETRAINED}-s-cnn"
FULL, FIRST, TAUGHT = (f"{PLAIN}-{word}" for word in ("full", "first", "taught"))
AGAIN, MEAN, MORE = (f"{PLAIN}-{word}" for word in ("again", "mean", "more"))
THREES_FIRST, THREES_MIXED = f"{PRETRAINED}-3x3-first", f"{PRETRAINED}-3x3-mixed"
TWOS = f"{PRETRAINED}-2x2"
TWOS_AGAIN, TWOS_MORE = f"{TWOS}-again", f"{TWOS}-more"

_AS_MEAN: dict[str, Any] = {"mix": 0.5, "muon_lr": 0.0, "sgd_lr": 0.0, "epochs": 0.05}
"""A mean of networks is trained no further: only the statistics of its batch norm are taken."""


def _resnet(*parents: str, live: Sequence[str] = (), **settings: Any) -> Step:
    """The s-cnn at full resolution."""
    return Step(
        "resnet34", options={"stem": "cifar"}, recipe=Recipe(**settings), parents=parents, live_teachers=tuple(live)
    )


def _vgg(
    k: int, widths: Sequence[int], *parents: str, teacher: str = "", live: Sequence[str] = (), **settings: Any
) -> Step:
    """A collage-cnn for small cells."""
    recipe = Recipe(**{"batch": 500, "sgd_lr": 0.04, "bias_gain": 32.0, **settings})
    options = {"widths": [*widths]}
    return Step(
        "collage-vgg", k=k, options=options, recipe=recipe, parents=parents, teacher=teacher, live_teachers=tuple(live)
    )


def _threes(*parents: str, **settings: Any) -> Step:
    return _vgg(3, (24, 64, 192, 256), *parents, **settings)


def _twos(*parents: str, **settings: Any) -> Step:
    return _vgg(2, (32, 96, 320, 320), *parents, **{"batch": 504, **settings})


def _fives(**settings: Any) -> Step:
    return _vgg(5, (16, 32, 128, 192), muon_lr=0.12, **settings)


CIFAR10 = Family(
    data_sets=("cifar10", "cifar10-jpeg"),
    source="CIFAR-10 (Krizhevsky, 2009); cifar10-jpeg is a copy as JPEG files with 7,970 of the 10,000 test images",
    licence="none stated",
    ships=(S_CNN, "collage-2x2", "collage-3x3", "collage-4x4", "collage-5x5", "s-cnn-resnet32"),
    steps={
        PLAIN: Step("resnet34", options={"stem": "small"}, recipe=Recipe(epochs=24)),
        FULL: _resnet(PLAIN, cutout=10, epochs=6),
        FIRST: _resnet(FULL, cutout=10, epochs=6, muon_lr=0.03, sgd_lr=0.02),
        THREES_FIRST: _threes(teacher=FIRST, cutout=8, muon_lr=0.12, epochs=30),
        THREES_MIXED: _threes(THREES_FIRST, teacher=FIRST, muon_lr=0.1, mix=0.5, epochs=24),
        # Two networks together know 1.1 points more than the better one; others learn it from them, and so on.
        "collage-3x3": _threes(
            THREES_MIXED, live=(THREES_MIXED, THREES_FIRST), mix=0.5, muon_lr=0.08, epochs=27, distil=0.8
        ),
        TAUGHT: _resnet(FIRST, live=(THREES_MIXED, THREES_FIRST), mix=0.5, batch=252, sgd_lr=0.05, epochs=8),
        TWOS: _twos(
            "collage-3x3", live=(THREES_MIXED, THREES_FIRST), mix=0.5, distil=0.7, muon_lr=0.08, epochs=28
        ),
        AGAIN: _resnet(
            TAUGHT, live=(TWOS, THREES_FIRST), mix=0.5, batch=252, muon_lr=0.05, sgd_lr=0.04, epochs=7.5
        ),
        TWOS_AGAIN: _twos(TWOS, live=(TAUGHT, TWOS), mix=0.5, distil=0.7, sgd_lr=0.03, epochs=15),
        MEAN: _resnet(AGAIN, TAUGHT, batch=252, **_AS_MEAN),
        MORE: _resnet(
            MEAN, live=(TWOS_AGAIN, "collage-3x3"), mix=0.5, batch=252, muon_lr=0.03, sgd_lr=0.025, epochs=7
        ),
        S_CNN: _resnet(MORE, MEAN, batch=252, **_AS_MEAN),
        TWOS_MORE: _twos(
            *(TWOS_AGAIN,), live=(MEAN, TWOS_AGAIN, "collage-3x3"),
            mix=0.75, distil=0.85, muon_lr=0.04, sgd_lr=0.02, epochs=10,
        ),
        "collage-2x2": _twos(TWOS_MORE, TWOS_AGAIN, **_AS_MEAN),
        "collage-4x4": _vgg(4, (16, 48, 160, 256), teacher=FIRST, cutout=6, muon_lr=0.12, epochs=20),
        "collage-5x5": _fives(teacher=FIRST, cutout=6, epochs=16),
        "collage-3x3-paper": Step(
            "collage-tiny", k=3, recipe=Recipe(batch=500, muon_lr=0.1, sgd_lr=0.04, epochs=14), teacher=FIRST
        ),
        "s-cnn-resnet32": Step("resnet32", recipe=Recipe(batch=128, epochs=16)),
        "collage-3x3-yolo": Step(
            "collage-yolo", k=3, options={"pools": 4}, recipe=Recipe(muon_lr=0.1, epochs=30), teacher=S_CNN
        ),
        "rival-student": Step(
            "resnet18", options={"widths": [32, 64, 128, 256], "stem": "small"}, recipe=Recipe(epochs=30), teacher=S_CNN
        ),
        "rival-mobilenet": Step("mobilenetv2", options={"stem": "small"}, recipe=Recipe(epochs=20), teacher=S_CNN),
        **additions("cifar10-jpeg-s-cnn.onnx", _resnet(), 2, epochs=10),
        **narrow("cifar10-jpeg-s-cnn.onnx", Protection("addition", 2), widths=(48, 96, 192, 384)),
        # The 5 x 5 collage-cnn, trained briefly on some number of different collages; 0: fresh ones in each epoch.
        **{f"{CURVE}-{count}": _fives(epochs=4, collages=count) for count in (400, 1800, 5400, 0)},
    },
)  # fmt: skip
