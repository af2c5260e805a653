"""A code that the project does not have, added as docs/codes.md says and served by the frontend as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.code import Decoding, GroupShape, Outputs, Source


class Mirrored:
    """Two requests in one input, the second one mirrored; a model of two heads answers both: needs no sibling."""

    name = "mirrored"
    shape = GroupShape(2, 1, needed=1, fewest=1)
    source = Source.CODED
    base = ""

    def quick(self, inputs: Sequence[NDArray[np.uint8] | None]) -> bool:
        """Always: it only copies."""
        return True

    def encode(self, inputs: Sequence[NDArray[np.uint8] | None]) -> list[NDArray[np.uint8]]:
        """Left the first input's left half, right the mirror image of the second one's."""
        first, second = (np.zeros((8, 8, 3), np.uint8) if each is None else each for each in inputs)
        return [np.concatenate([first[:, :4], second[:, 3::-1]], 1)]

    def decode(
        self, own: Mapping[int, NDArray[np.float32]], coded: Mapping[int, Outputs], filled: Sequence[int]
    ) -> Mapping[int, Decoding]:
        """The model's one output has the logits of both, one after the other."""
        if 0 not in coded:
            return {}
        rows = coded[0][0].reshape(2, -1)
        return {place: Decoding(rows[place], 0.8) for place in filled if place not in own}
