"""One worker as the frontend sees it: its model, its calls, and whether it serves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from collage.model_info import ModelInfo
from encoder.image import Pixels
from frontend.policy.balance import Balancer
from frontend.workers.streams import Ended, Ending, Reply, WorkerFailure
from frontend.workers.transport import Cancellable, Transport

logger = logging.getLogger("collage.frontend")

RETRY_S = 0.25
LONGEST_S = 3600.0
"""No call takes longer, or waits for longer: an answer that claims so is garbage."""


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
            if isinstance(outcome, Reply) and model and (problem := _problem(outcome, model)):
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
        self._balancer.released(self.address)
        if not isinstance(outcome, WorkerFailure):
            self._balancer.succeeded(self.address, at, at - started_at)
        elif outcome.code == "DEADLINE_EXCEEDED":  # which may have been too short
            self._balancer.cancelled(self.address, at, at - started_at)
        elif outcome.code != "RESOURCE_EXHAUSTED":  # busy is no fault
            self._balancer.failed(self.address, at)

    async def _settle(self) -> None:
        while self._cancelled:
            covered = self._cancelled
            try:
                await self._transport.settle()
            except WorkerFailure:
                await asyncio.sleep(RETRY_S)  # the connection broke, and with it the cancelled calls
            self._cancelled -= covered
            self._balancer.released(self.address, covered)
        self._settling = None

    async def follow(self, changed: Callable[[], None]) -> None:
        """Keep ``info`` and ``serving`` true to the worker, until cancelled."""

        told = ""

        def update(serving: bool) -> None:
            nonlocal told
            news = serving or self.serving
            self.serving = serving
            if serving:
                told = ""
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
            await asyncio.sleep(RETRY_S)

    async def retire(self) -> None:
        """Close when the calls that it has have ended: it is off the list, yet may well finish them."""
        self.ready = False
        try:
            await self._idle.wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop using the worker; calls that it still has fail."""
        self.ready = False
        if self._settling:
            self._settling.cancel()
            await asyncio.wait([self._settling])
        await self._transport.close()


def _problem(reply: Reply, model: ModelInfo) -> str | None:
    if not (0 <= reply.queue_s <= LONGEST_S and 0 <= reply.inference_s <= LONGEST_S):  # also catches NaN
        return f"it took {reply.inference_s} s after {reply.queue_s} s of waiting"
    return model.problem(reply.outputs)
