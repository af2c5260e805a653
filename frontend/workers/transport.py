"""How the frontend talks to one worker."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from collage.model_info import ModelInfo
from collage.security import PLAINTEXT, ClientSecurity
from collage.serving import channel_options
from collage.tensors import TensorError, floats_from_tensor, pack
from collage.v1 import worker_pb2, worker_pb2_grpc
from encoder.collage import Detections
from encoder.image import Pixels
from frontend.workers.streams import CallStream, Ended, Output, Reply, WorkerFailure

_Response = TypeVar("_Response")
PING_TIMEOUT_S = 1.0


class Cancellable(Protocol):
    """What can be called off."""

    def cancel(self) -> object:
        """Call it off, unless it has ended."""
        ...


class Transport(Protocol[Output]):
    """How to talk to one worker. Failures are ``WorkerFailure``, told or raised."""

    def run(self, image: Pixels, request_id: str, attempt: int, timeout_s: float, ended: Ended[Output]) -> Cancellable:
        """Send one image or collage; ``ended`` is told the answer. Cancelling stops the call on the worker as well."""
        ...

    async def settle(self) -> None:
        """Wait until the worker has let go of all calls cancelled before, which a frozen one does not."""
        ...

    async def ping(self) -> ModelInfo:
        """Ask for the model, which a living worker answers at once."""
        ...

    async def watch(self, changed: Callable[[bool], None]) -> None:
        """Report whether the worker is SERVING, now and on every change, until it is not or the connection breaks."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


class _GrpcTransport(Generic[Output]):
    """All calls go over one stream, opened when the worker serves, and anew after it broke.

    ``name`` is what the worker's certificate must be for, its host if None.
    """

    _open: Callable[..., Any]  # the rpc
    _message: type[Any]  # of its requests
    _pixels: str  # the field of a request that takes the image

    def __init__(
        self, address: str, max_message_bytes: int, security: ClientSecurity = PLAINTEXT, name: str | None = None
    ) -> None:
        self._dial = functools.partial(security.channel, address, channel_options(max_message_bytes), name)
        self._security = security
        self._connect()

    def _connect(self) -> None:
        self._files = self._security.stamp()
        self.channel = self._dial()
        self._stream: CallStream[Output] | None = None
        self._models = worker_pb2_grpc.ModelInfoServiceStub(self.channel)
        self._health = health_pb2_grpc.HealthStub(self.channel)

    async def ping(self) -> ModelInfo:
        call = self._models.GetModelInfo(
            worker_pb2.GetModelInfoRequest(), timeout=PING_TIMEOUT_S, metadata=self._security.metadata()
        )
        try:
            return ModelInfo.from_proto(await _answer(call))
        except WorkerFailure as failure:
            if failure.unreachable:
                await self._renew()
            raise

    async def _renew(self) -> None:
        """Connect anew if the certificates have changed since: a channel cannot take up others."""
        if self._security.stamp() != self._files:
            channel, stream = self.channel, self._stream
            self._connect()
            if stream:
                await stream.close()
            await channel.close()

    async def watch(self, changed: Callable[[bool], None]) -> None:
        try:
            async for update in self._health.Watch(health_pb2.HealthCheckRequest()):
                serving = update.status == health_pb2.HealthCheckResponse.SERVING
                if serving:
                    self._calls()
                changed(serving)
                if not serving:  # a draining worker waits for its calls to end, and this is one
                    return
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None

    def _calls(self) -> CallStream[Output]:
        """The stream in use; a new one if there is none."""
        if self._stream is None or self._stream.ended:
            rpc = self._open(metadata=self._security.metadata())
            self._stream = CallStream(rpc, self._message, self._read)
        return self._stream

    def run(self, image: Pixels, request_id: str, attempt: int, timeout_s: float, ended: Ended[Output]) -> Cancellable:
        """Send one image or collage, uint8 ``[size, size, 3]``."""
        message = self._message()
        request = message.request
        pack(image, getattr(request, self._pixels))
        request.request_id, request.attempt = request_id, attempt
        return self._calls().call(message, timeout_s, ended)

    def _read(self, response: Any) -> Reply[Output]:
        raise NotImplementedError

    async def settle(self) -> None:
        if self._stream:
            await self._stream.settle()

    async def close(self) -> None:
        if self._stream:
            await self._stream.close()
        await self.channel.close()


class SCnnTransport(_GrpcTransport[NDArray[np.float32]]):
    """Calls ClassifierService with an image; the output is logits, float32 ``[classes]``."""

    _message, _pixels = worker_pb2.ClassifyStreamRequest, "image"

    def _connect(self) -> None:
        super()._connect()
        self._open = worker_pb2_grpc.ClassifierServiceStub(self.channel).ClassifyStream

    def _read(self, response: worker_pb2.ClassifyResponse) -> Reply[NDArray[np.float32]]:
        try:
            return Reply(floats_from_tensor(response.scores, [-1]), response.queue_s, response.inference_s)
        except TensorError as error:
            raise _failure(error) from None


class CollageTransport(_GrpcTransport[Detections]):
    """Calls CollageService with a collage; the output is detections."""

    _message, _pixels = worker_pb2.DetectStreamRequest, "collage"

    def _connect(self) -> None:
        super()._connect()
        self._open = worker_pb2_grpc.CollageServiceStub(self.channel).DetectStream

    def _read(self, response: worker_pb2.DetectResponse) -> Reply[Detections]:
        try:
            boxes = floats_from_tensor(response.boxes, [-1, 4])
            confidences = floats_from_tensor(response.confidences, [len(boxes)])
            found = Detections(boxes, confidences, floats_from_tensor(response.class_probabilities, [len(boxes), -1]))
            return Reply(found, response.queue_s, response.inference_s)
        except TensorError as error:
            raise _failure(error) from None


async def _answer(call: Awaitable[_Response]) -> _Response:
    """The response, or a WorkerFailure; a cancellation that is not the caller's (the channel closed) is one as well."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _failure(error) from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise WorkerFailure("UNAVAILABLE", "the connection was closed") from None


def _failure(error: grpc.aio.AioRpcError | TensorError) -> WorkerFailure:
    if isinstance(error, grpc.aio.AioRpcError):
        return WorkerFailure(error.code().name, error.details() or "")
    return WorkerFailure("GARBAGE", f"the worker's answer is not what was asked for: {error}")
