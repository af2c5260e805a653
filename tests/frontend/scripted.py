"""Workers whose streams do as a test says, over real gRPC, and calls to them whose answers can be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from collage.errors import boundary
from collage.tensors import to_tensor
from collage.v1 import model_pb2, model_pb2_grpc
from encoder.image import Pixels
from frontend.workers import Ending, GrpcTransport, Transport, WorkerFailure
from tests.frontend.fakes import S_CNN, classify, image

BOUND_S = 15.0
LIMIT = 16 << 20

Requests = AsyncIterator[model_pb2.RunStreamRequest]
Behave = Callable[[Requests, Any], Any]


def scored(call_id: int, label: int = 1) -> model_pb2.RunStreamResponse:
    scores = [to_tensor(output) for output in classify(image(label))]
    return model_pb2.RunStreamResponse(call_id=call_id, response=model_pb2.RunResponse(outputs=scores))


class _ScriptedWorker(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, behave: Behave, info: model_pb2.GetModelInfoResponse, pings: asyncio.Event) -> None:
        self._behave, self._info, self._pings = behave, info, pings

    async def GetModelInfo(self, request: Any, context: Any) -> model_pb2.GetModelInfoResponse:
        await self._pings.wait()
        return self._info

    async def Run(self, request: Any, context: Any) -> model_pb2.RunResponse:
        raise NotImplementedError

    @boundary
    async def RunStream(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        await self._behave(request_iterator, context)


@asynccontextmanager
async def scripted(
    behave: Behave, info: model_pb2.GetModelInfoResponse | None = None, pings: asyncio.Event | None = None
) -> AsyncIterator[tuple[GrpcTransport, grpc.aio.Server]]:
    """A worker whose streams do as told, and a transport to it; nothing may be left running.

    It says that it has the model ``info``, as soon as ``pings`` is set.
    """
    if pings is None:
        (pings := asyncio.Event()).set()
    before = asyncio.all_tasks()
    server = grpc.aio.server()
    model_pb2_grpc.add_ModelServiceServicer_to_server(_ScriptedWorker(behave, info or S_CNN.to_proto(), pings), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    transport = GrpcTransport(f"127.0.0.1:{port}", LIMIT)
    try:
        async with asyncio.timeout(BOUND_S):
            yield transport, server
    finally:
        await transport.close()
        await server.stop(None)
    async with asyncio.timeout(BOUND_S):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.01)


class Asked(asyncio.Future[Any]):
    """A call whose answer can be awaited."""

    def __init__(self, transport: Transport, pixels: Pixels, name: str, timeout_s: float) -> None:
        super().__init__()
        self.call = transport.run(pixels, name, 0, timeout_s, self._ended)

    def cancel(self, msg: Any | None = None) -> bool:
        self.call.cancel()
        return super().cancel()

    def _ended(self, outcome: Ending) -> None:
        assert not self.done()
        if isinstance(outcome, WorkerFailure):
            self.set_exception(outcome)
        elif outcome:
            self.set_result(outcome)


def ask(transport: GrpcTransport, label: int = 1, timeout_s: float = BOUND_S) -> Asked:
    return Asked(transport, image(label), f"r{label}", timeout_s)


def best(reply: Any) -> int:
    (scores,) = reply.outputs
    return int(scores.argmax())
