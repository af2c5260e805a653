"""The frontend's gRPC service: convert, delegate, convert back."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collage.errors import InvalidArgument, boundary
from collage.tensors import image_from_tensor, pack
from collage.v1 import predict_pb2, predict_pb2_grpc
from encoder.code import Source
from encoder.image import Pixels, Waiter, decode
from encoder.tasks import TaskName
from frontend.dispatch import AT_ONCE_S, Dispatcher
from frontend.stream import RequestStream
from inference.service import MAX_ID_BYTES

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

    ``timeout_s`` is the longest a request may take, ``max_pixels`` the largest image. While ``draining`` is set, new
    requests of streams are refused, and streams end as UNAVAILABLE when those they have are answered. So do streams
    that have been open for ``max_stream_s``. A connection is a caller that has a share of the dispatcher's room.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        timeout_s: float,
        max_pixels: int,
        draining: asyncio.Event,
        max_stream_s: float | None = None,
    ) -> None:
        self._dispatcher, self._draining, self._max_stream_s = dispatcher, draining, max_stream_s
        self._timeout_s, self._max_pixels = timeout_s, max_pixels

    @boundary
    def Predict(
        self, request: predict_pb2.PredictRequest, context: Any
    ) -> Coroutine[Any, Any, predict_pb2.PredictResponse]:
        """Classify one image."""
        return self._predict(context.peer(), request, self._remaining(context))

    @boundary
    async def PredictStream(  # type: ignore[override]  # writes instead of yielding
        self, request_iterator: AsyncIterator[predict_pb2.PredictStreamRequest], context: Any
    ) -> None:
        """Classify images as they come; every response is written when it is ready."""
        predict = functools.partial(self._predict, context.peer())
        remaining = functools.partial(self._remaining, context)
        stream = RequestStream(predict, self._dispatcher.most_of_one, remaining, self._draining)
        await stream.serve(request_iterator, context, self._max_stream_s)

    def _remaining(self, context: Any) -> float:
        remaining = context.time_remaining()
        return self._timeout_s if remaining is None else min(self._timeout_s, max(0.0, remaining))

    def _predict(
        self, caller: str, request: predict_pb2.PredictRequest, timeout_s: float
    ) -> Coroutine[Any, Any, predict_pb2.PredictResponse]:
        """Begin to answer a request; of the message only its image, or its tensor, is kept until there is an answer."""
        id = request.request_id
        if len(id.encode()) > MAX_ID_BYTES:
            raise InvalidArgument(f"request_id is longer than {MAX_ID_BYTES} bytes: send a shorter one")
        pixels, waiter = request.WhichOneof("input") == "tensor", Waiter()
        if pixels:
            tensor = request.tensor
            data = tensor.data
            prepare = functools.partial(image_from_tensor, tensor, data)
            size = len(data)
        else:
            image = request.image
            size = len(image)
            prepare = functools.partial(_decoded, image, self._max_pixels, waiter)
        answer = self._dispatcher.predict(prepare, id, timeout_s, pixels, size, caller)
        top_k, with_output = request.top_k or 1, request.with_output

        async def respond() -> predict_pb2.PredictResponse:
            with waiter:
                outcome = await answer
            answered = outcome.answered
            response = predict_pb2.PredictResponse()  # filled in field by field, which takes half the time
            if outcome.task == TaskName.LOCALISATION:
                box = response.box
                box.left, box.top, box.right, box.bottom = outcome.answer.tolist()
            else:
                _add_classes(response, outcome.answer, outcome.labels, top_k)
            if with_output:
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

        return respond()


def _decoded(image: bytes, max_pixels: int, waiter: Waiter, size: int) -> Pixels:
    return decode(image, size, max_pixels, waiter.gone, AT_ONCE_S)


def _add_classes(
    response: predict_pb2.PredictResponse, probabilities: NDArray[np.float32], labels: Sequence[str], top_k: int
) -> None:
    """Tell the ``top_k`` most probable classes, the best one first."""
    best = [int(probabilities.argmax())]
    if top_k > 1:
        best = np.argsort(-probabilities, kind="stable")[:top_k].tolist()
    for index in best:
        response.classes.add(label=labels[index], index=index, probability=probabilities[index])
