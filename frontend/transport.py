"""How the frontend talks to one worker."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from collage.model_info import ModelInfo
from collage.security import PLAINTEXT, ClientSecurity
from collage.serving import channel_options
from collage.tensors import TensorError, floats_from_tensor, to_tensor
from collage.v1 import worker_pb2, worker_pb2_grpc
from encoder.collage import Detections
from encoder.image import Pixels

Output = TypeVar("Output", covariant=True)
_Response = TypeVar("_Response")
PING_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Reply(Generic[Output]):
    """What a worker answered, and how long it waited and computed, in seconds."""

    output: Output
    queue_s: float
    inference_s: float


class WorkerFailure(Exception):
    """A call to a worker failed. ``unreachable`` if it never ran, as far as anyone knows."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.unreachable = code == "UNAVAILABLE"


class Transport(Protocol[Output]):
    """How to talk to one worker. Failures are raised as ``WorkerFailure``."""

    def run(self, image: Pixels, request_id: str, attempt: int, timeout_s: float) -> Coroutine[Any, Any, Reply[Output]]:
        """Send one image or collage and wait for the answer."""
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


class _GrpcTransport:
    """``name`` is what the worker's certificate must be for, its host if None."""

    def __init__(
        self, address: str, max_message_bytes: int, security: ClientSecurity = PLAINTEXT, name: str | None = None
    ) -> None:
        self._dial = functools.partial(security.channel, address, channel_options(max_message_bytes), name)
        self._security = security
        self._connect()

    def _connect(self) -> None:
        self._files = self._security.stamp()
        self.channel = self._dial()
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
            old = self.channel
            self._connect()
            await old.close()

    async def watch(self, changed: Callable[[bool], None]) -> None:
        try:
            async for update in self._health.Watch(health_pb2.HealthCheckRequest()):
                serving = update.status == health_pb2.HealthCheckResponse.SERVING
                changed(serving)
                if not serving:  # a draining worker waits for its calls to end, and this is one
                    return
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None

    async def close(self) -> None:
        await self.channel.close()


class SCnnTransport(_GrpcTransport):
    """Calls ClassifierService; the output is logits, float32 ``[classes]``."""

    def _connect(self) -> None:
        super()._connect()
        self._stub = worker_pb2_grpc.ClassifierServiceStub(self.channel)

    async def run(self, image: Pixels, request_id: str, attempt: int, timeout_s: float) -> Reply[NDArray[np.float32]]:
        """Score one image, uint8 ``[size, size, 3]``."""
        request = worker_pb2.ClassifyRequest(image=to_tensor(image), request_id=request_id, attempt=attempt)
        response = await _answer(self._stub.Classify(request, timeout=timeout_s, metadata=self._security.metadata()))
        try:
            return Reply(floats_from_tensor(response.scores, [-1]), response.queue_s, response.inference_s)
        except TensorError as error:
            raise _failure(error) from None


class CollageTransport(_GrpcTransport):
    """Calls CollageService; the output is detections."""

    def _connect(self) -> None:
        super()._connect()
        self._stub = worker_pb2_grpc.CollageServiceStub(self.channel)

    async def run(self, image: Pixels, request_id: str, attempt: int, timeout_s: float) -> Reply[Detections]:
        """Look through one collage, uint8 ``[size, size, 3]``."""
        request = worker_pb2.DetectRequest(collage=to_tensor(image), request_id=request_id, attempt=attempt)
        response = await _answer(self._stub.Detect(request, timeout=timeout_s, metadata=self._security.metadata()))
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
