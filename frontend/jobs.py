"""Requests on their way through the frontend, and their answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from collage.errors import ServiceError
from collage.model_info import ModelInfo
from encoder.code import Source
from encoder.tasks import TASKS


class WorkerAnswer(NamedTuple):
    """What a worker said, or a code made of what workers said; the base model may have changed by the time it is told.

    ``output`` is float32 ``[m]`` as the task has it (logits, a box); ``model`` is the one that ran. Times in seconds.
    """

    output: NDArray[np.float32]
    model: ModelInfo
    source: Source
    queue_s: float = 0.0
    inference_s: float = 0.0
    confidence: float | None = None


class Outcome(NamedTuple):
    """The end of a request: its answer, and where that came from. Times in seconds."""

    request_id: str
    answered: WorkerAnswer
    task: str
    labels: tuple[str, ...]
    group_id: str
    place: int | None
    total_s: float

    @property
    def answer(self) -> NDArray[np.float32]:
        """What the caller gets, float32 ``[m]``: class probabilities, or a box."""
        return TASKS[self.task].answer(self.answered.output)

    @property
    def degraded(self) -> bool:
        """Whether it is an approximation."""
        return self.answered.source not in (Source.S_CNN, Source.REPLICA)


@dataclass(slots=True)
class Job:
    """A request being served."""

    id: int
    name: str
    admitted_at: float
    expires: float
    model: ModelInfo
    """The base model that the input is prepared for."""
    future: asyncio.Future[Outcome]
    input: NDArray[np.uint8] = field(init=False)
    slow: bool = False
    """Its image takes long to decode, and waits for others such only."""
    tried: dict[int, str] = field(default_factory=dict)
    """Addresses by attempt."""
    answers: dict[int, WorkerAnswer] = field(default_factory=dict)
    """By attempt."""
    coded: WorkerAnswer | None = None
    group: int = 0
    """Of the policy; 0 until the group's code was sent."""
    group_id: str = ""
    place: int | None = None
    audited: bool = False
    """Answered from the code; the base model's own answer is awaited, to compare."""
    error: ServiceError | None = None
    """Of the last attempt that failed."""

    def answer(self, answered: WorkerAnswer, at: float) -> None:
        """Tell the caller at a time of the event loop, unless that is done."""
        if not self.future.done():
            task, labels = self.model.task, answered.model.labels
            self.future.set_result(
                Outcome(self.name, answered, task, labels, self.group_id, self.place, at - self.admitted_at)
            )
