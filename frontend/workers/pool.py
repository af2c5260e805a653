"""The worker pool: which workers there are, which are ready, and which one gets the next call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass

from collage.model_info import ModelInfo
from frontend.policy.balance import Balancer
from frontend.policy.choices import Choice, FewestCalls
from frontend.policy.ejection import Ejection
from frontend.policy.elect import Offer, elect
from frontend.workers.discovery import addresses
from frontend.workers.transport import Transport
from frontend.workers.worker import Worker

logger = logging.getLogger("collage.frontend")

AT_ONCE = 10
"""Connections that are begun in one turn of the event loop."""


@dataclass(frozen=True)
class PoolSettings:
    """How a pool finds and chooses its workers."""

    resolve_every_s: float = 5.0
    """Seconds between two looks at a DNS name or a file that lists workers."""
    ejection: Ejection | None = None
    """When a slow or failing worker is left out; None for never."""
    seed: int | None = None
    """Of the samples among equally busy workers; None for a random one."""
    choice: Callable[[], Choice] = FewestCalls
    """How a worker is chosen for a call."""


Fits = Callable[[ModelInfo], str | None]
"""Says why a model may not be used: None if it may, an empty string while nobody can know."""


Prefers = Callable[[Sequence[Offer[ModelInfo]]], Container[int]]
"""Says which of the models on offer are preferred, by their indices."""


class Pool:
    """The workers that play one role, found as ``discovery.addresses`` says.

    Only one model is in use at a time, as ``elect`` chooses. So a rolling update moves all traffic at once when most
    workers are new; until then the new ones wait, and from then on the old ones.

    Workers that left the list are used as long as no listed one can be: a list that changes as a whole is no outage.
    """

    def __init__(
        self,
        name: str,
        target: str,
        connect: Callable[[str], Transport],
        settings: PoolSettings | None = None,
        *,
        changed: Callable[[], object] | None = None,
        ejected: Callable[[], object] = lambda: None,
    ) -> None:
        """``name`` is the role in logs. ``changed`` is called after every review of who is ready, and is the first of
        the ``listeners``; ``ejected`` is called with every ejection. Any model ``fits``, until somebody says otherwise.
        """
        settings = settings or PoolSettings()
        self.name = name
        self.fits: Fits = lambda info: None
        self.prefers: Prefers = lambda offers: ()
        self.balancer = Balancer(settings.ejection, settings.seed, settings.choice())
        self.info: ModelInfo | None = None  # the model in use, or the last one that was
        self.ready = self.refused = 0  # workers that may be used, and workers that serve a model not in use
        self.listeners: list[Callable[[], object]] = [changed] if changed else []
        self.balancer.changed = self._standing_changed
        self._ejected = ejected
        self.workers: dict[str, Worker] = {}
        self._target, self._connect, self._resolve_every_s = target, connect, settings.resolve_every_s
        self._finding: asyncio.Task[None] | None = None
        self._listed: set[str] = set()
        self._turn = asyncio.Lock()
        self._following: dict[str, asyncio.Task[None]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._complaints: set[tuple[str, str]] = set()

    def pick(self, avoid: Collection[str] = ()) -> Worker | None:
        """A ready worker that is not in ``avoid``, as the balancer chooses."""
        address = self.balancer.pick(asyncio.get_running_loop().time(), avoid)
        return None if address is None else self.workers[address]

    @property
    def counts(self) -> Mapping[str, int]:
        """How many workers are known, ready to be used, refused for a model not in use, and ejected now."""
        return {
            "known": len(self.workers),
            "ready": self.ready,
            "refused": self.refused,
            "ejected": self.balancer.ejected,
        }

    async def start(self) -> None:
        """Find workers and follow them until ``close``."""
        self._finding = asyncio.create_task(self._find())

    async def close(self) -> None:
        """Let go of all workers."""
        if self._finding:
            self._finding.cancel()
        await asyncio.sleep(0)  # a task that is cancelled before it has begun does not clean up
        tasks = [*([self._finding] if self._finding else []), *self._following.values(), *self._retiring]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._following.clear()
        for address in list(self.workers):
            await self.workers.pop(address).close()

    async def _find(self) -> None:
        async for found in addresses(self._target, self._resolve_every_s):
            await self._set_addresses(found)

    async def _set_addresses(self, found: set[str]) -> None:
        self._listed = found
        for number, address in enumerate(sorted(found - self.workers.keys()), 1):
            worker = self.workers[address] = Worker(address, self._connect(address), self.balancer)
            self._following[address] = asyncio.create_task(worker.follow(self.review))
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)  # requests go on while many connect
        self.review()

    def review(self) -> None:
        """Decide again which workers may be used; for whenever something changed that this depends on."""
        known = list(self.workers.values())
        listed = [worker for worker in known if worker.address in self._listed]
        used = self._choose(listed)
        if len(listed) < len(known):
            used = used or self._choose(known)
        for worker in known:
            worker.ready = worker in used
            if worker.ready or worker.address in self._listed:
                self.balancer.set_ready(worker.address, worker.ready)
            else:
                self._let_go(worker)
        for listener in self.listeners:
            listener()

    def _choose(self, workers: Sequence[Worker]) -> set[Worker]:
        """Those of ``workers`` that may be used; makes their model the one in use, if there are any."""
        models: list[tuple[ModelInfo, list[Worker]]] = []
        for worker in workers:
            if worker.serving and worker.info:
                same = next(((info, others) for info, others in models if info == worker.info), None)
                if same is None:
                    models.append(same := (worker.info, []))
                worker.info = same[0]  # one object, which is compared at once
                same[1].append(worker)
        problems = [self.fits(info) for info, _ in models]
        offers = [
            Offer(info, len(others), problem is None) for (info, others), problem in zip(models, problems, strict=True)
        ]
        preferred = self.prefers(offers)
        elected = elect(offers, self.info, preferred)
        chosen, used = (self.info, []) if elected is None else models[elected]
        if used and chosen != self.info:
            self._complaints.clear()
            logger.info("%s workers: using %s of %d", self.name, _title(chosen), len(used))
        self.info, self.ready, self.refused = chosen, len(used), 0
        for index, ((info, others), problem) in enumerate(zip(models, problems, strict=True)):
            if others is not used and problem != "":
                self.refused += len(others)
                if problem or (index in preferred) == (elected in preferred):
                    self._complain(info, problem or f"more workers serve {_title(chosen)}")
        return set(used)

    def _let_go(self, worker: Worker) -> None:
        """Forget a worker that left; it may still finish the calls that it has."""
        del self.workers[worker.address]
        self.balancer.remove(worker.address)
        retiring = asyncio.create_task(self._retire(worker, self._following.pop(worker.address)))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)

    async def _retire(self, worker: Worker, following: asyncio.Task[None]) -> None:
        try:
            async with self._turn:  # requests go on while many leave
                following.cancel()
                await asyncio.wait((following,))
            await worker.finish()
        finally:
            following.cancel()
            await asyncio.wait((following,))
            await worker.close()

    def _standing_changed(self, address: str, reason: str) -> None:
        if reason:
            logger.warning("%s worker %s is left out for a while: %s", self.name, address, reason)
            self._ejected()
        else:
            logger.info("%s worker %s is well again", self.name, address)

    def _complain(self, info: ModelInfo, problem: str) -> None:
        if (_title(info), problem) not in self._complaints:
            self._complaints.add((_title(info), problem))
            logger.error("no requests for workers with %s: %s", _title(info), problem)


def _title(info: ModelInfo | None) -> str:
    return f"{info.name} {info.version}" if info else "no model"
