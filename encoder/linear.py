"""Linear codes: redundant inputs are weighted means of a group's inputs (Learning-based coded computation, section V).

A parity model learns the same mean of the base model's outputs, so that a missing output follows from the others by
solving a linear system. The paper adds inputs up; a mean differs by a factor only, and stays uint8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from encoder.code import Decoding, GroupShape, Outputs, Source

MOST_MEMBERS, MOST_INPUTS = 16, 4
WORST_CONDITION = 1e4
"""Of the systems to be solved; beyond that, decoding would answer with the models' noise."""
_QUICK = 20_000
"""Elements of a group, about as many as are encoded in the time that another thread takes to begin."""


def mean_weights(members: int, inputs: int) -> NDArray[np.float64]:
    """Weights ``[r, N]`` of the paper's parities as means: member i counts (i + 1) ** row (section V-C)."""
    weights = np.arange(1.0, members + 1) ** np.arange(inputs)[:, None]
    normalised: NDArray[np.float64] = weights / weights.sum(1, keepdims=True)
    return normalised


class LinearCode:
    """r redundant inputs per group of N; any N of the N + r outputs give all N.

    Input j is the mean of the members' inputs with the weights of row j. ``weights`` is float ``[r, N]``, and each of
    its rows sums to 1. Raises ValueError for weights from which some loss of r answers could not be decoded.
    """

    name = "linear"
    source = Source.PARITY

    def __init__(self, weights: Sequence[Sequence[float]] | NDArray[np.float64], base: str = "") -> None:
        self.weights = np.asarray(weights, np.float64)
        if self.weights.ndim != 2:
            raise ValueError("a linear code needs one row of weights for each redundant input")
        inputs, members = self.weights.shape
        if not (2 <= members <= MOST_MEMBERS and 1 <= inputs <= min(members, MOST_INPUTS)):
            raise ValueError(
                f"a linear code has 2 to {MOST_MEMBERS} members and 1 to {MOST_INPUTS} redundant inputs, at most as "
                f"many as members; not {members} and {inputs}"
            )
        sums = self.weights.sum(1)
        if not np.isfinite(self.weights).all() or (self.weights < 0).any() or np.abs(sums - 1).max() > 1e-5:
            raise ValueError("the weights of a redundant input are shares: none below 0, and their sum is 1")
        for rows in range(1, inputs + 1):
            for used in combinations(range(inputs), rows):
                for lost in combinations(range(members), rows):
                    if np.linalg.cond(self.weights[np.ix_(used, lost)]) > WORST_CONDITION:
                        raise ValueError(f"with these weights, members {lost} cannot be told apart by inputs {used}")
        self.shape = GroupShape(members, inputs, needed=members, fewest=members)
        self.base = base
        self._inverse = lru_cache(maxsize=1024)(self._pseudo_inverse)

    def quick(self, inputs: Sequence[NDArray[np.uint8] | None]) -> bool:
        """Whether the inputs are small enough to be encoded at once."""
        return sum(each.size for each in inputs if each is not None) * self.shape.inputs <= _QUICK

    def encode(self, inputs: Sequence[NDArray[np.uint8] | None]) -> list[NDArray[np.uint8]]:
        """r weighted means, uint8 and of the inputs' shape, rounded to the nearest number."""
        present = [each for each in inputs if each is not None]
        if len(present) != self.shape.members or len({each.shape for each in present}) != 1:
            raise ValueError(f"a group of this code has {self.shape.members} inputs of one shape")
        parities = []
        for row in self.weights.astype(np.float32):
            total = np.multiply(present[0], row[0], dtype=np.float32)
            for weight, each in zip(row[1:], present[1:], strict=True):
                total += np.multiply(each, weight, dtype=np.float32)
            parities.append(np.rint(total, out=total).astype(np.uint8))
        return parities

    def decode(
        self, own: Mapping[int, NDArray[np.float32]], coded: Mapping[int, Outputs], filled: Sequence[int]
    ) -> Mapping[int, Decoding]:
        """Solve for the outputs that are missing; empty if there are more of them than redundant outputs.

        Where more redundant outputs came back than are missing, all are used (least squares). An output that would not
        be finite, because another one is not, has no entry.
        """
        lost = tuple(place for place in range(self.shape.members) if place not in own)
        used = tuple(sorted(coded))
        if not lost or len(lost) > len(used):
            return {}
        rest = np.stack([np.asarray(coded[row][0], np.float64) for row in used])
        with np.errstate(invalid="ignore", over="ignore"):
            for place, output in own.items():
                rest -= self.weights[used, place][:, None] * output
            outputs = (self._inverse(lost, used) @ rest).astype(np.float32)
        return {
            place: Decoding(output)
            for place, output in zip(lost, outputs, strict=True)
            if place in filled and np.isfinite(output).all()
        }

    def _pseudo_inverse(self, lost: tuple[int, ...], used: tuple[int, ...]) -> NDArray[np.float64]:
        return np.linalg.pinv(self.weights[np.ix_(used, lost)]).astype(np.float64)
