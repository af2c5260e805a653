"""Workers without a network: the production Transport protocol over scripted behaviour."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collage.model_info import ModelInfo, ModelKind
from encoder.grid import Grid
from encoder.image import Pixels
from frontend.workers import Ended, Pool, PoolSettings, Reply, WorkerFailure

Outputs = tuple[NDArray[Any], ...]
LABELS = tuple("abcdefghij")
SIZE = 8
S_CNN = ModelInfo.make("s", ModelKind.S_CNN, LABELS, SIZE, version="1")
COLLAGE = ModelInfo.collage("c", LABELS, 2 * SIZE, 2, version="1")


class InlineExecutor(Executor):
    """Runs work at once, in the caller's thread, and counts it."""

    submitted = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted += 1
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class FakeCall:
    """One call a fake worker got."""

    at: float
    request_id: str
    attempt: int
    image: Pixels


@dataclass
class FakeTransport:
    """A worker that behaves as scripted: ``behave(call)`` waits and answers, or raises WorkerFailure."""

    info: ModelInfo
    behave: Callable[[FakeCall], Awaitable[Outputs]]
    calls: list[FakeCall] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    thawed: asyncio.Event = field(default_factory=asyncio.Event)
    frozen: bool = False

    def run(self, image: Pixels, request_id: str, attempt: int, timeout_s: float, ended: Ended) -> asyncio.Task[Reply]:
        def over(task: asyncio.Task[Reply]) -> None:
            if task.cancelled():
                ended(None)
                return
            failure = task.exception()
            assert failure is None or isinstance(failure, WorkerFailure)
            ended(failure or task.result())

        task = asyncio.get_running_loop().create_task(self._run(image, request_id, attempt))
        task.add_done_callback(over)
        return task

    async def _run(self, image: Pixels, request_id: str, attempt: int) -> Reply:
        clock = asyncio.get_running_loop().time
        call = FakeCall(clock(), request_id, attempt, image)
        self.calls.append(call)
        try:
            outputs = await self.behave(call)
            return Reply(outputs, 0.0, min(0.1, clock() - call.at))
        except asyncio.CancelledError:
            self.cancelled.append(request_id)
            raise

    async def settle(self) -> None:
        if self.frozen:
            await self.thawed.wait()

    async def ping(self) -> ModelInfo:
        return self.info

    async def watch(self, changed: Callable[[bool], None]) -> None:
        changed(True)
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


def image(label: int) -> Pixels:
    """An image whose class its brightness tells, to fake models."""
    return np.full((SIZE, SIZE, 3), 20 + 20 * label, np.uint8)


def label_of(brightness: int) -> int:
    """The class of a brightness, which may have suffered a little."""
    return round((brightness - 20) / 20)


def classify(pixels: Pixels) -> Outputs:
    """Logits of the fake s-cnn, its only output."""
    logits = np.zeros(len(LABELS), np.float32)
    logits[label_of(int(pixels[0, 0, 0]))] = 5.0
    return (logits,)


def detect(collage: Pixels, confidence: float = 0.9) -> Outputs:
    """What the fake collage-cnn detects: one perfect box for every filled cell, in reverse order."""
    grid = Grid(2, len(collage))
    values = [int(collage[box[1] + 1, box[0] + 1, 0]) for box in map(grid.box, range(grid.cells))]
    cells = [cell for cell in reversed(range(grid.cells)) if values[cell]]
    probabilities = np.zeros((len(cells), len(LABELS)), np.float32)
    for row, cell in enumerate(cells):
        probabilities[row, label_of(values[cell])] = 1.0
    return grid.boxes[cells], np.full(len(cells), confidence, np.float32), probabilities


def s_cnn_after(seconds: float | Callable[[FakeCall], float]) -> Callable[[FakeCall], Awaitable[Outputs]]:
    """An s-cnn that takes this long."""

    async def behave(call: FakeCall) -> Outputs:
        await asyncio.sleep(seconds(call) if callable(seconds) else seconds)
        return classify(call.image)

    return behave


def collage_after(seconds: float, confidence: float = 0.9) -> Callable[[FakeCall], Awaitable[Outputs]]:
    """A collage-cnn that takes this long."""

    async def behave(call: FakeCall) -> Outputs:
        await asyncio.sleep(seconds)
        return detect(call.image, confidence)

    return behave


async def pool(role: str, transports: dict[str, FakeTransport]) -> Pool:
    """A pool over fake workers."""
    return Pool(role, ",".join(transports), transports.__getitem__, PoolSettings(seed=0))
