"""Requests on their way through the frontend, and their answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from collage.model_info import ModelInfo
from collage.serving import ServiceError
from encoder.image import Pixels


class Source(StrEnum):
    """Who produced an answer."""

    S_CNN = "s_cnn"
    COLLAGE = "collage"
    REPLICA = "replica"
    DEFAULT = "default"


class Outcome(NamedTuple):
    """An answer: class probabilities float32 ``[classes]`` and where they came from. Times in seconds."""

    request_id: str
    probabilities: NDArray[np.float32]
    source: Source
    model: ModelInfo
    confidence: float | None
    group_id: str
    cell: int | None
    queue_s: float
    inference_s: float
    total_s: float

    @property
    def degraded(self) -> bool:
        """Whether it is an approximation."""
        return self.source in (Source.COLLAGE, Source.DEFAULT)


class Answer(NamedTuple):
    """What a worker said, and the model that said so: another one may be in use by the time it is told."""

    probabilities: NDArray[np.float32]
    model: ModelInfo
    queue_s: float
    inference_s: float
    confidence: float | None = None


@dataclass(slots=True)
class Job:
    """A request being served."""

    id: int
    name: str
    admitted_at: float
    expires: float
    model: ModelInfo  # the s-cnn that the image is prepared for
    future: asyncio.Future[Outcome]
    image: Pixels = field(init=False)
    tried: dict[int, str] = field(default_factory=dict)  # attempt: address
    answers: dict[int, Answer] = field(default_factory=dict)
    coded: Answer | None = None
    group: tuple[str, int] | None = None  # its id and the cell
    audited: bool = False  # answered from the code, and the s-cnn's answer is awaited to compare
    error: ServiceError | None = None  # of the last attempt that failed

    def answer(self, answer: Answer, source: Source, at: float) -> None:
        """Tell the caller at a time of the event loop, unless that is done."""
        if self.future.done():
            return
        group_id, cell = self.group if self.group else ("", None)
        self.future.set_result(
            Outcome(
                request_id=self.name,
                probabilities=answer.probabilities,
                source=source,
                model=answer.model,
                confidence=answer.confidence,
                group_id=group_id,
                cell=cell,
                queue_s=answer.queue_s,
                inference_s=answer.inference_s,
                total_s=at - self.admitted_at,
            )
        )


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities, float32 ``[labels]``, of scores that make sense."""
    exponents = np.exp(scores - scores.max())
    probabilities: NDArray[np.float32] = exponents / exponents.sum()
    return probabilities
