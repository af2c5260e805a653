"""Learned codes: networks make the redundant inputs and decode (Learning-based coded computation, section IV).

The base model itself runs the redundant inputs, or a model that was trained with the two networks (section VI-C). Who
runs the networks is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.code import Decoding, GroupShape, Outputs, Source, full_group

BASE = "base"
"""Key of the metadata of a decoder's file: the version of the model whose outputs it decodes."""


@dataclass(frozen=True)
class Networks:
    """An encoder and a decoder for N ``members`` and r ``inputs``; both may be called from several threads."""

    members: int
    inputs: int
    encode: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    """Images ``[N, size, size, 3]`` to redundant inputs ``[r, size, size, 3]``."""
    decode: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    """Outputs ``[N + r, m]``, those of members first and zeros for what is missing, to those of members ``[N, m]``."""
    base: str = ""
    """Version of the base model whose outputs they decode; empty: not known."""


class LearnedCode:
    """r redundant inputs per group of N; up to r missing answers are what the decoder makes of all that are there."""

    name = "learned"
    source = Source.CODED

    def __init__(self, networks: Networks, base: str = "") -> None:
        members, inputs = networks.members, networks.inputs
        self.networks, self.base = networks, base
        self.shape = GroupShape(members, inputs, needed=members, fewest=members)

    def quick(self, inputs: Sequence[NDArray[np.uint8] | None]) -> bool:
        """Never: a network takes its time."""
        return False

    def encode(self, inputs: Sequence[NDArray[np.uint8] | None]) -> list[NDArray[np.uint8]]:
        """What the encoder makes of a full group."""
        return [*self.networks.encode(np.stack(full_group(inputs, self.shape.members)))]

    def decode(
        self, own: Mapping[int, NDArray[np.float32]], coded: Mapping[int, Outputs], filled: Sequence[int]
    ) -> Mapping[int, Decoding]:
        """What the decoder makes of all outputs; empty if more are missing than redundant ones are there.

        An output that is not finite has no entry.
        """
        members = self.shape.members
        lost = [place for place in filled if place not in own]
        if not lost or not coded or len(own) + len(coded) < members:
            return {}
        known = {**own, **{members + row: outputs[0] for row, outputs in coded.items()}}
        stacked = np.zeros((members + self.shape.inputs, *next(iter(known.values())).shape), np.float32)
        for row, output in known.items():
            stacked[row] = output
        decoded = self.networks.decode(stacked)
        return {place: Decoding(decoded[place]) for place in lost if np.isfinite(decoded[place]).all()}
