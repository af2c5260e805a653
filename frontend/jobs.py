"""Requests on their way through the frontend, and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Histogram

from collage.errors import ServiceError
from collage.model_info import ModelInfo
from encoder.code import Source
from encoder.image import SlowImage
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


class ImageLine:
    """Images on the threads of an ``executor``, which decode at most ``slow_images`` at once that take long.

    The executor has more threads than that. ``seconds`` counts how long decoding takes.
    """

    def __init__(self, executor: Executor, slow_images: int, seconds: Histogram) -> None:
        self.waiting = 0
        """Images that are not decoded yet, without those that take long."""
        self._executor, self._seconds = executor, seconds
        self._places = asyncio.Semaphore(slow_images)

    async def run(self, job: Job, prepare: Callable[[], NDArray[np.uint8]]) -> None:
        """Make the job's input by ``prepare``, in a thread; raises what it raises, except for SlowImage."""
        loop = asyncio.get_running_loop()
        self.waiting += 1
        try:
            job.input = await loop.run_in_executor(self._executor, self._timed, prepare)
            return
        except SlowImage as image:
            finish = image.finish
        finally:
            self.waiting -= 1
        job.slow = True
        await self._places.acquire()
        running = self._executor.submit(self._timed, finish)
        # Not when the caller has gone: the thread goes on for a while.
        running.add_done_callback(lambda _: loop.call_soon_threadsafe(self._places.release))
        job.input = await asyncio.wrap_future(running)

    def _timed(self, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        with self._seconds.time():
            return make()
