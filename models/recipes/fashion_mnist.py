"""Fashion-MNIST: every model is trained alone, from random weights, but parity models start from the s-cnn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from models.recipes.parity import NARROW, ablations, additions, longer, narrow, protecting
from models.steps import S_CNN, Family, Protection, Recipe, Step


def _collage(k: int, widths: Sequence[int], epochs: float) -> Step:
    return Step("collage-resnet", k=k, options={"widths": [*widths]}, recipe=Recipe(muon_lr=0.1, epochs=epochs))


def _learned(networks: str, base: str, epochs: float) -> Step:
    recipe = Recipe(epochs=epochs, batch=128, adam_lr=0.001, weight_decay=1e-5, ema=0.995, shift=0)
    return Step(networks, recipe=recipe, protects=Protection("learned", 2), base=base)


_MLP = f"{S_CNN}-mlp"
_S_CNN = Step("resnet34", options={"stem": "small"}, recipe=Recipe(epochs=10))
_BASE = "fashion-mnist-s-cnn.onnx"
"""Shipped, so that parity models fit the very file that they stand in for."""
# Mirrored images are all that there is of each: the base model's outputs for both are stored.
_PARITY: dict[str, Any] = {"shift": 0, "epochs": 15}

_ADDITIONS = additions(_BASE, _S_CNN, 2, 3, 4, **_PARITY)

FASHION_MNIST = Family(
    data_sets=("fashion-mnist",),
    source="Fashion-MNIST (Zalando Research)",
    licence="MIT, (c) 2017 Zalando SE",
    ships=(S_CNN, "collage-2x2", "collage-3x3", "collage-4x4", "collage-5x5"),
    steps={
        S_CNN: _S_CNN,
        "collage-3x3": _collage(3, (48, 128, 256), 25),
        "collage-2x2": _collage(2, (80, 192, 384), 12),
        "collage-4x4": _collage(4, (48, 96, 192), 10),
        "collage-5x5": _collage(5, (32, 80, 160), 10),
        **_ADDITIONS,
        **longer(_ADDITIONS, "parity-addition-4", epochs=12, adam_lr=0.0007),
        **protecting(_BASE, _S_CNN, Protection("addition", 4, keyed=True), **{**_PARITY, "epochs": 10}),
        **narrow(
            _BASE,
            *(Protection("addition", members) for members in (2, 3, 4)),
            *(Protection(code, 2) for code in ("concatenation", "stacked")),
        ),
        "rival-student": Step(
            "resnet18", options={"widths": [*NARROW], "stem": "small"}, recipe=Recipe(epochs=16), teacher=_BASE
        ),
        # Half of what it sees are redundant inputs of two images: it is its own parity model.
        "s-cnn-mixup": Step(
            "resnet18", options={"widths": [*NARROW], "stem": "small"}, recipe=Recipe(epochs=16, mixup=0.5)
        ),
        # Networks of a learned code, and the base models of its paper's table IV: ours, and a small one.
        _MLP: Step("mlp", recipe=Recipe(epochs=30, muon_lr=0.0, adam_lr=0.001, shift=1)),
        "learned-conv": _learned("learned-conv", _BASE, epochs=8),
        "learned-joint": replace(
            _learned("learned-joint", _BASE, epochs=8), options={"widths": [*NARROW], "stem": "small"}
        ),
        "learned-conv-mlp": _learned("learned-conv", _MLP, epochs=12),
        "learned-mlp-mlp": _learned("learned-mlp", _MLP, epochs=30),
        **ablations(_BASE, _S_CNN, Protection("addition", 2), images=55000, **_PARITY),
    },
)
