"""Tiny-ImageNet: residual networks, whose collage-cnns learn from the s-cnn. Epochs are plans: none is trained yet.

With boxes: a localiser in the place of the s-cnn, and its parity models.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.recipes.parity import NARROW, additions, protecting
from models.steps import S_CNN, Family, Protection, Recipe, Step


def _collage(k: int, widths: Sequence[int], epochs: float) -> Step:
    options = {"widths": [*widths], "blocks": [1, 1, 3, 2], "strides": [1, 2, 2, 2], "stem": 2}
    recipe = Recipe(epochs=epochs, crop=0.5, mix=0.5, distil=0.7)
    return Step("collage-resnet", size=64, k=k, options=options, recipe=recipe, live_teachers=(S_CNN,))


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
        "collage-2x2": _collage(2, (48, 112, 256, 512), epochs=30),
        "collage-3x3": _collage(3, (48, 96, 208, 416), epochs=40),
        "collage-4x4": _collage(4, (48, 80, 160, 320), epochs=50),
    },
)

_LOCALISER = Step(
    "resnet18",
    size=64,
    options={"widths": [*NARROW], "stem": "small"},
    recipe=Recipe(epochs=4, shift=6, sgd_lr=0.05, small_size=32, small_share=0.65),
)
# Mirrored images are all that there is of each: the localiser's boxes for both are stored.
_PARITY = {"shift": 0, "epochs": 5, "small_size": 32, "small_share": 0.6}

TINY_IMAGENET_BOXES = Family(
    data_sets=("tiny-imagenet-boxes-100", "tiny-imagenet-boxes-200"),
    source=f"{TINY_IMAGENET.source}; the boxes of their objects",
    licence=TINY_IMAGENET.licence,
    ships=(),
    steps={
        S_CNN: _LOCALISER,
        **additions(S_CNN, _LOCALISER, 2, **_PARITY),
        **protecting(S_CNN, _LOCALISER, Protection("stacked", 2), **{**_PARITY, "epochs": 15}),
    },
)
