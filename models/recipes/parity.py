"""Parity models: the base model's network, which starts from its weights and learns with it on the same pictures.

Or a narrow network, trained from random weights, that costs a fraction of the base model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from models.steps import AnyStep, Protection, Recipe, Step

_OURS: dict[str, Any] = {"adam_lr": 0.001, "weight_decay": 1e-5, "ema": 0.995}
NARROW = (32, 64, 128, 256)
"""Channels of a ResNet-18's stages: of 32 px it takes 35 million multiply-adds, a ResNet-34 of 64 to 512 takes 290."""


def protecting(base: str, its: Step, protects: Protection, **settings: Any) -> dict[str, AnyStep]:
    """The role and the step of a parity model for a base model, a role or shipped file, that ``its`` step trained."""
    recipe = Recipe(**{**_OURS, **settings})
    step = Step(its.model, size=its.size, options=its.options, recipe=recipe, parents=(base,), base=base)
    return {protects.role: replace(step, protects=protects)}


def additions(base: str, its: Step, *members: int, **settings: Any) -> dict[str, AnyStep]:
    """Those of addition codes with one redundant input."""
    return {
        role: step
        for number in members
        for role, step in protecting(base, its, Protection("addition", number), **settings).items()
    }


def longer(steps: Mapping[str, AnyStep], *roles: str, **settings: Any) -> dict[str, AnyStep]:
    """These steps once more, from where they ended: ``<role>-longer``."""
    return {
        f"{role}-longer": replace(step, parents=(role,), recipe=replace(step.recipe, **settings))
        for role in roles
        if isinstance(step := steps[role], Step)
    }


def _schooling(members: int) -> dict[str, Any]:
    """Settings for random first weights, with the same number of groups for all codes.

    Images vary by their flip alone: the base model's outputs are stored, and it is not run in the loop. The gradient of
    a decoded output's squared error grows with the square of ``members``, to which SGD is sensitive and Muon is not.
    """
    return {"shift": 0, "batch": 128 * members, "epochs": 12.0 * members, "sgd_lr": 0.08 / members**2}


def narrow(base: str, *protects: Protection, widths: Sequence[int] = NARROW, **settings: Any) -> dict[str, AnyStep]:
    """Those of a narrow ResNet-18 with random first weights, called ``<role>-narrow``; all see as many groups."""
    return {
        f"{its.role}-narrow": Step(
            "resnet18",
            options={"widths": [*widths], "stem": "small"},
            recipe=Recipe(**{**_schooling(its.members), **settings}),
            protects=its,
            base=base,
        )
        for its in protects
    }


def ablations(base: str, its: Step, protects: Protection, images: int, **settings: Any) -> dict[str, AnyStep]:
    """The parity model as its authors train it, and ours with one change each; ``images`` are those of training."""
    ((role, ours),) = protecting(base, its, protects, **settings).items()
    if not isinstance(ours, Step):
        return {}
    epochs = ours.recipe.epochs
    changes: Mapping[str, dict[str, Any]] = {
        "fixed": {"collages": images // protects.members},
        "stale": {"stale": True},
        "steady": {"decay": False, "warmup": 0.0, "ema": 0.0},
        "squares": {"member": 0.0},
    }
    ((keyed, with_keys),) = protecting(base, its, replace(protects, keyed=True), **settings).items()
    paper = Recipe.parm(protects.members, epochs=epochs)
    return {
        keyed: with_keys,
        f"{role}-scratch": replace(ours, parents=()),
        f"{role}-paper": replace(ours, parents=(), recipe=paper),
        **{f"{role}-{name}": replace(ours, recipe=replace(ours.recipe, **change)) for name, change in changes.items()},
    }
