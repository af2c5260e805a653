"""How to talk to a worker that speaks the Open Inference Protocol: Triton, KServe, MLServer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from collage.model_info import ModelInfo
from collage.security import PLAINTEXT, ClientSecurity
from encoder.image import Pixels
from frontend.workers.fleet import Form
from frontend.workers.streams import Ended, Ending, Reply, WorkerFailure
from frontend.workers.transport import MAX_DESCRIPTION_BYTES, MAX_HEALTH_BYTES, Connection, failure_of, reader
from inference import open_inference_pb2 as oip

logger = logging.getLogger("collage.frontend")

_Answer = TypeVar("_Answer", bound=Message)
SERVICE = "/inference.GRPCInferenceService"
HEALTH_EVERY_S, HEALTH_TIMEOUT_S = 1.0, 3.0
"""The protocol has no stream of health, so it is asked for. A server may be too busy to answer at once."""
LATER_S = 0.1
"""gRPC ends a call itself this long after its time, in case that we do not."""


class InferCall:
    """A call of ModelInfer under way.

    It is opened as a stream of one message, which is the same on the wire: grpc.aio loses 16 KB of memory with every
    unary call that is cancelled (grpc/grpc#43360), and none with a stream.
    """

    def __init__(self, rpc: Any, form: Form, request: oip.ModelInferRequest, timeout_s: float, ended: Ended) -> None:
        self._rpc, self._form, self._ended, self._done = rpc, form, ended, False
        loop = asyncio.get_running_loop()
        self._clock, self._started = loop.time, loop.time()
        # gRPC's own deadline would sometimes be told as an INTERNAL error, of the message that was on its way.
        self._timer = loop.call_later(timeout_s, self._expire)
        self.running = asyncio.create_task(self._run(request))

    def cancel(self) -> None:
        """Stop it, on the wire as well, unless it has ended."""
        self.stop(None)

    def stop(self, outcome: Ending) -> None:
        """Stop it and tell this as its end, unless it has ended."""
        if not self._done:
            self._end(outcome)
            self.running.cancel()  # or it would wait endlessly where the connection is not there yet

    def _end(self, outcome: Ending) -> None:
        if self._done:
            return
        self._done = True
        self._timer.cancel()
        self._rpc.cancel()
        try:
            self._ended(outcome)
        except Exception:  # of this call alone
            logger.exception("what was waiting for a worker's answer failed")

    def _expire(self) -> None:
        self.stop(WorkerFailure("DEADLINE_EXCEEDED", "no answer came in time"))

    async def _run(self, request: oip.ModelInferRequest) -> None:
        try:
            outcome = await self._send(request) or await self._receive()
        except grpc.aio.AioRpcError as error:
            outcome = failure_of(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            outcome = WorkerFailure("UNAVAILABLE", "the connection was closed")
        except Exception as error:  # or nobody would be told how the call ended
            logger.exception("a call to a worker failed")
            outcome = WorkerFailure("INTERNAL", type(error).__name__)
        self._end(outcome)

    async def _send(self, request: oip.ModelInferRequest) -> WorkerFailure | None:
        try:
            await self._rpc.write(request)
            await self._rpc.done_writing()
        except asyncio.InvalidStateError:
            return None  # it has failed already, as the reader will say
        except Exception as error:  # of gRPC, some of them without a public name
            if isinstance(error, grpc.aio.AioRpcError) and error.code() is not grpc.StatusCode.INTERNAL:
                return failure_of(error)
            return WorkerFailure("UNAVAILABLE", "the call could not be sent")
        return None

    async def _receive(self) -> Reply | WorkerFailure:
        response = await self._rpc.read()
        if response is grpc.aio.EOF:
            return WorkerFailure("GARBAGE", "the worker ended the call without an answer")
        if (status := await self._rpc.code()) is not grpc.StatusCode.OK:
            return WorkerFailure(status.name, await self._rpc.details() or "")
        if isinstance(response, WorkerFailure):
            return response
        return self._form.reply(response, self._clock() - self._started)


class OpenInferenceTransport(Connection):
    """Calls one model of a server by its gRPC methods; ``description`` says what the server does not know of it.

    The server is used while it and the version of the model that it named are ready, as it says every second; after
    that it is asked again what it serves. A cancelled call is one that the server has let go of as soon as it shows
    that it lives: the protocol does not say more.
    """

    def __init__(
        self,
        address: str,
        description: ModelInfo,
        max_message_bytes: int,
        security: ClientSecurity = PLAINTEXT,
        name: str | None = None,
        resolve_every_s: float = 5.0,
    ) -> None:
        self._description = description
        self._form: Form | None = None
        self._calls: set[InferCall] = set()
        self._told: set[str] = set()
        super().__init__(address, max_message_bytes, security, name, resolve_every_s)

    def _connect(self) -> None:
        super()._connect()
        read = reader(oip.ModelInferResponse, lambda: self._max_answer_bytes)
        self._infer = self.channel.stream_stream(f"{SERVICE}/ModelInfer", oip.ModelInferRequest.SerializeToString, read)

    async def ping(self) -> ModelInfo:
        """Ask for the model's metadata; raises ValueError if it is not the model that the description describes."""
        ask = oip.ModelMetadataRequest(name=self._description.name)
        metadata = await self.ask(f"{SERVICE}/ModelMetadata", ask, oip.ModelMetadataResponse, MAX_DESCRIPTION_BYTES)
        self._form = form = Form(self._description, metadata)
        self._max_answer_bytes = min(self._max_message_bytes, form.answer_bytes)
        for assumed in set(form.assumed) - self._told:
            logger.warning("%s: %s", form.info.name, assumed)
        self._told.update(form.assumed)
        return form.info

    async def watch(self, changed: Callable[[bool], None]) -> None:
        """Report whether the server and this version of the model are ready, until they are not."""
        known = self._form
        while known and await self._ready(known.info):
            changed(True)
            await asyncio.sleep(HEALTH_EVERY_S)
        changed(False)

    async def _ready(self, info: ModelInfo) -> bool:
        server = await self._health("ServerReady", oip.ServerReadyRequest(), oip.ServerReadyResponse)
        if not server.ready:
            return False
        ask = oip.ModelReadyRequest(name=info.name, version=info.version)
        return (await self._health("ModelReady", ask, oip.ModelReadyResponse)).ready

    async def _health(self, method: str, request: Message, kind: type[_Answer]) -> _Answer:
        return await self.ask(f"{SERVICE}/{method}", request, kind, MAX_HEALTH_BYTES, HEALTH_TIMEOUT_S)

    def run(self, image: Pixels, request_id: str, attempt: int, timeout_s: float, ended: Ended) -> InferCall:
        """Send one input, uint8 ``[size, size, 3]``, as the model wants it."""
        assert self._form  # noqa: S101 - a worker gets calls when its model is known
        rpc = self._infer(timeout=max(0.0, timeout_s) + LATER_S, metadata=self._security.metadata())
        call = InferCall(rpc, self._form, self._form.request(image, request_id), max(0.0, timeout_s), ended)
        self._calls.add(call)
        call.running.add_done_callback(lambda _: self._calls.discard(call))
        return call

    async def settle(self) -> None:
        """Wait until the server shows that it lives."""
        while True:
            try:
                await self._health("ServerLive", oip.ServerLiveRequest(), oip.ServerLiveResponse)
            except WorkerFailure as failure:
                if failure.code != "DEADLINE_EXCEEDED":
                    raise
            else:
                return

    async def _hang_up(self) -> None:
        calls = list(self._calls)
        for call in calls:
            call.stop(WorkerFailure("UNAVAILABLE", "the connection was closed"))
        if calls:
            await asyncio.wait([call.running for call in calls])
