"""Which of several group shapes is used, where redundant workers of several are there. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping

from encoder.code import GroupShape
from frontend.policy.budget import Budget

_STEADY = 1.25
"""The shape in use stays while it would be right for this much more, or less, under way."""


def preferred(
    offers: Mapping[GroupShape, int], in_use: GroupShape | None, budget: Budget, under_way: float
) -> GroupShape:
    """The best of the shapes, of which ``offers`` tells how many groups can be run at once.

    The smallest with which the budget pays for all requests, as small groups are decoded most accurately. If it pays
    with none, the largest that the requests ``under_way`` fill, as its tokens reach farthest. Shapes with too few
    workers for their groups are left out where others are there.
    """
    best = [_best(offers, budget, under_way * factor) for factor in (1 / _STEADY, 1.0, _STEADY)]
    return in_use if in_use in best else best[1]


def _best(offers: Mapping[GroupShape, int], budget: Budget, under_way: float) -> GroupShape:
    able = [
        shape for shape, workers in offers.items()
        if under_way * min(budget.rate / shape.inputs, 1 / shape.members) <= workers
    ] or list(offers)  # fmt: skip
    if paid := [shape for shape in able if not budget.scarce(shape)]:
        return min(paid, key=lambda shape: shape.members)
    filled = [shape for shape in able if shape.members <= under_way]
    return max(filled, key=lambda shape: shape.members) if filled else min(able, key=lambda shape: shape.members)
