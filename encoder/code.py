"""What every code over a group of requests can do, and the only numbers of it that a policy needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Outputs = Sequence[NDArray[Any]]
"""What one run of a model gives: its output tensors, in the order of its description."""


class Source(StrEnum):
    """Who produced an answer."""

    S_CNN = "s_cnn"
    COLLAGE = "collage"
    PARITY = "parity"
    CODED = "coded"
    REPLICA = "replica"
    DEFAULT = "default"


@dataclass(frozen=True)
class GroupShape:
    """How many of what a group has; all that a policy knows of its code."""

    members: int
    """N: requests that are protected together."""
    inputs: int
    """r: redundant inputs, each of which costs one execution."""
    needed: int
    """Outputs, own and redundant together, from which all missing ones follow."""
    fewest: int
    """Members that make a group worth closing before it is full."""

    def __post_init__(self) -> None:
        enough = 1 <= self.inputs <= self.needed or self.inputs > self.needed == self.members
        if not (enough and 1 <= self.fewest <= self.members and self.needed <= self.members):
            raise ValueError(f"no code has such groups: {self}")

    @classmethod
    def collage(cls, cells: int) -> GroupShape:
        """That of a collage of ``cells`` cells, which is worth sending from half of its members on."""
        return cls(cells, 1, needed=1, fewest=(cells + 1) // 2)

    def decodable(self, own: int, coded: int) -> bool:
        """Whether all missing outputs follow from ``own`` outputs of members and ``coded`` redundant ones."""
        return coded >= 1 and own + coded >= self.needed


def full_group(inputs: Sequence[NDArray[np.uint8] | None], members: int) -> list[NDArray[np.uint8]]:
    """The inputs of a group that lacks none; raises ValueError unless they are ``members`` of one shape."""
    present = [each for each in inputs if each is not None]
    if len(present) != members or len({each.shape for each in present}) != 1:
        raise ValueError(f"a group of this code has {members} inputs of one shape")
    return present


@dataclass(frozen=True)
class Decoding:
    """A decoded answer for one member of a group.

    ``output`` is float32 ``[m]``, what the base model would have said: logits, or a box. ``confidence`` (0 to 1) says
    how far to trust it; None if the code cannot tell, and then the task judges by the output.
    """

    output: NDArray[np.float32]
    confidence: float | None = None


class Code(Protocol):
    """Encodes the inputs of N requests into r redundant ones, and decodes the answers that are missing.

    Member i of a group has place i. Implementations are stateless and safe to call from several threads.
    """

    name: str
    shape: GroupShape
    source: Source
    base: str
    """Version of the base model whose answers it decodes; empty for any model with its labels."""

    def quick(self, inputs: Sequence[NDArray[np.uint8] | None]) -> bool:
        """Whether ``encode`` takes less time than handing it to another thread (some 60 us)."""
        ...

    def encode(self, inputs: Sequence[NDArray[np.uint8] | None]) -> list[NDArray[np.uint8]]:
        """The r redundant inputs for N inputs; None where a group that was closed early has no member."""
        ...

    def decode(
        self, own: Mapping[int, NDArray[np.float32]], coded: Mapping[int, Outputs], filled: Sequence[int]
    ) -> Mapping[int, Decoding]:
        """Answers of members that have none of their own, by place; no entry where the code cannot tell.

        ``own`` has the outputs of members that answered, float32 ``[m]`` by place, ``coded`` those of redundant models
        by the number of their input (0 to r - 1), ``filled`` the places that have a member. Call it when the group's
        shape says that it is ``decodable``.
        """
        ...
