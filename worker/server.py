"""A worker: the service over its engine, and the process's server around it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc.aio
from prometheus_client import CollectorRegistry

from collage.errors import boundary
from collage.model_info import ModelInfo, ModelKind
from collage.serving import Server
from collage.tensors import pack
from collage.traces import Traces
from collage.v1 import model_pb2, model_pb2_grpc
from inference import open_inference_pb2_grpc
from inference.service import SERVICE as OPEN_INFERENCE
from worker.config import WorkerSettings
from worker.engine import Engine
from worker.inference import WorkerInference
from worker.metrics import WorkerMetrics
from worker.model import ServedModel
from worker.slowdown import COLLAGE_FACTOR, Slowdown
from worker.streams import CallServer

logger = logging.getLogger("collage.worker")

SERVICE = model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
ATTEMPT_HEADER = "x-envoy-attempt-count"
_COUNTS = tuple(map(str, range(1, 101)))  # anything else a caller has made up


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """``collage.v1.ModelService`` over an engine."""

    def __init__(self, engine: Engine, info: ModelInfo, draining: asyncio.Event, traces: Traces | None = None) -> None:
        """``info`` describes the engine's model; streams end when the process is ``draining``."""
        self._engine, self._info, self._draining = engine, info.to_proto(), draining
        self._traces = traces

    @boundary
    async def GetModelInfo(
        self,
        request: model_pb2.GetModelInfoRequest,
        context: grpc.aio.ServicerContext[model_pb2.GetModelInfoRequest, model_pb2.GetModelInfoResponse],
    ) -> model_pb2.GetModelInfoResponse:
        """See model.proto."""
        return self._info

    @boundary
    async def Run(
        self,
        request: model_pb2.RunRequest,
        context: grpc.aio.ServicerContext[model_pb2.RunRequest, model_pb2.RunResponse],
    ) -> model_pb2.RunResponse:
        """See model.proto."""
        request.attempt += proxied_attempt(context.invocation_metadata())
        return await self._run(request, context.time_remaining())

    @boundary
    async def RunStream(  # type: ignore[override]  # writes instead of yielding
        self, request_iterator: AsyncIterator[model_pb2.RunStreamRequest], context: Any
    ) -> None:
        """See model.proto."""
        await CallServer(self._run, self._draining).serve(request_iterator, context)

    async def _run(self, request: model_pb2.RunRequest, time_remaining: float | None) -> model_pb2.RunResponse:
        if self._traces and request.traceparent:
            return await self._traced(self._traces, request, time_remaining)
        return await self._answer(request, time_remaining)

    async def _traced(
        self, traces: Traces, request: model_pb2.RunRequest, time_remaining: float | None
    ) -> model_pb2.RunResponse:
        loop = asyncio.get_running_loop()
        span = traces.begin("collage.run", loop.time(), request.traceparent)
        span.tell(request_id=request.request_id, attempt=request.attempt)
        with span.during("the frontend needs it no more"):
            response = await self._answer(request, time_remaining)
            span.event("inference began", loop.time() - response.inference_s)
            return response

    async def _answer(self, request: model_pb2.RunRequest, time_remaining: float | None) -> model_pb2.RunResponse:
        image = self._engine.image(request.input)
        done = await self._engine.infer(image, request.request_id, request.attempt, time_remaining)
        response = model_pb2.RunResponse(queue_s=done.queue_s, inference_s=done.inference_s)
        for output in done.outputs:
            pack(output, response.outputs.add())
        return response


def proxied_attempt(metadata: Iterable[tuple[str, str | bytes]] | None) -> int:
    """How many copies of a call a proxy (Envoy, include_request_attempt_count) has sent before this one; else 0."""
    count = next((value for name, value in metadata or () if name == ATTEMPT_HEADER), "1")
    return int(count) - 1 if count in _COUNTS else 0


class WorkerProcess:
    """One worker: a model, its engine, and a server with the model's service.

    An s-cnn is served by the Open Inference Protocol as well.
    """

    def __init__(self, settings: WorkerSettings, registry: CollectorRegistry) -> None:
        """Load the model; raises ModelError or SlowdownError."""
        model = ServedModel(settings.model, settings.threads, settings.providers)
        collage = model.info.kind is ModelKind.COLLAGE_CNN
        scale = settings.slowdown_scale * (COLLAGE_FACTOR if collage else 1.0)
        slowdown = Slowdown(settings.slowdown, settings.slowdown_seed, scale)
        metrics = WorkerMetrics(registry)
        metrics.provider.labels(model.info.provider).set(1)
        self.engine = Engine(model, slowdown, settings.queue_size, metrics)
        alone = model.info.kind is ModelKind.S_CNN
        self.server = Server(settings, registry, [SERVICE, OPEN_INFERENCE] if alone else [SERVICE])
        servicer = ModelServicer(self.engine, model.info, self.server.draining, self.server.traces)
        model_pb2_grpc.add_ModelServiceServicer_to_server(servicer, self.server.grpc)
        if alone:
            open_inference = WorkerInference(self.server, self.engine, settings.max_pixels)
            open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(open_inference, self.server.grpc)

    async def start(self) -> None:
        """Listen, warm up, and report SERVING; raises ModelError, or OSError if a port is taken."""
        await self.server.start()
        await self.engine.warm_up()
        for assumed in self.engine.model.assumed:
            logger.warning("%s: %s", self.engine.model.info.name, assumed)
        self.server.set_serving(True)

    async def stop(self) -> None:
        """Refuse new calls and let those in flight finish. Idempotent; returns when drained."""
        await self.server.stop()
        await asyncio.to_thread(self.engine.model.close)
