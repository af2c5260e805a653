"""Imagenette: photos, first at a lower resolution, then at the full one, and at last seen nearly whole."""

from __future__ import annotations

from typing import Any

from models.steps import PRETRAINED, S_CNN, Family, Recipe, Step

PLAIN, THREES, FULL = f"{PRETRAINED}-s-cnn", f"{PRETRAINED}-3x3", f"{PRETRAINED}-3x3-full"
FOURS, FIVES = f"{PRETRAINED}-4x4", f"{PRETRAINED}-5x5"
PAPER, PAPER_FULL = f"{PRETRAINED}-3x3-paper", f"{PRETRAINED}-3x3-paper-full"


def _collage(
    k: int, collage_size: int, *parents: str, stem: int = 4, strides: tuple[int, ...] = (1, 2, 2, 3), **settings: Any
) -> Step:
    """Ours; ``stem`` and ``strides`` are such that positions align with the cells."""
    options = {"widths": [48, 96, 208, 416], "blocks": [1, 1, 3, 2], "strides": [*strides], "stem": stem}
    return _taught("collage-resnet", k, collage_size, *parents, options=options, **settings)


def _fives(*parents: str, **settings: Any) -> Step:
    return _collage(5, 400, *parents, stem=5, strides=(1, 2, 2, 2), **settings)


def _taught(
    model: str, k: int, collage_size: int, *parents: str, options: dict[str, Any] | None = None, **settings: Any
) -> Step:
    recipe = Recipe(batch=108, **settings)
    return Step(
        model, k=k, collage_size=collage_size, options=options or {}, recipe=recipe, parents=parents, teacher=S_CNN
    )


def _rival(model: str, *parents: str, options: dict[str, Any] | None = None, **settings: Any) -> Step:
    recipe = Recipe(batch=96, **settings)
    return Step(model, size=144, options=options or {}, recipe=recipe, parents=parents, teacher=S_CNN)


IMAGENETTE = Family(
    data_sets=("imagenette2-320", "imagenette-224"),
    source="Imagenette (fast.ai): 10 classes of ImageNet; imagenette-224 is a copy at 224 px with 2,391 of the 3,925 "
    "validation images",
    licence="Apache-2.0 (the selection); the photos are ImageNet's, for research and education",
    ships=(S_CNN, "collage-2x2", "collage-3x3", "collage-4x4", "collage-5x5"),
    steps={
        PLAIN: Step("resnet34", size=112, recipe=Recipe(crop=0.35, batch=96, epochs=16)),
        S_CNN: Step(
            "resnet34",
            size=224,
            recipe=Recipe(crop=0.35, batch=96, epochs=6, muon_lr=0.03, sgd_lr=0.05, small_size=176, small_share=1.0),
            parents=(PLAIN,),
        ),
        THREES: _collage(3, 288, crop=0.35, epochs=40),
        FULL: _collage(3, 432, THREES, crop=0.5, muon_lr=0.03, sgd_lr=0.08, epochs=20),
        # Crops magnify: the last epochs see images nearly whole, as those to be classified are.
        "collage-3x3": _collage(3, 432, FULL, crop=0.8, muon_lr=0.006, sgd_lr=0.02, epochs=2),
        "collage-2x2": _collage(2, 384, FULL, crop=0.6, muon_lr=0.02, sgd_lr=0.05, epochs=7),
        FOURS: _collage(4, 384, FULL, crop=0.6, muon_lr=0.03, sgd_lr=0.05, epochs=12),
        "collage-4x4": _collage(4, 384, FOURS, crop=0.8, muon_lr=0.01, sgd_lr=0.03, epochs=5),
        FIVES: _fives(FULL, crop=0.6, muon_lr=0.04, sgd_lr=0.1, epochs=12),
        "collage-5x5": _fives(FIVES, crop=0.8, muon_lr=0.015, sgd_lr=0.03, epochs=7),
        PAPER: _taught("collage-tiny", 3, 288, crop=0.35, epochs=40),
        PAPER_FULL: _taught("collage-tiny", 3, 416, PAPER, crop=0.5, muon_lr=0.03, sgd_lr=0.08, epochs=12),
        "collage-3x3-paper": _taught(
            "collage-tiny", 3, 416, PAPER_FULL, crop=0.8, muon_lr=0.006, sgd_lr=0.02, epochs=3
        ),
        "collage-3x3-yolo": _taught("collage-yolo", 3, 416, PAPER_FULL, crop=0.5, muon_lr=0.03, sgd_lr=0.08, epochs=8),
        "rival-lowres": _rival("resnet34", S_CNN, crop=0.6, muon_lr=0.01, sgd_lr=0.03, epochs=2),
        "rival-student": _rival("resnet18", options={"widths": [32, 80, 160, 320]}, crop=0.35, epochs=16),
        "rival-mobilenet": _rival("mobilenetv2", crop=0.35, epochs=5),
    },
)
