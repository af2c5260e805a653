"""The worker pool: which workers there are, which are ready, and which one gets the next call."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from collage.model_info import ModelInfo, ModelKind
from collage.serving import channel_options
from collage.tensors import TensorError, floats_from_tensor, to_tensor
from collage.v1 import worker_pb2, worker_pb2_grpc
from encoder.collage import Detections
from encoder.image import Pixels
from frontend.balance import Balancer, Ejection

logger = logging.getLogger("collage.frontend")

Output = TypeVar("Output", covariant=True)
PING_TIMEOUT_S = 1.0
RETRY_S = 0.25


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
    def __init__(self, address: str, max_message_bytes: int) -> None:
        self.channel = grpc.aio.insecure_channel(address, channel_options(max_message_bytes))
        self._models = worker_pb2_grpc.ModelInfoServiceStub(self.channel)
        self._health = health_pb2_grpc.HealthStub(self.channel)

    async def ping(self) -> ModelInfo:
        try:
            response = await self._models.GetModelInfo(worker_pb2.GetModelInfoRequest(), timeout=PING_TIMEOUT_S)
            return ModelInfo.from_proto(response)
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None

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

    def __init__(self, address: str, max_message_bytes: int) -> None:
        super().__init__(address, max_message_bytes)
        self._stub = worker_pb2_grpc.ClassifierServiceStub(self.channel)

    async def run(self, image: Pixels, request_id: str, attempt: int, timeout_s: float) -> Reply[NDArray[np.float32]]:
        """Score one image, uint8 ``[size, size, 3]``."""
        request = worker_pb2.ClassifyRequest(image=to_tensor(image), request_id=request_id, attempt=attempt)
        try:
            response = await self._stub.Classify(request, timeout=timeout_s)
            return Reply(floats_from_tensor(response.scores, [-1]), response.queue_s, response.inference_s)
        except (grpc.aio.AioRpcError, TensorError) as error:
            raise _failure(error) from None


class CollageTransport(_GrpcTransport):
    """Calls CollageService; the output is detections."""

    def __init__(self, address: str, max_message_bytes: int) -> None:
        super().__init__(address, max_message_bytes)
        self._stub = worker_pb2_grpc.CollageServiceStub(self.channel)

    async def run(self, image: Pixels, request_id: str, attempt: int, timeout_s: float) -> Reply[Detections]:
        """Look through one collage, uint8 ``[size, size, 3]``."""
        request = worker_pb2.DetectRequest(collage=to_tensor(image), request_id=request_id, attempt=attempt)
        try:
            response = await self._stub.Detect(request, timeout=timeout_s)
            boxes = floats_from_tensor(response.boxes, [-1, 4])
            confidences = floats_from_tensor(response.confidences, [len(boxes)])
            found = Detections(boxes, confidences, floats_from_tensor(response.class_probabilities, [len(boxes), -1]))
            return Reply(found, response.queue_s, response.inference_s)
        except (grpc.aio.AioRpcError, TensorError) as error:
            raise _failure(error) from None


def _failure(error: grpc.aio.AioRpcError | TensorError) -> WorkerFailure:
    if isinstance(error, grpc.aio.AioRpcError):
        return WorkerFailure(error.code().name, error.details() or "")
    return WorkerFailure("GARBAGE", f"the worker's answer is not what was asked for: {error}")


class Worker(Generic[Output]):
    """One worker: its transport, whether it may be used, and the calls it has."""

    def __init__(self, address: str, transport: Transport[Output], balancer: Balancer) -> None:
        self.address = address
        self.info: ModelInfo | None = None
        self.serving = False  # says the worker
        self.ready = False  # says the pool: serving, and the model fits
        self._transport, self._balancer = transport, balancer
        self._unacknowledged = 0
        self._pinging: asyncio.Task[None] | None = None

    def call(self, image: Pixels, request_id: str, attempt: int, timeout_s: float) -> asyncio.Task[Reply[Output]]:
        """Start to run one image; counts as outstanding from now on, until the worker is done with it.

        A cancelled call stays outstanding until the worker has answered a ping sent after the cancellation: a frozen
        worker must not look idle.
        """
        self._balancer.started(self.address)
        task = asyncio.create_task(self._transport.run(image, request_id, attempt, timeout_s))
        task.add_done_callback(functools.partial(self._ended, asyncio.get_running_loop().time()))
        return task

    def _ended(self, started_at: float, call: asyncio.Task[Reply[Output]]) -> None:
        at = asyncio.get_running_loop().time()
        if call.cancelled():
            self._balancer.cancelled(self.address, at, at - started_at)
            self._unacknowledged += 1
            if self._pinging is None:
                self._pinging = asyncio.create_task(self._acknowledge())
            return
        self._balancer.released(self.address)
        if call.exception():
            self._balancer.failed(self.address, at)
        else:
            self._balancer.succeeded(self.address, at, at - started_at)

    async def _acknowledge(self) -> None:
        while self._unacknowledged:
            covered = self._unacknowledged
            try:
                await self._transport.ping()
            except WorkerFailure as failure:
                if not failure.unreachable:  # no answer in time: perhaps frozen, so ask again
                    continue
                await asyncio.sleep(RETRY_S)  # the connection broke, and with it the cancelled calls
            self._unacknowledged -= covered
            self._balancer.released(self.address, covered)
        self._pinging = None

    async def follow(self, changed: Callable[[], None]) -> None:
        """Keep ``info`` and ``serving`` true to the worker, for ever."""

        def update(serving: bool) -> None:
            self.serving = serving
            changed()

        while True:
            try:
                self.info = await self._transport.ping()
                await self._transport.watch(update)
            except (WorkerFailure, ValueError) as failure:
                logger.debug("worker %s: %s", self.address, failure)
            update(False)
            await asyncio.sleep(RETRY_S)

    async def close(self) -> None:
        """Stop using the worker."""
        self.ready = False
        if self._pinging:
            self._pinging.cancel()
        await self._transport.close()


class Pool(Generic[Output]):
    """The workers of one kind, found in a static list or by DNS. All must serve the same model.

    ``target`` is ``host:port,host:port`` or ``dns:///name:port``, whose addresses are looked up every
    ``resolve_every_s`` seconds (a Kubernetes headless Service lists its pods there).
    """

    def __init__(
        self,
        kind: ModelKind,
        target: str,
        connect: Callable[[str], Transport[Output]],
        resolve_every_s: float = 5.0,
        ejection: Ejection | None = None,
        seed: int | None = None,
    ) -> None:
        self.kind = kind
        self.balancer = Balancer(ejection, seed)
        self.info: ModelInfo | None = None
        self.listeners: list[Callable[[], None]] = []  # called after every change of who is ready
        self.fits: Callable[[ModelInfo], str | None] = lambda info: None  # what is wrong with a model; empty: wait
        self.workers: dict[str, Worker[Output]] = {}
        self._target, self._connect, self._resolve_every_s = target, connect, resolve_every_s
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._complaints: dict[str, str] = {}

    @property
    def ready(self) -> int:
        """How many workers may be used."""
        return sum(worker.ready for worker in self.workers.values())

    def pick(self, avoid: Collection[str] = ()) -> Worker[Output] | None:
        """A ready worker that is not in ``avoid``, as the balancer chooses."""
        address = self.balancer.pick(asyncio.get_running_loop().time(), avoid)
        return None if address is None else self.workers[address]

    async def start(self) -> None:
        """Find workers and follow them until ``close``."""
        if self._target.startswith("dns:///"):
            self._tasks["dns"] = asyncio.create_task(self._resolve_for_ever(self._target.removeprefix("dns:///")))
        else:
            self._set_addresses({address.strip() for address in self._target.split(",") if address.strip()})

    async def close(self) -> None:
        """Let go of all workers."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for address in list(self.workers):
            await self.workers.pop(address).close()

    async def _resolve_for_ever(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        loop = asyncio.get_running_loop()
        while True:
            try:
                found = await loop.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
            except OSError as error:
                logger.warning("cannot resolve %s: %s", target, error)
            else:
                self._set_addresses({_join(entry[4]) for entry in found})
            await asyncio.sleep(self._resolve_every_s)

    def _set_addresses(self, addresses: set[str]) -> None:
        for address in sorted(addresses - self.workers.keys()):
            worker = self.workers[address] = Worker(address, self._connect(address), self.balancer)
            self._tasks[address] = asyncio.create_task(worker.follow(self.review))
        for address in sorted(self.workers.keys() - addresses):
            self._tasks.pop(address).cancel()
            self.balancer.remove(address)
            closing = self._tasks[f"close {address}"] = asyncio.create_task(self.workers.pop(address).close())
            closing.add_done_callback(functools.partial(self._closed, f"close {address}"))
            self.review()

    def _closed(self, key: str, _: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)

    def review(self) -> None:
        """Decide again which workers may be used; for whenever something changed that this depends on."""
        for worker in self.workers.values():
            worker.ready = worker.serving and worker.info is not None and self._accepts(worker.info)
            self.balancer.set_ready(worker.address, worker.ready)
        for listener in self.listeners:
            listener()

    def _accepts(self, info: ModelInfo) -> bool:
        complaint = self._complaint(info)
        if complaint is None:
            self.info = info
        elif complaint and self._complaints.get(info.name) != complaint:
            logger.error("refusing model %s %s: %s", info.name, info.version, complaint)
            self._complaints[info.name] = complaint
        return complaint is None

    def _complaint(self, info: ModelInfo) -> str | None:
        if info.kind != self.kind:
            return f"it is a {info.kind}, expected a {self.kind}"
        if self.ready and self.info and (info.name, info.version) != (self.info.name, self.info.version):
            return f"other workers serve {self.info.name} {self.info.version}"
        return self.fits(info)


def _join(address: tuple[object, ...]) -> str:
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
