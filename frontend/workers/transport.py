"""How the frontend talks to one worker."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2

from collage.channels import channel_options
from collage.model_info import ModelInfo
from collage.security import PLAINTEXT, ClientSecurity
from collage.tensors import pack
from collage.traces import outgoing
from collage.v1 import model_pb2
from encoder.image import Pixels
from frontend.workers.streams import CallStream, Ended, WorkerFailure

_Response = TypeVar("_Response")
_Parsed = TypeVar("_Parsed", bound=Message)
PING_TIMEOUT_S = 1.0
SETTLE_S = 2.0
"""A worker that answers anything this long after a call was cancelled, and not that, has forgotten the call."""
MAX_DESCRIPTION_BYTES = 2 * 1024 * 1024
MAX_HEALTH_BYTES = 4096


class Cancellable(Protocol):
    """What can be called off."""

    def cancel(self) -> object:
        """Call it off, unless it has ended."""
        ...


class Transport(Protocol):
    """How to talk to one worker. Failures are ``WorkerFailure``, told or raised."""

    def run(self, image: Pixels, request_id: str, attempt: int, timeout_s: float, ended: Ended) -> Cancellable:
        """Send one input; ``ended`` is called with the answer. Cancelling stops the call on the worker as well."""
        ...

    async def settle(self) -> None:
        """Wait until the worker has let go of all calls cancelled before; a frozen one does not."""
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


class Connection:
    """A channel to one worker, which is made again when the certificates have changed: it cannot take up others.

    The worker's certificate must be for ``name``, or for the address's host if that is None. A host that is a name is
    resolved again after ``resolve_every_s`` seconds at the earliest, when the connection is lost.
    """

    def __init__(
        self,
        address: str,
        max_message_bytes: int,
        security: ClientSecurity = PLAINTEXT,
        name: str | None = None,
        resolve_every_s: float = 5.0,
    ) -> None:
        resolving = ("grpc.dns_min_time_between_resolutions_ms", max(1, round(1000 * resolve_every_s)))  # usually 30 s
        options = [*channel_options(max_message_bytes), resolving]
        self._dial = functools.partial(security.channel, address, options, name)
        self._security, self._max_message_bytes = security, max_message_bytes
        self._max_answer_bytes = max_message_bytes  # until the model is known
        self._connect()

    def _connect(self) -> None:
        self._files = self._security.stamp()
        self.channel = self._dial()

    async def ask(
        self, method: str, request: Message, kind: type[_Parsed], most_bytes: int, timeout_s: float = PING_TIMEOUT_S
    ) -> _Parsed:
        """The answer, of this kind and at most that large, to one short call of ``/service/Method``.

        Raises WorkerFailure. After a failure to connect, the next attempt uses certificates that are new.
        """
        send = self.channel.unary_unary(method, type(request).SerializeToString, reader(kind, lambda: most_bytes))
        try:
            return read(await _answer(send(request, timeout=timeout_s, metadata=self._security.metadata())))
        except WorkerFailure as failure:
            if failure.unreachable and self._security.stamp() != self._files:
                channel = self.channel
                self._connect()
                await self._hang_up()
                await channel.close()
            raise

    async def _hang_up(self) -> None:
        """End the calls that are under way."""

    async def close(self) -> None:
        """Close the channel; calls that are under way fail."""
        await self._hang_up()
        await self.channel.close()


class GrpcTransport(Connection):
    """Calls ModelService. All calls go over one stream: opened when the worker serves, and again after it broke.

    A message that is larger than the worker's model can need is not looked at, and ends the stream.
    """

    _stream: CallStream | None = None

    async def ping(self) -> ModelInfo:
        """Ask for the model."""
        info = ModelInfo.from_proto(await self._describe())
        self._max_answer_bytes = min(self._max_message_bytes, info.answer_bytes)
        return info

    async def _describe(self) -> model_pb2.GetModelInfoResponse:
        ask = model_pb2.GetModelInfoRequest()
        method = "/collage.v1.ModelService/GetModelInfo"
        return await self.ask(method, ask, model_pb2.GetModelInfoResponse, MAX_DESCRIPTION_BYTES)

    async def watch(self, changed: Callable[[bool], None]) -> None:
        """Report SERVING or not until it is not; opens the stream of calls as soon as the worker serves."""
        watch = self.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            health_pb2.HealthCheckRequest.SerializeToString,
            reader(health_pb2.HealthCheckResponse, lambda: MAX_HEALTH_BYTES),
        )
        try:
            async for update in watch(health_pb2.HealthCheckRequest()):
                serving = read(update).status == health_pb2.HealthCheckResponse.SERVING
                if serving:
                    self._calls()
                changed(serving)
                if not serving:  # a draining worker waits for its calls to end, and this is one
                    return
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from None

    def _calls(self) -> CallStream:
        """The stream in use; a new one if there is none."""
        if self._stream is None or self._stream.ended:
            run = self.channel.stream_stream(
                "/collage.v1.ModelService/RunStream",
                model_pb2.RunStreamRequest.SerializeToString,
                reader(model_pb2.RunStreamResponse, lambda: self._max_answer_bytes),
            )
            self._stream = CallStream(run(metadata=self._security.metadata()))
        return self._stream

    def run(self, image: Pixels, request_id: str, attempt: int, timeout_s: float, ended: Ended) -> Cancellable:
        """Send one input, uint8 ``[size, size, 3]``, over the stream."""
        message = model_pb2.RunStreamRequest()
        request = message.request
        pack(image, request.input)
        request.request_id, request.attempt = request_id, attempt
        if context := outgoing.get():
            request.traceparent = context
        return self._calls().call(message, timeout_s, ended)

    async def settle(self) -> None:
        """Wait until the worker has acknowledged all calls cancelled before, or lives and has forgotten them."""
        if (stream := self._stream) is None:
            return
        calls = stream.unsettled()
        while not await stream.settled(calls, SETTLE_S):
            try:
                await self._describe()
            except WorkerFailure:
                continue  # frozen, or gone: then the stream ends
            stream.forget(calls)

    async def _hang_up(self) -> None:
        stream, self._stream = self._stream, None
        if stream:
            await stream.close()


def reader(kind: type[_Parsed], limit: Callable[[], int]) -> Callable[[bytes], _Parsed | WorkerFailure]:
    """Parses messages from a worker, or says why not: one that is too large would keep the event loop busy."""

    def parse(data: bytes) -> _Parsed | WorkerFailure:
        if len(data) > limit():
            return WorkerFailure("GARBAGE", f"the worker sent {len(data)} bytes at once: at most {limit()} make sense")
        message = kind()
        try:
            message.ParseFromString(data)
        except DecodeError:
            return WorkerFailure("GARBAGE", "the worker sent what is no answer")
        return message

    return parse


def read(message: _Response | WorkerFailure) -> _Response:
    """What ``reader`` parsed; raises what it could not."""
    if isinstance(message, WorkerFailure):
        raise message
    return message


async def _answer(call: Awaitable[_Response]) -> _Response:
    """The response, or a WorkerFailure; a cancellation that is not the caller's (the channel closed) is one as well."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise failure_of(error) from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise WorkerFailure("UNAVAILABLE", "the connection was closed") from None


def failure_of(error: grpc.aio.AioRpcError) -> WorkerFailure:
    """How a call failed."""
    return WorkerFailure(error.code().name, error.details() or "")
