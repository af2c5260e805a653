"""One worker as the frontend sees it: its model, its calls, and whether it serves."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from collage.model_info import ModelInfo
from encoder.image import Pixels
from frontend.policy.balance import Balancer
from frontend.workers.streams import Ended, Ending, Reply, WorkerFailure
from frontend.workers.transport import Cancellable, Transport

logger = logging.getLogger("collage.frontend")

RETRY_S, LONGEST_RETRY_S = 0.25, 1.0
CLOCKS_S, CLOCKS = 0.01, 1.01
"""A worker's clock may differ from ours by this time, and by this factor."""


class Worker:
    """One worker: its transport, whether it may be used, and the calls it has."""

    def __init__(self, address: str, transport: Transport, balancer: Balancer) -> None:
        self.address = address
        self.info: ModelInfo | None = None
        self.serving = False  # the worker says so
        self.ready = False  # the pool says so: it serves, and its model is in use
        self._transport, self._balancer = transport, balancer
        self._clock = asyncio.get_running_loop().time
        self._running = self._cancelled = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._settling: asyncio.Task[None] | None = None

    def call(self, image: Pixels, request_id: str, attempt: int, timeout_s: float, ended: Ended) -> Cancellable:
        """Start to run one image; counts as outstanding from now on, until the worker is done with it.

        A cancelled call stays outstanding until the worker has let go of it: a frozen worker must not look idle.
        """
        started_at, model = self._clock(), self.info

        def over(outcome: Ending) -> None:
            self._running -= 1
            if not self._running:
                self._idle.set()
            elapsed_s = self._clock() - started_at
            if isinstance(outcome, Reply) and model and (problem := _problem(outcome, model, elapsed_s)):
                outcome = WorkerFailure("GARBAGE", f"the answer cannot be that of {model.name}: {problem}")
            self._count(started_at, outcome)
            ended(outcome)

        call = self._transport.run(image, request_id, attempt, timeout_s, over)
        self._balancer.started(self.address)
        self._running += 1
        self._idle.clear()
        return call

    async def ask(self, image: Pixels, request_id: str, timeout_s: float) -> Reply:
        """The answer to a ``call``, or its WorkerFailure."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def ended(outcome: Ending) -> None:
            if answer.done():  # cancelled: nobody waits any more
                return
            if isinstance(outcome, WorkerFailure):
                answer.set_exception(outcome)
            elif outcome:
                answer.set_result(outcome)

        call = self.call(image, request_id, 0, timeout_s, ended)
        try:
            return await answer
        finally:
            call.cancel()

    def _count(self, started_at: float, outcome: Ending) -> None:
        at = self._clock()
        if outcome is None:
            self._balancer.cancelled(self.address, at, at - started_at)
            self._cancelled += 1
            if self._settling is None:
                self._settling = asyncio.create_task(self._settle())
            return
        if not isinstance(outcome, WorkerFailure):
            self._balancer.succeeded(self.address, at, at - started_at)
        elif outcome.code == "DEADLINE_EXCEEDED":  # which may have been too short
            self._balancer.cancelled(self.address, at, at - started_at)
        elif outcome.code != "RESOURCE_EXHAUSTED":  # busy is no fault
            self._balancer.failed(self.address, at)
        self._balancer.released(self.address)

    async def _settle(self) -> None:
        while self._cancelled:
            covered, broken = self._cancelled, False
            try:
                await self._transport.settle()
            except WorkerFailure:
                broken = True  # the connection, and with it the cancelled calls
            if broken:
                await asyncio.sleep(RETRY_S)
            self._cancelled -= covered
            self._balancer.released(self.address, covered)
        self._settling = None

    async def follow(self, changed: Callable[[], None]) -> None:
        """Keep ``info`` and ``serving`` true to the worker, until cancelled."""

        told, wait_s = "", RETRY_S

        def update(serving: bool) -> None:
            nonlocal told, wait_s
            news = serving or self.serving
            self.serving = serving
            if serving:
                told, wait_s = "", RETRY_S
            if news:
                changed()

        while True:
            try:
                self.info = await self._transport.ping()
                await self._transport.watch(update)
            except (WorkerFailure, ValueError) as failure:
                if str(failure) != told:
                    logger.warning("worker %s cannot be used: %s", self.address, failure)
                told = str(failure)
            update(False)
            await asyncio.sleep(wait_s * random.uniform(0.5, 1))  # noqa: S311 - or many would all try at once
            wait_s = min(2 * wait_s, LONGEST_RETRY_S)

    async def finish(self) -> None:
        """Wait until the calls that it has have ended."""
        await self._idle.wait()

    async def close(self) -> None:
        """Stop using the worker; calls that it still has fail."""
        self.ready = False
        if settling := self._settling:
            settling.cancel()
            await asyncio.wait([settling])
            self._settling = None
        await self._transport.close()


def _problem(reply: Reply, model: ModelInfo, elapsed_s: float) -> str | None:
    """What shows that an answer is garbage, if anything: it is checked before anybody counts with it."""
    queue_s, inference_s = reply.queue_s, reply.inference_s
    if not (queue_s >= 0 and inference_s >= 0 and queue_s + inference_s <= CLOCKS * elapsed_s + CLOCKS_S):  # or NaN
        return f"it took {inference_s} s after {queue_s} s of waiting, and was back after {elapsed_s:.3f} s"
    return model.problem(reply.outputs)
