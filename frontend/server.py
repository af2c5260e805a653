"""The frontend's gRPC service: convert, delegate, convert back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from collage.errors import AlreadyExists, InvalidArgument, ServiceError, Unavailable, boundary, status_of
from collage.tensors import image_from_tensor, pack
from collage.v1 import predict_pb2, predict_pb2_grpc
from encoder.code import Source
from encoder.image import Pixels, Waiter, decode
from encoder.tasks import TaskName
from frontend.decoding import AT_ONCE_S
from frontend.dispatch import Dispatcher
from inference.service import MAX_ID_BYTES

_DRAINING = "this frontend is shutting down: send to another one what was not answered"
_OLD = "this stream has been open for long enough: send on another one what was not answered"
_WIRE_SOURCES = {
    Source.S_CNN: predict_pb2.SOURCE_S_CNN,
    Source.COLLAGE: predict_pb2.SOURCE_COLLAGE,
    Source.PARITY: predict_pb2.SOURCE_PARITY,
    Source.CODED: predict_pb2.SOURCE_CODED,
    Source.REPLICA: predict_pb2.SOURCE_REPLICA,
    Source.DEFAULT: predict_pb2.SOURCE_DEFAULT,
}


class PredictServicer(predict_pb2_grpc.PredictServiceServicer):
    """``collage.v1.PredictService`` on top of a dispatcher.

    ``timeout_s`` is the longest a request may take, ``max_pixels`` the largest image, ``max_in_flight`` how many
    unanswered requests one stream may have before it is read no further. While ``draining`` is set, new requests of
    streams are refused, and streams end as UNAVAILABLE when those they have are answered. So do streams that have been
    open for ``max_stream_s``.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        timeout_s: float,
        max_pixels: int,
        max_in_flight: int,
        draining: asyncio.Event,
        max_stream_s: float | None = None,
    ) -> None:
        self._dispatcher, self._draining, self._max_stream_s = dispatcher, draining, max_stream_s
        self._timeout_s, self._max_pixels, self._max_in_flight = timeout_s, max_pixels, max_in_flight

    @boundary
    async def Predict(self, request: predict_pb2.PredictRequest, context: Any) -> predict_pb2.PredictResponse:
        """Classify one image."""
        return await self._predict(request, self._remaining(context))

    @boundary
    async def PredictStream(  # type: ignore[override]  # writes instead of yielding
        self, request_iterator: AsyncIterator[predict_pb2.PredictStreamRequest], context: Any
    ) -> None:
        """Classify images as they come; every response is written when it is ready."""
        garbled = False
        unanswered: set[str] = set()
        running: set[asyncio.Task[None]] = set()
        slots = asyncio.Semaphore(self._max_in_flight)
        writing = asyncio.Lock()

        async def answer(message: predict_pb2.PredictStreamRequest, twice: bool) -> None:
            try:
                response = await self._stream_response(message, self._remaining(context), twice)
                if not twice:
                    unanswered.discard(response.request_id)
                async with writing:
                    await context.write(response)
            finally:
                slots.release()

        async def read() -> None:
            nonlocal garbled
            try:
                async for message in request_iterator:
                    await slots.acquire()
                    id = message.request.request_id
                    running.add(task := answers.create_task(answer(message, id in unanswered)))
                    task.add_done_callback(running.discard)
                    unanswered.add(id)
            except DecodeError:  # the others are answered first: to cancel their writes could leave the call hanging
                garbled = True

        async with asyncio.TaskGroup() as answers:
            reading = answers.create_task(read())
            drained = answers.create_task(self._draining.wait())
            await asyncio.wait((reading, drained), timeout=self._max_stream_s, return_when=asyncio.FIRST_COMPLETED)
            if not drained.cancel() and running:
                await asyncio.wait(set(running))  # those that come meanwhile are refused
            unread = reading.cancel()
        if garbled:
            raise InvalidArgument("a message of the stream is no PredictStreamRequest: nothing was read after it")
        if unread:
            raise Unavailable(_DRAINING if self._draining.is_set() else _OLD)

    async def _stream_response(
        self, message: predict_pb2.PredictStreamRequest, remaining_s: float, twice: bool
    ) -> predict_pb2.PredictStreamResponse:
        id = message.request.request_id
        timeout_s = min(remaining_s, message.timeout_s) if message.timeout_s > 0 else remaining_s
        try:
            if not id:
                raise InvalidArgument("a request in a stream needs a request_id")
            if self._draining.is_set():
                raise Unavailable(_DRAINING)
            if twice:
                raise AlreadyExists("a request with this request_id is unanswered yet: this one was not looked at")
            return predict_pb2.PredictStreamResponse(
                request_id=id, response=await self._predict(message.request, timeout_s)
            )
        except Exception as error:
            code, text = status_of(error, id)
            retry_after_s = error.retry_after_s if isinstance(error, ServiceError) else None
            failure = predict_pb2.PredictError(code=code.value[0], message=text, retry_after_s=retry_after_s)
            return predict_pb2.PredictStreamResponse(request_id=id, error=failure)

    def _remaining(self, context: Any) -> float:
        remaining = context.time_remaining()
        return self._timeout_s if remaining is None else min(self._timeout_s, max(0.0, remaining))

    async def _predict(self, request: predict_pb2.PredictRequest, timeout_s: float) -> predict_pb2.PredictResponse:
        if len(request.request_id.encode()) > MAX_ID_BYTES:
            raise InvalidArgument(f"request_id is longer than {MAX_ID_BYTES} bytes: send a shorter one")

        pixels = request.WhichOneof("input") == "tensor"

        with Waiter() as caller:

            def prepare(size: int) -> Pixels:
                if pixels:
                    return image_from_tensor(request.tensor, size)
                return decode(request.image, size, self._max_pixels, caller.gone, AT_ONCE_S)

            outcome = await self._dispatcher.predict(prepare, request.request_id, timeout_s, pixels, request.ByteSize())
        answered = outcome.answered
        response = predict_pb2.PredictResponse()  # filled in field by field, which takes half the time
        if outcome.task == TaskName.LOCALISATION:
            box = response.box
            box.left, box.top, box.right, box.bottom = outcome.answer.tolist()
        else:
            _add_classes(response, outcome.answer, outcome.labels, request.top_k or 1)
        if request.with_output:
            pack(np.ascontiguousarray(answered.output, np.float32), response.output)
        provenance = response.provenance
        provenance.source = _WIRE_SOURCES[answered.source]
        provenance.degraded = outcome.degraded
        if answered.confidence is not None:
            provenance.coded_confidence = answered.confidence
        if outcome.place is not None:
            provenance.group_id, provenance.cell = outcome.group_id, outcome.place
        provenance.model_name, provenance.model_version = answered.model.name, answered.model.version
        provenance.queue_s, provenance.inference_s = answered.queue_s, answered.inference_s
        provenance.total_s, provenance.request_id = outcome.total_s, outcome.request_id
        return response


def _add_classes(
    response: predict_pb2.PredictResponse, probabilities: NDArray[np.float32], labels: Sequence[str], top_k: int
) -> None:
    """Tell the ``top_k`` most probable classes, the best one first."""
    best = [int(probabilities.argmax())]
    if top_k > 1:
        best = np.argsort(-probabilities, kind="stable")[:top_k].tolist()
    for index in best:
        response.classes.add(label=labels[index], index=index, probability=probabilities[index])
