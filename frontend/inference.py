"""The Open Inference Protocol on the frontend: every row is a request of its own, and so is protected."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from collage.errors import DeadlineExceeded, ResourceExhausted, ServiceError
from collage.model_info import ModelInfo
from collage.serving import Server
from encoder.image import Pixels, Waiter, decode
from frontend.dispatch import AT_ONCE_S, SHORTEST_RETRY_S, Dispatcher
from inference.service import InferenceServicer, RowAnswer
from inference.tensors import ImageRows

FEWEST_ROWS = 16
"""Rows of a batch under way at once, at least: as many as share a collage."""


class FrontendInference(InferenceServicer):
    """``inference.GRPCInferenceService`` on top of a dispatcher.

    ``timeout_s`` is the longest a request may take, ``max_pixels`` the largest image.
    """

    def __init__(self, server: Server, dispatcher: Dispatcher, timeout_s: float, max_pixels: int) -> None:
        super().__init__(server)
        self._dispatcher, self._timeout_s, self._max_pixels = dispatcher, timeout_s, max_pixels

    @property
    def model(self) -> ModelInfo | None:
        """The s-cnn of the workers."""
        return self._dispatcher.base.info

    async def run_rows(
        self, images: ImageRows, ids: Sequence[str], timeout_s: float | None, caller: str
    ) -> list[RowAnswer]:
        """Rows in turn, two for each worker at a time, so that a batch of any size leaves room for others."""
        limit_s = self._timeout_s if timeout_s is None else min(self._timeout_s, max(0.0, timeout_s))
        if images.count == 1:
            return [await self._row(images, 0, ids[0], limit_s, caller, images.held)]
        expires = _now() + limit_s
        answers: dict[int, RowAnswer] = {}
        waiting = iter(enumerate(ids))

        async def feed() -> None:
            for row, id in waiting:
                answers[row] = await self._in_turn(images, row, id, expires, caller)

        width = min(images.count, self._dispatcher.most_of_one, max(FEWEST_ROWS, 2 * self._dispatcher.base.ready))
        with self._dispatcher.holding(images.held, caller):
            try:
                async with asyncio.TaskGroup() as feeders:
                    for _ in range(width):
                        feeders.create_task(feed())
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from None
        return [answers[row] for row in range(images.count)]

    async def _in_turn(self, images: ImageRows, row: int, id: str, expires: float, caller: str) -> RowAnswer:
        """One row of a batch. If there is no room for it now, it waits: the batch may take all of the caller's time."""
        try:
            while True:
                try:
                    return await self._row(images, row, id, max(0.0, expires - _now()), caller, 0)
                except ResourceExhausted as full:
                    if row == 0:  # none is under way: the caller had better try another frontend
                        raise
                    pause_s = full.retry_after_s or SHORTEST_RETRY_S
                    if _now() + pause_s >= expires:
                        raise DeadlineExceeded(
                            "the time was over before its turn: send fewer rows at once, or allow more time"
                        ) from None
                    await asyncio.sleep(pause_s)
        except ServiceError as error:
            error.args = (f"row {row}: {error}",)
            raise

    async def _row(self, images: ImageRows, row: int, id: str, timeout_s: float, caller: str, size: int) -> RowAnswer:
        with Waiter() as waiter:

            def prepare(size: int) -> Pixels:
                image = images.row(row)
                if isinstance(image, bytes):
                    return decode(image, size, self._max_pixels, waiter.gone, AT_ONCE_S)
                if size != images.size:
                    raise ValueError(f"a new model came into use meanwhile: it takes {size} x {size} pixels")
                return image

            outcome = await self._dispatcher.predict(prepare, id, timeout_s, images.quick, size, caller)
        answered = outcome.answered
        return RowAnswer(
            output=outcome.answer,
            model=answered.model,
            source=answered.source.name,
            degraded=outcome.degraded,
            confidence=answered.confidence,
            queue_s=answered.queue_s,
            inference_s=answered.inference_s,
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
