"""The engine of a worker: one inference at a time, a bounded queue in front."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collage.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, ServiceError
from collage.tensors import TensorError, pixels_from_tensor
from collage.v1 import tensor_pb2
from worker.metrics import WorkerMetrics
from worker.model import Floats, ServedModel
from worker.slowdown import Slowdown

_SMOOTHING = 0.1  # of the running mean


@dataclass(frozen=True)
class Inference:
    """The model's outputs for one image, and how long that took, in seconds."""

    outputs: tuple[Floats, ...]
    queue_s: float
    inference_s: float


class Engine:
    """Runs one model, one image at a time.

    The only slot is held for ``max(injected slowness, real inference)``, so two slow calls never overlap; cancelling
    the caller stops the inference and frees the slot. At most ``queue_size`` calls wait for the slot, in order.
    """

    def __init__(self, model: ServedModel, slowdown: Slowdown, queue_size: int, metrics: WorkerMetrics) -> None:
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
        """The model's input, uint8 of its shape; raises InvalidArgument for any other tensor."""
        try:
            return pixels_from_tensor(tensor, self.model.info.input.shape)
        except TensorError as error:
            self._metrics.requests.labels("invalid").inc()
            raise InvalidArgument(str(error)) from None

    async def infer(
        self, image: NDArray[np.uint8], request_id: str = "", attempt: int = 0, time_remaining: float | None = None
    ) -> Inference:
        """Wait for the slot and run; ``time_remaining`` is the caller's, in seconds, None for no limit.

        Raises ResourceExhausted at once when the queue is full or, as things are, too long for the time remaining,
        DeadlineExceeded when the time is over before the inference could start, and ServiceError for outputs that make
        no sense.
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
                if problem := self.model.info.problem(outputs):
                    outcome = "failed"
                    raise ServiceError(f"the model's answer makes no sense: {problem}")
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
        """Refuse a call that would wait in vain; one that finds the worker idle is always taken."""
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
