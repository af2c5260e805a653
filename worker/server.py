"""The worker's services and the engine behind them: one inference at a time, a bounded queue in front."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from collage.model_info import ModelInfo, ModelKind
from collage.serving import DeadlineExceeded, InvalidArgument, ResourceExhausted, Server, ServiceError, boundary
from collage.tensors import TensorError, image_from_tensor, to_tensor
from collage.v1 import tensor_pb2, worker_pb2, worker_pb2_grpc
from inference import open_inference_pb2_grpc
from inference.service import SERVICE as OPEN_INFERENCE
from worker.config import WorkerSettings
from worker.inference import WorkerInference
from worker.metrics import WorkerMetrics
from worker.model import Floats, Model
from worker.slowdown import COLLAGE_FACTOR, Slowdown
from worker.streams import CallStream

_SMOOTHING = 0.1  # of the running mean


@dataclass(frozen=True)
class Inference:
    """What the model said of one image, and how long that took, in seconds."""

    outputs: tuple[Floats, ...]
    queue_s: float
    inference_s: float


class Engine:
    """Runs one model, one image at a time.

    The only slot is held for ``max(injected slowness, real inference)``, so two slow calls never overlap; cancelling
    the caller stops the inference and frees the slot. At most ``queue_size`` calls wait for the slot, in order.
    """

    def __init__(self, model: Model, slowdown: Slowdown, queue_size: int, metrics: WorkerMetrics) -> None:
        """Take over a loaded model; call ``warm_up`` before serving."""
        self.model = model
        self._slowdown = slowdown
        self.queue_size = queue_size
        self._metrics = metrics
        self._slot = asyncio.Lock()
        self._admitted = 0
        self._busy_s = 0.0  # a running mean of how long a call takes the slot, up to its cancellation if it is
        self._runs = 0

    async def warm_up(self) -> None:
        """Make the first calls as fast as the later ones; raises ModelError."""
        async with self._slot:
            await self.model.warm_up()

    def image(self, tensor: tensor_pb2.Tensor) -> NDArray[np.uint8]:
        """The model's input, uint8 ``[size, size, 3]``; raises InvalidArgument for any other tensor."""
        try:
            return image_from_tensor(tensor, self.model.info.size)
        except TensorError as error:
            self._metrics.requests.labels("invalid").inc()
            raise InvalidArgument(str(error)) from None

    async def infer(
        self, image: NDArray[np.uint8], request_id: str = "", attempt: int = 0, time_remaining: float | None = None
    ) -> Inference:
        """Wait for the slot and run; ``time_remaining`` is the caller's, in seconds, None for no limit.

        Raises ResourceExhausted at once when the queue is full or, as things are, too long for the time remaining, and
        DeadlineExceeded when the time is over before the inference could start.
        """
        arrived = _now()
        self._admit(time_remaining)
        self._admitted += 1
        outcome = "dropped"
        try:
            with self._metrics.queue_length.track_inprogress():
                await self._slot.acquire()
            try:
                started = _now()
                if time_remaining is not None and started >= arrived + time_remaining:
                    raise DeadlineExceeded("the time was over before the inference could start")
                outcome = "cancelled"
                self._metrics.queue.observe(started - arrived)
                outputs = await self._serve(image, request_id, attempt, started)
                finished = _now()
                outcome = "ok"
            finally:
                self._slot.release()
        except ServiceError:
            raise
        except Exception:
            outcome = "failed"
            raise
        finally:
            self._admitted -= 1
            self._metrics.requests.labels(outcome).inc()
        self._metrics.inference.observe(finished - started)
        return Inference(outputs, queue_s=started - arrived, inference_s=finished - started)

    def _admit(self, time_remaining: float | None) -> None:
        """Refuse what would only wait in vain; a call that finds nobody before it is always taken."""
        wait = self._admitted * self._busy_s
        if self._admitted > self.queue_size:
            reason = f"{self.queue_size} calls are waiting here already"
        elif self._admitted and time_remaining is not None and wait + self._busy_s > time_remaining:
            reason = f"the queue takes {wait:.3f} s, which leaves no time for this call"
        else:
            return
        self._metrics.requests.labels("rejected").inc()
        raise ResourceExhausted(f"{reason}: send to another worker, or try again later", self._busy_s)

    async def _serve(
        self, image: NDArray[np.uint8], request_id: str, attempt: int, started: float
    ) -> tuple[Floats, ...]:
        """The model's outputs, not before the injected slowness is over."""
        draw = self._slowdown.draw(request_id, attempt, started)
        if self._slowdown.enabled:
            self._metrics.slowdown.observe(draw)
        try:
            outputs = await self.model.run(image)
            await asyncio.sleep(started + draw - _now())
        finally:
            busy = _now() - started
            self._metrics.busy.inc(busy)
            self._runs += 1
            self._busy_s += max(_SMOOTHING, 1 / self._runs) * (busy - self._busy_s)
        return outputs


def _now() -> float:
    return asyncio.get_running_loop().time()


class ClassifierServicer(worker_pb2_grpc.ClassifierServiceServicer):
    """Scores single images."""

    def __init__(self, engine: Engine, draining: asyncio.Event) -> None:
        """``engine`` runs an s-cnn; streams end when the process is ``draining``."""
        self._engine, self._draining = engine, draining

    @boundary
    async def Classify(
        self,
        request: worker_pb2.ClassifyRequest,
        context: grpc.aio.ServicerContext[worker_pb2.ClassifyRequest, worker_pb2.ClassifyResponse],
    ) -> worker_pb2.ClassifyResponse:
        """See worker.proto."""
        return await self._classify(request, context.time_remaining())

    @boundary
    async def ClassifyStream(  # type: ignore[override]  # writes instead of yielding
        self, request_iterator: AsyncIterator[worker_pb2.ClassifyStreamRequest], context: Any
    ) -> None:
        """See worker.proto."""
        stream = CallStream(self._classify, worker_pb2.ClassifyStreamResponse, self._draining)
        await stream.serve(request_iterator, context)

    async def _classify(
        self, request: worker_pb2.ClassifyRequest, time_remaining: float | None
    ) -> worker_pb2.ClassifyResponse:
        image = self._engine.image(request.image)
        done = await self._engine.infer(image, request.request_id, request.attempt, time_remaining)
        return worker_pb2.ClassifyResponse(
            scores=to_tensor(done.outputs[0]), queue_s=done.queue_s, inference_s=done.inference_s
        )


class CollageServicer(worker_pb2_grpc.CollageServiceServicer):
    """Finds the objects of collages."""

    def __init__(self, engine: Engine, draining: asyncio.Event) -> None:
        """``engine`` runs a collage-cnn; streams end when the process is ``draining``."""
        self._engine, self._draining = engine, draining

    @boundary
    async def Detect(
        self,
        request: worker_pb2.DetectRequest,
        context: grpc.aio.ServicerContext[worker_pb2.DetectRequest, worker_pb2.DetectResponse],
    ) -> worker_pb2.DetectResponse:
        """See worker.proto."""
        return await self._detect(request, context.time_remaining())

    @boundary
    async def DetectStream(  # type: ignore[override]  # writes instead of yielding
        self, request_iterator: AsyncIterator[worker_pb2.DetectStreamRequest], context: Any
    ) -> None:
        """See worker.proto."""
        stream = CallStream(self._detect, worker_pb2.DetectStreamResponse, self._draining)
        await stream.serve(request_iterator, context)

    async def _detect(
        self, request: worker_pb2.DetectRequest, time_remaining: float | None
    ) -> worker_pb2.DetectResponse:
        collage = self._engine.image(request.collage)
        done = await self._engine.infer(collage, request.request_id, request.attempt, time_remaining)
        boxes, confidences, class_probabilities = (to_tensor(output) for output in done.outputs)
        return worker_pb2.DetectResponse(
            boxes=boxes,
            confidences=confidences,
            class_probabilities=class_probabilities,
            queue_s=done.queue_s,
            inference_s=done.inference_s,
        )


class ModelInfoServicer(worker_pb2_grpc.ModelInfoServiceServicer):
    """Describes the model."""

    def __init__(self, info: ModelInfo) -> None:
        """``info`` is all that is ever told."""
        self._info = info.to_proto()

    @boundary
    async def GetModelInfo(
        self,
        request: worker_pb2.GetModelInfoRequest,
        context: grpc.aio.ServicerContext[worker_pb2.GetModelInfoRequest, worker_pb2.GetModelInfoResponse],
    ) -> worker_pb2.GetModelInfoResponse:
        """See worker.proto."""
        return self._info


class Worker:
    """One worker: a model, its engine, and a server with the services that fit the model's kind."""

    def __init__(self, settings: WorkerSettings, registry: CollectorRegistry) -> None:
        """Load the model; raises ModelError or SlowdownError."""
        model = Model(settings.model, settings.threads)
        collage = model.info.kind is ModelKind.COLLAGE_CNN
        scale = settings.slowdown_scale * (COLLAGE_FACTOR if collage else 1.0)
        slowdown = Slowdown(settings.slowdown, settings.slowdown_seed, scale)
        self.engine = Engine(model, slowdown, settings.queue_size, WorkerMetrics(registry))
        names = ("CollageService" if collage else "ClassifierService", "ModelInfoService")
        services = [worker_pb2.DESCRIPTOR.services_by_name[name].full_name for name in names]
        if not collage:
            services.append(OPEN_INFERENCE)
        self.server = Server(settings, registry, services)
        draining = self.server.draining
        if collage:
            detector = CollageServicer(self.engine, draining)
            worker_pb2_grpc.add_CollageServiceServicer_to_server(detector, self.server.grpc)
        else:
            classifier = ClassifierServicer(self.engine, draining)
            worker_pb2_grpc.add_ClassifierServiceServicer_to_server(classifier, self.server.grpc)
            open_inference = WorkerInference(self.server, self.engine, settings.max_pixels)
            open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(open_inference, self.server.grpc)
        worker_pb2_grpc.add_ModelInfoServiceServicer_to_server(ModelInfoServicer(model.info), self.server.grpc)

    async def start(self) -> None:
        """Listen, warm up, and report SERVING; raises ModelError, or OSError if a port is taken."""
        await self.server.start()
        await self.engine.warm_up()
        self.server.set_serving(True)

    async def stop(self) -> None:
        """Refuse new calls and let those in flight finish. Idempotent; returns when drained."""
        await self.server.stop()
        await asyncio.to_thread(self.engine.model.close)
