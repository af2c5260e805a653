"""The worker pool: which workers there are, which are ready, and which one gets the next call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Generic

from collage.model_info import ModelInfo, ModelKind
from encoder.image import Pixels
from frontend.jobs import makes_sense
from frontend.policy.balance import Balancer, Ejection
from frontend.workers.discovery import addresses
from frontend.workers.streams import Ended, Ending, Output, Reply, WorkerFailure
from frontend.workers.transport import Cancellable, Transport

logger = logging.getLogger("collage.frontend")

RETRY_S = 0.25


class Worker(Generic[Output]):
    """One worker: its transport, whether it may be used, and the calls it has."""

    def __init__(self, address: str, transport: Transport[Output], balancer: Balancer) -> None:
        self.address = address
        self.info: ModelInfo | None = None
        self.serving = False  # says the worker
        self.ready = False  # says the pool: serving, and the model fits
        self._transport, self._balancer = transport, balancer
        self._clock = asyncio.get_running_loop().time
        self._running = self._cancelled = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._settling: asyncio.Task[None] | None = None

    def call(self, image: Pixels, request_id: str, attempt: int, timeout_s: float, ended: Ended[Output]) -> Cancellable:
        """Start to run one image; counts as outstanding from now on, until the worker is done with it.

        A cancelled call stays outstanding until the worker has let go of it: a frozen worker must not look idle.
        """
        started_at, model = self._clock(), self.info

        def over(outcome: Ending[Output]) -> None:
            self._running -= 1
            if not self._running:
                self._idle.set()
            if isinstance(outcome, Reply) and model and not makes_sense(outcome.output, model):
                outcome = WorkerFailure("GARBAGE", "its numbers are not finite, or not one per label")
            self._count(started_at, outcome)
            ended(outcome)

        call = self._transport.run(image, request_id, attempt, timeout_s, over)
        self._balancer.started(self.address)
        self._running += 1
        self._idle.clear()
        return call

    async def ask(self, image: Pixels, request_id: str, timeout_s: float) -> Reply[Output]:
        """The answer to a ``call``, or its WorkerFailure."""
        answer: asyncio.Future[Reply[Output]] = asyncio.get_running_loop().create_future()

        def ended(outcome: Ending[Output]) -> None:
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

    def _count(self, started_at: float, outcome: Ending[Output]) -> None:
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
        """Keep ``info`` and ``serving`` true to the worker, for ever."""

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


class Pool(Generic[Output]):
    """The workers of one kind, found as ``discovery.addresses`` says.

    Only one model is in use at a time: of those that fit, the one that most workers serve, and at a tie the one in use.
    So a rolling update moves all traffic at once when most workers are new; until then the new ones wait, and
    from then on the old ones.
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
        self.info: ModelInfo | None = None  # the model in use, or the last one that was
        self.ready = self.refused = 0  # workers that may be used, and workers that serve a model not in use
        self.listeners: list[Callable[[], None]] = []  # called after every change of who is ready
        self.ejected: Callable[[], None] = lambda: None  # called with every ejection
        self.balancer.changed = self._standing_changed
        self.fits: Callable[[ModelInfo], str | None] = lambda info: None  # what is wrong with a model; empty: wait
        self.workers: dict[str, Worker[Output]] = {}
        self._target, self._connect, self._resolve_every_s = target, connect, resolve_every_s
        self._finding: asyncio.Task[None] | None = None
        self._following: dict[str, asyncio.Task[None]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._complaints: set[tuple[str, str]] = set()

    def pick(self, avoid: Collection[str] = ()) -> Worker[Output] | None:
        """A ready worker that is not in ``avoid``, as the balancer chooses."""
        address = self.balancer.pick(asyncio.get_running_loop().time(), avoid)
        return None if address is None else self.workers[address]

    async def start(self) -> None:
        """Find workers and follow them until ``close``."""
        self._finding = asyncio.create_task(self._find())

    async def close(self) -> None:
        """Let go of all workers."""
        tasks = [*([self._finding] if self._finding else []), *self._following.values(), *self._retiring]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._following.clear()
        for address in list(self.workers):
            await self.workers.pop(address).close()

    async def _find(self) -> None:
        async for found in addresses(self._target, self._resolve_every_s):
            self._set_addresses(found)

    def _set_addresses(self, found: set[str]) -> None:
        for address in sorted(found - self.workers.keys()):
            worker = self.workers[address] = Worker(address, self._connect(address), self.balancer)
            self._following[address] = asyncio.create_task(worker.follow(self.review))
        for address in sorted(self.workers.keys() - found):
            self._following.pop(address).cancel()
            self.balancer.remove(address)
            retiring = asyncio.create_task(self.workers.pop(address).retire())
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)
            self.review()

    def review(self) -> None:
        """Decide again which workers may be used; for whenever something changed that this depends on."""
        models: list[tuple[ModelInfo, list[Worker[Output]]]] = []
        for worker in self.workers.values():
            if worker.serving and worker.info:
                same = next((workers for info, workers in models if info == worker.info), None)
                if same is None:
                    models.append((worker.info, same := []))
                same.append(worker)
        problems = [self._problem(info) for info, _ in models]
        fitting = [model for model, problem in zip(models, problems, strict=True) if problem is None]
        chosen, used = max(fitting, key=lambda model: (len(model[1]), model[0] == self.info), default=(self.info, []))
        if used and chosen != self.info:
            self._complaints.clear()
            logger.info("%s workers: using %s of %d", self.kind, _title(chosen), len(used))
        self.info, self.ready, self.refused = chosen, len(used), 0
        for (info, workers), problem in zip(models, problems, strict=True):
            if workers is not used and problem != "":
                self.refused += len(workers)
                self._complain(info, problem or f"more workers serve {_title(chosen)}")
        ready = set(map(id, used))
        for worker in self.workers.values():
            worker.ready = id(worker) in ready
            self.balancer.set_ready(worker.address, worker.ready)
        for listener in self.listeners:
            listener()

    def _standing_changed(self, address: str, reason: str) -> None:
        if reason:
            logger.warning("%s worker %s is left out for a while: %s", self.kind, address, reason)
            self.ejected()
        else:
            logger.info("%s worker %s is well again", self.kind, address)

    def _problem(self, info: ModelInfo) -> str | None:
        return f"it is a {info.kind}, expected a {self.kind}" if info.kind != self.kind else self.fits(info)

    def _complain(self, info: ModelInfo, problem: str) -> None:
        if (_title(info), problem) not in self._complaints:
            self._complaints.add((_title(info), problem))
            logger.error("no requests for workers with %s: %s", _title(info), problem)


def _title(info: ModelInfo | None) -> str:
    return f"{info.name} {info.version}" if info else "no model"
