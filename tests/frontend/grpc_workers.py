"""Real gRPC servers in this process that behave like the fakes, and a frontend in front of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from collage.errors import boundary
from collage.model_info import ModelInfo, ModelKind
from collage.serving import Server, ServerSettings
from collage.tensors import pixels_from_tensor, to_tensor
from collage.v1 import model_pb2, model_pb2_grpc, predict_pb2_grpc
from frontend.__main__ import running
from frontend.config import FrontendSettings
from tests.frontend.fakes import COLLAGE, S_CNN, classify, detect
from worker.streams import CallServer

QUEUE_S, INFERENCE_S = 0.0005, 0.002  # as fake workers tell of every call
LOCAL: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "metrics_port": 0}


class Slowness:
    """How many seconds a fake worker takes for a request id; everything else is instant."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = seconds
        self.running: set[str] = set()
        self.contexts: dict[str, str] = {}
        """Trace contexts that the workers were told, by request id."""

    async def wait(self, request_id: str, attempt: int) -> None:
        if attempt == 0:
            self.running.add(request_id)
            try:
                await asyncio.sleep(self.seconds.get(request_id, 0.0))
            finally:
                self.running.discard(request_id)


class _FakeWorker(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, info: ModelInfo, slowness: Slowness, draining: asyncio.Event) -> None:
        self.info, self.slowness, self._draining = info, slowness, draining

    @boundary
    async def Run(self, request: model_pb2.RunRequest, context: Any) -> model_pb2.RunResponse:
        return await self._run(request, None)

    @boundary
    async def RunStream(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        await CallServer(self._run, self._draining).serve(request_iterator, context)

    async def _run(self, request: model_pb2.RunRequest, timeout_s: float | None) -> model_pb2.RunResponse:
        self.slowness.contexts[request.request_id] = request.traceparent
        await self.slowness.wait(request.request_id, request.attempt)
        answer = classify if self.info.kind is ModelKind.S_CNN else detect
        outputs = answer(pixels_from_tensor(request.input, self.info.input.shape))
        told = [to_tensor(output) for output in outputs]
        return model_pb2.RunResponse(outputs=told, queue_s=QUEUE_S, inference_s=INFERENCE_S)

    @boundary
    async def GetModelInfo(self, request: Any, context: Any) -> model_pb2.GetModelInfoResponse:
        return self.info.to_proto()


@asynccontextmanager
async def worker(
    info: ModelInfo, slowness: Slowness | None = None, port: int = 0, **settings: Any
) -> AsyncIterator[Server]:
    """A worker process's services, in this process."""
    server = Server(ServerSettings(**{**LOCAL, "port": port, "drain_s": 0, **settings}), CollectorRegistry(), [])
    servicer = _FakeWorker(info, slowness or Slowness(), server.draining)
    model_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server.grpc)
    await server.start()
    server.set_serving(True)
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def cluster(
    s_cnn: int = 2,
    slowness: Slowness | None = None,
    collage: ModelInfo = COLLAGE,
    worker_settings: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[predict_pb2_grpc.PredictServiceStub, Server, grpc.aio.Channel]]:
    """A frontend over fake workers; yields a stub, the frontend's server and the stub's channel."""
    async with AsyncExitStack() as stack:
        behind = worker_settings or {}
        ports = [(await stack.enter_async_context(worker(S_CNN, slowness, **behind))).port for _ in range(s_cnn)]
        redundant = await stack.enter_async_context(worker(collage, slowness, **behind))
        chosen = FrontendSettings(
            **{
                **LOCAL,
                "policy": "collage",
                "s_cnn_workers": ",".join(f"127.0.0.1:{port}" for port in ports) or "127.0.0.1:9",  # where nobody is
                "coded_workers": f"127.0.0.1:{redundant.port}",
                **settings,
            }
        )
        server = await stack.enter_async_context(running(chosen))
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", [("grpc.max_send_message_length", 80 << 20)])
        )
        expected = {"s_cnn": s_cnn}
        if chosen.rules().coded:
            expected["coded"] = int(collage is COLLAGE and s_cnn > 0)
        async with asyncio.timeout(10):
            for role, count in expected.items():
                labels = {"role": role, "state": "ready"}
                while server.registry.get_sample_value("collage_workers", labels) != count:
                    await asyncio.sleep(0.01)
        yield predict_pb2_grpc.PredictServiceStub(channel), server, channel
