"""The Open Inference Protocol on the frontend: every row is a request of its own, and so is protected."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from collage.errors import ServiceError
from collage.model_info import ModelInfo
from collage.serving import Server
from encoder.image import Pixels, Waiter, decode
from frontend.decoding import AT_ONCE_S
from frontend.dispatch import Dispatcher
from inference.service import InferenceServicer, RowAnswer
from inference.tensors import ImageRows


class FrontendInference(InferenceServicer):
    """``inference.GRPCInferenceService`` on top of a dispatcher.

    ``timeout_s`` is the longest a request may take, ``max_pixels`` the largest image; a request may have
    ``max_in_flight`` rows, as more could never be admitted at once.
    """

    def __init__(
        self, server: Server, dispatcher: Dispatcher, timeout_s: float, max_pixels: int, max_in_flight: int
    ) -> None:
        super().__init__(server, max_in_flight)
        self._dispatcher, self._timeout_s, self._max_pixels = dispatcher, timeout_s, max_pixels

    @property
    def model(self) -> ModelInfo | None:
        """The s-cnn of the workers."""
        return self._dispatcher.base.info

    async def run_rows(self, images: ImageRows, ids: Sequence[str], timeout_s: float | None) -> list[RowAnswer]:
        """All rows at once; each has all of the caller's time."""
        limit_s = self._timeout_s if timeout_s is None else min(self._timeout_s, max(0.0, timeout_s))
        if images.count == 1:
            return [await self._row(images, 0, ids[0], limit_s)]
        try:
            async with asyncio.TaskGroup() as group:
                rows = [group.create_task(self._named(images, row, id, limit_s)) for row, id in enumerate(ids)]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [row.result() for row in rows]

    async def _named(self, images: ImageRows, row: int, id: str, timeout_s: float) -> RowAnswer:
        try:
            return await self._row(images, row, id, timeout_s)
        except ServiceError as error:
            error.args = (f"row {row}: {error}",)
            raise

    async def _row(self, images: ImageRows, row: int, id: str, timeout_s: float) -> RowAnswer:
        with Waiter() as caller:

            def prepare(size: int) -> Pixels:
                image = images.row(row)
                if isinstance(image, bytes):
                    return decode(image, size, self._max_pixels, caller.gone, AT_ONCE_S)
                if size != images.size:
                    raise ValueError(f"a new model came into use meanwhile: it takes {size} x {size} pixels")
                return image

            outcome = await self._dispatcher.predict(prepare, id, timeout_s, images.quick, images.size_of(row))
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
