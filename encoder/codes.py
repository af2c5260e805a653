"""The codes there are: the one place that lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from encoder.berrut import ApproxIferCode, BerrutCode
from encoder.code import Code
from encoder.collage import CollageCode
from encoder.grid import Grid
from encoder.heads import ConcatenationCode, StackedCode
from encoder.learned import LearnedCode, Networks
from encoder.linear import LinearCode, mean_weights


@dataclass(frozen=True)
class CodeParameters:
    """What redundant models say of their code, all rows together."""

    name: str
    """A key of ``CODES``."""
    size: int
    """Side of the redundant input, in pixels."""
    members: int = 0
    """N, the requests of a group."""
    inputs: int = 1
    """r, the redundant inputs of a group."""
    k: int = 0
    """Cells in a row of a collage; 0 for other codes."""
    detection_threshold: float = 0.15
    """Detections below this confidence are ignored (collage), 0 to 1."""
    weights: tuple[tuple[float, ...], ...] = ()
    """One row for each redundant input, one weight for each member (linear); empty for the paper's."""
    keys: tuple[int, ...] = ()
    """How every member's image is turned; empty if none is (linear)."""
    networks: Networks | None = None
    """The encoder and the decoder (learned)."""
    base: str = ""
    """Version of the base model that is decoded for; empty for any with the same labels."""


CODES: Mapping[str, Callable[[CodeParameters], Code]] = {
    "collage": lambda its: CollageCode(Grid(its.k, its.size), its.detection_threshold, its.base),
    "linear": lambda its: LinearCode(its.weights or mean_weights(its.members, its.inputs), its.base, its.keys),
    "concatenation": lambda its: ConcatenationCode(its.members, its.base),
    "stacked": lambda its: StackedCode(its.members, its.base),
    "berrut": lambda its: BerrutCode(its.members, its.inputs, its.base),
    "approxifer": lambda its: ApproxIferCode(its.members, its.inputs, its.base),
    "learned": lambda its: _learned(its),
}


ROWS_FOR_MEMBERS = frozenset({"concatenation", "stacked"})
"""Codes whose model gives an output for every member, ``[N, m]``."""
WHOLE_INPUTS = frozenset({"stacked"})
"""Codes whose model takes all inputs whole, ``[N, size, size, 3]``."""


def _learned(its: CodeParameters) -> Code:
    if its.networks is None:
        raise ValueError("a learned code needs its encoder and decoder: give the frontend --code learned:FOLDER")
    return LearnedCode(its.networks, its.base)


def build(parameters: CodeParameters) -> Code:
    """The code with these parameters; raises ValueError, which says what is wrong, if there is no such code."""
    make = CODES.get(parameters.name)
    if make is None:
        raise ValueError(f"there is no code {parameters.name!r}, only {', '.join(CODES)}")
    return make(parameters)
