"""A frontend without workers: answers by the image's bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry

from collage.errors import InvalidArgument, boundary
from collage.serving import Server, ServerSettings
from collage.v1 import predict_pb2, predict_pb2_grpc

LABELS = ("T-shirt/top", "Bag", "Coat")


class FakePredictService(predict_pb2_grpc.PredictServiceServicer):
    """Answers class ``i`` to an image that begins with byte ``i``, from the collage if its second byte is ``c``.

    ``slow`` images are answered when ``released`` is set; empty ones are invalid. Remembers every request.
    """

    def __init__(self) -> None:
        self.requests: list[predict_pb2.PredictRequest] = []
        self.limits_s: list[float] = []  # of images in streams
        self.most_in_flight = self.in_flight = 0
        self.released = asyncio.Event()

    @boundary
    async def Predict(self, request: predict_pb2.PredictRequest, context: Any) -> predict_pb2.PredictResponse:
        return await self._answer(request)

    async def PredictStream(
        self, request_iterator: AsyncIterator[predict_pb2.PredictStreamRequest], context: Any
    ) -> AsyncIterator[predict_pb2.PredictStreamResponse]:
        waiting = []
        async for message in request_iterator:
            self.limits_s.append(message.timeout_s)
            if message.request.image[1:] == b"slow":
                waiting.append(message.request)  # answered last, whenever it came
                continue
            yield await self._stream_answer(message.request)
        for request in waiting:
            self.released.set()
            yield await self._stream_answer(request)

    async def _stream_answer(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictStreamResponse:
        try:
            response = await self._answer(request)
        except InvalidArgument as error:
            failure = predict_pb2.PredictError(code=error.code.value[0], message=str(error))
            return predict_pb2.PredictStreamResponse(request_id=request.request_id, error=failure)
        return predict_pb2.PredictStreamResponse(request_id=request.request_id, response=response)

    async def _answer(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        self.requests.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            image = request.image or request.tensor.data
            if not image:
                raise InvalidArgument("the image is empty: send the bytes of a JPEG, PNG, WebP or BMP file")
            if image[1:] == b"slow":
                await self.released.wait()
            return _response(request, image[0], coded=image[1:2] == b"c")
        finally:
            self.in_flight -= 1


def _response(request: predict_pb2.PredictRequest, best: int, coded: bool) -> predict_pb2.PredictResponse:
    order = [best, *(index for index in range(len(LABELS)) if index != best)]
    return predict_pb2.PredictResponse(
        classes=[
            predict_pb2.Classification(label=LABELS[index], index=index, probability=(0.75, 0.15, 0.1)[rank])
            for rank, index in enumerate(order[: max(1, request.top_k)])
        ],
        provenance=predict_pb2.Provenance(
            source=predict_pb2.SOURCE_COLLAGE if coded else predict_pb2.SOURCE_S_CNN,
            degraded=coded,
            coded_confidence=0.625 if coded else None,
            group_id="group-1" if coded else "",
            cell=4 if coded else None,
            model_name="fake",
            model_version="0123456789ab",
            queue_s=0.25,
            inference_s=0.5,
            total_s=0.75,
            request_id=request.request_id or "made-up",
        ),
    )


@asynccontextmanager
async def serving(service: FakePredictService) -> AsyncIterator[Server]:
    """The service on a free port of this process, SERVING."""
    settings = ServerSettings(host="127.0.0.1", port=0, metrics_port=0, drain_s=0)
    server = Server(settings, CollectorRegistry(), ["collage.v1.PredictService"])
    predict_pb2_grpc.add_PredictServiceServicer_to_server(service, server.grpc)
    await server.start()
    server.set_serving(True)
    try:
        yield server
    finally:
        await server.stop()
