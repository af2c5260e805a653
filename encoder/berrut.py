"""Berrut's rational interpolation as a code: the base model itself runs the redundant inputs, and nothing is trained.

Members and redundant inputs are points of one curve through the members' inputs. The base model's outputs are taken as
points of a curve as well, on which missing ones are read off; that is an approximation, and the better the smoother the
model is along the curve (ApproxIFER, Soleymani et al. 2021; Jahani-Nezhad and Maddah-Ali 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.code import Decoding, GroupShape, Outputs, Source, full_group
from encoder.linear import weighted_mean

MOST_POINTS = 64


def berrut_weights(nodes: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the value at every node weighs in the interpolant at every point: ``[n]`` and ``[p]`` to ``[p, n]``.

    Nodes must be different, in any order; rows sum to 1. Signs alternate along the line, so that there are no poles.
    At a node, the interpolant is the value there.
    """
    signs = np.empty(len(nodes))
    signs[np.argsort(nodes)] = (-1.0) ** np.arange(len(nodes))
    distances = at[:, None] - nodes[None, :]
    meets = np.isclose(distances, 0, atol=1e-12)
    terms = signs / np.where(meets, 1, distances)
    terms = np.where(meets.any(1, keepdims=True), meets, terms)
    weights: NDArray[np.float64] = terms / terms.sum(1, keepdims=True)
    return weights


def chebyshev(count: int) -> NDArray[np.float64]:
    """Chebyshev's points of the first kind between 1 and -1, falling."""
    points: NDArray[np.float64] = np.cos((2 * np.arange(count) + 1) * np.pi / (2 * count))
    return points


class BerrutCode:
    """Members' own answers, and r redundant ones between them: the systematic form.

    N + r Chebyshev points are shared out so that the redundant ones lie evenly among the members. Two members and one
    redundant input are the mean and its inverse; with more, decoding is not exact even for the identity.
    """

    name = "berrut"
    source = Source.CODED

    def __init__(self, members: int, inputs: int = 1, base: str = "") -> None:
        if not (members >= 2 and inputs >= 1 and members + inputs <= MOST_POINTS):
            raise ValueError(
                f"the code {self.name} has 2 or more members and 1 or more redundant inputs, at most {MOST_POINTS} "
                f"together, not {members} and {inputs}"
            )
        self.shape, self.base = GroupShape(members, inputs, needed=members, fewest=members), base
        self.member_points, self.coded_points = self._points(members, inputs)
        self.weights = berrut_weights(self.member_points, self.coded_points)
        """Of every member in every redundant input: float64 ``[r, N]``, rows sum to 1, some below 0."""

    def _points(self, members: int, inputs: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        points = chebyshev(members + inputs)
        redundant = np.zeros(len(points), bool)
        redundant[(2 * np.arange(inputs) + 1) * len(points) // (2 * inputs)] = True
        return points[~redundant], points[redundant]

    def quick(self, inputs: Sequence[NDArray[np.uint8] | None]) -> bool:
        """Never."""
        return False

    def encode(self, inputs: Sequence[NDArray[np.uint8] | None]) -> list[NDArray[np.uint8]]:
        """r weighted means, uint8 and of the inputs' shape; what leaves 0 to 255 is cut off."""
        present = full_group(inputs, self.shape.members)
        return [weighted_mean(present, row) for row in self.weights.astype(np.float32)]

    def decode(
        self, own: Mapping[int, NDArray[np.float32]], coded: Mapping[int, Outputs], filled: Sequence[int]
    ) -> Mapping[int, Decoding]:
        """Interpolate what is missing through all outputs that are there; empty if they are fewer than N.

        An output that would not be finite, because another one is not, has no entry.
        """
        lost = [place for place in range(self.shape.members) if place not in own]
        if not lost or not coded or len(own) + len(coded) < self.shape.needed:
            return {}
        answered = sorted(own)
        back = [
            row for row in sorted(coded) if not np.isclose(self.member_points[answered], self.coded_points[row]).any()
        ]
        nodes = np.concatenate([self.member_points[answered], self.coded_points[back]])
        values = np.stack([own[place] for place in answered] + [coded[row][0] for row in back])
        with np.errstate(invalid="ignore", over="ignore"):
            outputs = (berrut_weights(nodes, self.member_points[lost]) @ values).astype(np.float32)
        return {
            place: Decoding(output)
            for place, output in zip(lost, outputs, strict=True)
            if place in filled and np.isfinite(output).all()
        }


class ApproxIferCode(BerrutCode):
    """N + S redundant inputs instead of the members: the non-systematic form, in which every answer is approximate.

    ``inputs`` is N + S, of which any N are enough. Members sit at Chebyshev's points of the first kind, redundant
    inputs at those of the second kind, the ends included. Where a member was also sent alone, its own answer is one
    more point.
    """

    name = "approxifer"

    def _points(self, members: int, inputs: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if inputs <= members:
            raise ValueError(
                f"{members} members without an answer of their own need more redundant inputs, not {inputs}"
            )
        return chebyshev(members), np.cos(np.arange(inputs) * np.pi / (inputs - 1))
