"""What every code over a group of images can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoder.image import Pixels

Output = TypeVar("Output", contravariant=True)


@dataclass(frozen=True)
class Prediction:
    """A decoded answer for one member of a group.

    ``probabilities`` is float32 ``[classes]`` and sums to 1; ``confidence`` (0 to 1) says how far to trust it.
    """

    probabilities: NDArray[np.float32]
    confidence: float


class Code(Protocol[Output]):
    """Encodes N images into r redundant inputs, and their outputs back into predictions.

    Member i of a group is image i. Implementations are stateless and safe to call from several threads.
    """

    @property
    def members(self) -> int:
        """N, how many images a group protects."""
        ...

    def encode(self, images: Sequence[Pixels | None]) -> list[Pixels]:
        """The r redundant inputs for N images; None where a partial group has no member."""
        ...

    def decode(
        self,
        outputs: Sequence[Output | None],
        filled: Sequence[bool],
        scores: Mapping[int, NDArray[np.float32]] | None = None,
    ) -> list[Prediction | None]:
        """One prediction per member, None where the code cannot tell.

        ``outputs`` are the r redundant models' outputs, None where one is missing; ``filled`` says which members
        exist; ``scores`` are the logits of members that have answered, which some codes need.
        """
        ...
