"""The codes that parity models are trained for, and models of other codes: their descriptions and their code objects.

Needs no torch.
"""

from __future__ import annotations

from collage.model_info import CodeInfo
from encoder.code import Code
from encoder.codes import CodeParameters, build
from encoder.linear import USUAL_KEYS, mean_weights
from models.steps import AnyStep, Protection, Step

ADDITION, CONCATENATION, STACKED, LEARNED = "addition", "concatenation", "stacked", "learned"
CODES = (ADDITION, CONCATENATION, STACKED, LEARNED)
"""Codes as recipes and reports call them: the first is the code ``linear`` with the paper's weights."""
PARITY_CODES = (ADDITION, CONCATENATION, STACKED)
"""Those whose redundant inputs parity models run."""


def is_learned(step: AnyStep) -> bool:
    """Whether a step trains the networks of a learned code."""
    return isinstance(step, Step) and step.protects is not None and step.protects.code == LEARNED


def described(protection: Protection, base: str = "") -> CodeInfo:
    """What a model of this code says of it; ``base`` is the version of the base model that it decodes for."""
    its = protection
    if its.code == ADDITION:
        weights = tuple(mean_weights(its.members, its.inputs)[its.row].tolist())
        keys = USUAL_KEYS[: its.members] if its.keyed else ()
        return CodeInfo("linear", its.members, its.inputs, its.row, weights=weights, keys=keys, base=base)
    if its.code == LEARNED:  # whose networks take all images of a group
        return CodeInfo(LEARNED, its.members, its.inputs, stacked=True, base=base)
    stacked = its.code == STACKED
    return CodeInfo(its.code, its.members, its.inputs, its.row, heads=True, stacked=stacked, base=base)


def built(its: CodeInfo, size: int) -> Code:
    """The code of a model that says this of it, whose input has ``size`` pixels; other rows have the paper's weights.

    Raises ValueError if there is no such code.
    """
    weights = mean_weights(its.members, its.inputs).tolist() if its.weights else []
    if weights:
        weights[its.row] = its.weights
    return build(
        CodeParameters(
            its.name,
            size,
            members=its.members,
            inputs=its.inputs,
            k=its.k,
            detection_threshold=its.detection_threshold,
            weights=tuple(map(tuple, weights)),
            keys=its.keys,
            base=its.base,
        )
    )
