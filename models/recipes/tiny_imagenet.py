"""Tiny-ImageNet: residual networks, whose collage-cnns learn from the s-cnn. Epochs are plans: none is trained yet."""

from __future__ import annotations

from collections.abc import Sequence

from models.steps import S_CNN, Family, Recipe, Step


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
