"""Tasks: what the outputs of a base model mean. Codes and policies handle outputs; only the edges ask for meaning."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SAME_BOX = 0.5
"""Two boxes that overlap this much (intersection over union) are the same answer, as usual in localisation."""


class TaskName(StrEnum):
    """The tasks there are, as models and the wire name them."""

    CLASSIFICATION = "classification"
    LOCALISATION = "localisation"


class Task(Protocol):
    """What an output, float32 ``[m]``, means."""

    output: str
    """Name of the answer in the Open Inference Protocol."""

    def answer(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """What a caller gets: float32 ``[m]``."""
        ...

    def confidence(self, output: NDArray[np.float32]) -> float:
        """How far to trust an output that came without a confidence, 0 to 1."""
        ...

    def agree(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
        """Whether two outputs are the same answer to a caller."""
        ...

    def score(self, output: NDArray[np.float32], truth: NDArray[np.float32] | int) -> float:
        """How good an output is, 0 to 1; the mean over images is what is reported."""
        ...


class Classification:
    """Outputs are logits, float32 ``[classes]``; the answer is probabilities, and the score top-1 accuracy."""

    output = "probabilities"

    def answer(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities by softmax; minus infinity stands for probability 0."""
        exponents = np.exp(output - output[output.argmax()])
        probabilities: NDArray[np.float32] = exponents / np.add.reduce(exponents)
        return probabilities

    def confidence(self, output: NDArray[np.float32]) -> float:
        """The largest probability."""
        return float(self.answer(output).max())

    def agree(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
        """Whether both name the same class."""
        return bool(one.argmax() == other.argmax())

    def score(self, output: NDArray[np.float32], truth: NDArray[np.float32] | int) -> float:
        """1 if the first class is ``truth``, its index, and else 0."""
        return float(output.argmax() == truth)


class Localisation:
    """Outputs are boxes, float32 ``[4]``: left, top, right, bottom in shares of the image's sides."""

    output = "box"

    def answer(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """The box, cut off where it leaves the image; its sides in order, as those of a decoded one may not be."""
        ordered: NDArray[np.float32] = np.sort(output.clip(0, 1).reshape(2, 2), 0).reshape(4)
        return ordered

    def confidence(self, output: NDArray[np.float32]) -> float:
        """1 for a box that is one, 0 where within the image right is not beyond left, or bottom not below top."""
        left, top, right, bottom = output.clip(0, 1).tolist()
        return float(left < right and top < bottom)

    def agree(self, one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
        """Whether the boxes overlap by half."""
        return self.score(one, other) >= SAME_BOX

    def score(self, output: NDArray[np.float32], truth: NDArray[np.float32] | int) -> float:
        """Intersection over union with the true box."""
        one, other = self.answer(output), self.answer(np.asarray(truth, np.float32))
        sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
        shared = float(np.prod(sides.clip(0)))
        areas = sum(float(np.prod((box[2:] - box[:2]).clip(0))) for box in (one, other))
        return shared / (areas - shared) if areas > shared else 0.0


TASKS: Mapping[str, Task] = {TaskName.CLASSIFICATION: Classification(), TaskName.LOCALISATION: Localisation()}
