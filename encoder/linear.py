"""Linear codes: redundant inputs are weighted means of a group's inputs (Learning-based coded computation, section V).

A parity model learns the same mean of the base model's outputs, so that a missing output follows from the others by
solving a linear system. The paper adds inputs up; a mean differs by a factor only, and stays uint8.

With ``keys``, every member is turned or mirrored in its own way first, so that a parity model can tell places apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from encoder.code import Decoding, GroupShape, Outputs, Source, full_group

MOST_MEMBERS, MOST_INPUTS = 16, 4
WORST_CONDITION = 1e4
"""Of the systems to be solved; beyond that, decoding would answer with the models' noise."""
_QUICK = 60_000
"""Elements of a group, about as many as are encoded in the time that another thread takes to begin."""
_MOST_PARTS = 256
"""Of a sum of bytes that 16 bits hold."""
KEYS = 8
"""Ways to turn a square: ``key % 4`` quarter turns to the left, from 4 on of its upside-down mirror image."""
USUAL_KEYS = (0, 4, 2, 6, 1, 3, 5, 7)
"""A key for each member, by place: those that take least time first."""


def mean_weights(members: int, inputs: int) -> NDArray[np.float64]:
    """Weights ``[r, N]`` of the paper's parities as means: member i counts (i + 1) ** row (section V-C)."""
    weights = np.arange(1.0, members + 1) ** np.arange(inputs)[:, None]
    normalised: NDArray[np.float64] = weights / weights.sum(1, keepdims=True)
    return normalised


def turned(image: NDArray[np.uint8], key: int) -> NDArray[np.uint8]:
    """A square image, uint8 ``[size, size, 3]``, turned or mirrored as ``key`` says: 0 leaves it, 4 costs least."""
    if not key:
        return image
    if key % 4 == 2:  # rows that run the other way: colour by colour in half the time
        made = np.empty_like(image)
        for colour in range(3):
            made[..., colour] = (image[::-1] if key == 2 else image)[:, ::-1, colour]
        return made
    pixels = image.view("V3")[..., 0]  # whole pixels are copied twice as fast as bytes
    copied = np.ascontiguousarray(np.rot90(pixels[::-1] if key >= 4 else pixels, key % 4))
    return copied.view(np.uint8).reshape(image.shape)


class LinearCode:
    """r redundant inputs per group of N; any N of the N + r outputs give all N.

    Input j is the mean of the members' inputs with the weights of row j. ``weights`` is float ``[r, N]``, and each of
    its rows sums to 1. ``keys`` has one of 0 to 7 for each member, or is empty: how its image is turned before. Raises
    ValueError for weights from which some loss of r answers could not be decoded.
    """

    name = "linear"
    source = Source.PARITY

    def __init__(
        self, weights: Sequence[Sequence[float]] | NDArray[np.float64], base: str = "", keys: Sequence[int] = ()
    ) -> None:
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
        if keys and (len(keys) != members or not all(0 <= key < KEYS for key in keys)):
            raise ValueError(f"a linear code has a key from 0 to {KEYS - 1} for each of its {members} members, or none")
        self.shape = GroupShape(members, inputs, needed=members, fewest=members)
        self.base, self.keys = base, tuple(keys) if any(keys) else ()
        self._parts = [_whole(row) for row in self.weights]
        self._solution = lru_cache(maxsize=1024)(self._solve)

    def quick(self, inputs: Sequence[NDArray[np.uint8] | None]) -> bool:
        """Whether the inputs are small enough to be encoded at once."""
        return sum(each.size for each in inputs if each is not None) * self.shape.inputs <= _QUICK

    def encode(self, inputs: Sequence[NDArray[np.uint8] | None]) -> list[NDArray[np.uint8]]:
        """r weighted means, uint8 and of the inputs' shape, rounded to the nearest number."""
        present = full_group(inputs, self.shape.members)
        if self.keys:
            present = [turned(each, key) for each, key in zip(present, self.keys, strict=True)]
        return [
            weighted_mean(present, row) if parts is None else _mean_of_parts(present, parts)
            for row, parts in zip(self.weights.astype(np.float32), self._parts, strict=True)
        ]

    def decode(
        self, own: Mapping[int, NDArray[np.float32]], coded: Mapping[int, Outputs], filled: Sequence[int]
    ) -> Mapping[int, Decoding]:
        """Solve for the outputs that are missing; empty if there are more of them than redundant outputs.

        Where more redundant outputs came back than are missing, all are used (least squares). An output that would not
        be finite, because another one is not, has no entry.
        """
        places = range(self.shape.members)
        lost, used = tuple(place for place in places if place not in own), tuple(sorted(coded))
        if not lost or len(lost) > len(used):
            return {}
        rows = [own[place] for place in places if place in own] + [coded[row][0] for row in used]
        with np.errstate(invalid="ignore", over="ignore"):
            outputs = self._solution(lost, used) @ np.array(rows, np.float32)
        return {
            place: Decoding(outputs[n])
            for n, place in enumerate(lost)
            if place in filled and np.isfinite(outputs[n]).all()
        }

    def _solve(self, lost: tuple[int, ...], used: tuple[int, ...]) -> NDArray[np.float32]:
        """What own outputs, by place, and then the ``used`` redundant ones weigh in those that are lost."""
        there = [place for place in range(self.shape.members) if place not in lost]
        inverse = np.linalg.pinv(self.weights[np.ix_(used, lost)])
        return np.hstack([-inverse @ self.weights[np.ix_(used, there)], inverse]).astype(np.float32)


def _whole(weights: NDArray[np.float64]) -> NDArray[np.uint16] | None:
    """Small whole numbers that are to each other as the weights; None if there are none."""
    for total in range(1, _MOST_PARTS + 1):
        parts = np.rint(weights * total)
        if np.abs(weights * total - parts).max() < 1e-6 * total:
            return parts.astype(np.uint16)
    return None


def _mean_of_parts(images: Sequence[NDArray[np.uint8]], parts: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """The mean in whole numbers, in a tenth of the time that real ones take."""
    whole = parts.sum(dtype=np.uint16)
    total = np.full(images[0].shape, whole // 2, np.uint16)
    for part, image in zip(parts, images, strict=True):
        if part == 1:
            total += image
        elif part:
            total += image.astype(np.uint16) * part
    total //= whole
    mean: NDArray[np.uint8] = total.astype(np.uint8)
    return mean


def weighted_mean(images: Sequence[NDArray[np.uint8]], weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The sum of images of one shape times their weights ``[N]``, rounded; what leaves 0 to 255 is cut off."""
    total = np.multiply(images[0], weights[0], dtype=np.float32)
    for weight, image in zip(weights[1:], images[1:], strict=True):
        total += np.multiply(image, weight, dtype=np.float32)
    mean: NDArray[np.uint8] = np.rint(total, out=total).clip(0, 255, out=total).astype(np.uint8)
    return mean
