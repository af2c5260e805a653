"""The Open Inference Protocol on an s-cnn worker: its model runs on one row after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from collage.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted
from collage.model_info import ModelInfo
from collage.serving import Server
from encoder.image import Waiter, decode
from encoder.tasks import TASKS
from inference.service import InferenceServicer, RowAnswer
from inference.tensors import ImageRows
from worker.engine import Engine

MAX_ROWS = 1024
"""Images in one request; they take one place in the queue, one at a time."""
NO_MEMORY = "there is not enough memory for this image now: try again later, or send a smaller one"


class WorkerInference(InferenceServicer):
    """``inference.GRPCInferenceService`` on top of an engine that runs an s-cnn."""

    def __init__(self, server: Server, engine: Engine, max_pixels: int, decoder: Executor | None = None) -> None:
        """Encoded images may have ``max_pixels``. ``decoder`` decodes one at a time, as each takes much memory."""
        super().__init__(server, MAX_ROWS)
        self._engine, self._max_pixels = engine, max_pixels
        self._decoder = decoder or ThreadPoolExecutor(1, "image")
        self._running = 0

    @property
    def model(self) -> ModelInfo:
        """The worker's model."""
        return self._engine.model.info

    async def run_rows(self, images: ImageRows, ids: Sequence[str], timeout_s: float | None) -> list[RowAnswer]:
        """One row after the other; raises ResourceExhausted if as many requests as may queue are here already."""
        if self._running > self._engine.queue_size:
            raise ResourceExhausted(f"{self._running} requests are here already: try again later")
        self._running += 1
        try:
            return await self._rows(images, ids, timeout_s)
        finally:
            self._running -= 1

    async def _rows(self, images: ImageRows, ids: Sequence[str], timeout_s: float | None) -> list[RowAnswer]:
        expires = None if timeout_s is None else _now() + timeout_s
        try:
            async with asyncio.timeout_at(expires):
                return [await self._row(images, row, id, expires) for row, id in enumerate(ids)]
        except TimeoutError:
            raise DeadlineExceeded("no answer came in time") from None

    async def _row(self, images: ImageRows, row: int, id: str, expires: float | None) -> RowAnswer:
        try:
            with Waiter() as caller:
                loop = asyncio.get_running_loop()
                image = await loop.run_in_executor(self._decoder, self._pixels, images, row, caller)
        except ValueError as error:
            raise InvalidArgument(f"row {row}: {error}" if images.count > 1 else str(error)) from None
        except MemoryError:
            raise ResourceExhausted(NO_MEMORY) from None
        done = await self._engine.infer(image, id, 0, None if expires is None else expires - _now())
        output = TASKS[self.model.task].answer(done.outputs[0])
        return RowAnswer(output, self.model, "S_CNN", False, None, done.queue_s, done.inference_s)

    def _pixels(self, images: ImageRows, row: int, caller: Waiter) -> NDArray[np.uint8]:
        image = images.row(row)
        return decode(image, images.size, self._max_pixels, caller.gone) if isinstance(image, bytes) else image


def _now() -> float:
    return asyncio.get_running_loop().time()
