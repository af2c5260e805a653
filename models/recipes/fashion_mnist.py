"""Fashion-MNIST: every model is trained alone, from random weights."""

from __future__ import annotations

from collections.abc import Sequence

from models.steps import S_CNN, Family, Recipe, Step


def _collage(k: int, widths: Sequence[int], epochs: float) -> Step:
    return Step("collage-resnet", k=k, options={"widths": [*widths]}, recipe=Recipe(muon_lr=0.1, epochs=epochs))


FASHION_MNIST = Family(
    data_sets=("fashion-mnist",),
    source="Fashion-MNIST (Zalando Research)",
    licence="MIT, (c) 2017 Zalando SE",
    ships=(S_CNN, "collage-2x2", "collage-3x3", "collage-4x4", "collage-5x5"),
    steps={
        S_CNN: Step("resnet34", options={"stem": "small"}, recipe=Recipe(epochs=10)),
        "collage-3x3": _collage(3, (48, 128, 256), 25),
        "collage-2x2": _collage(2, (80, 192, 384), 12),
        "collage-4x4": _collage(4, (48, 96, 192), 10),
        "collage-5x5": _collage(5, (32, 80, 160), 10),
    },
)
