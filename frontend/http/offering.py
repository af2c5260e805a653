"""The load that the page of ``make up`` offers: random samples, while somebody watches."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

from collage.errors import ServiceError
from encoder.image import Pixels, decode
from frontend.dispatch import Dispatcher

MOST_PER_S = 100.0
_MOST_OPEN = 500
_UNWATCHED_S = 10.0
_CALLER = "the page's load"


class Offering:
    """Sends each of random ``samples`` to all ``dispatchers``, ``per_s`` times a second, at independent moments.

    It stops when ``watched`` was not called for ten seconds, or the process is ``draining``.
    """

    def __init__(
        self, dispatchers: Sequence[Dispatcher], samples: Sequence[bytes], timeout_s: float, draining: asyncio.Event
    ) -> None:
        self.per_s = 0.0
        self._dispatchers, self._samples = dispatchers, samples
        self._timeout_s, self._draining = timeout_s, draining
        self._loop = asyncio.get_running_loop()
        self._random = random.Random()  # noqa: S311 - picks samples
        self._open: set[asyncio.Task[None]] = set()
        self._watched_at = float("-inf")
        self._next: asyncio.TimerHandle | None = None

    def watched(self) -> None:
        """Somebody looks at the page."""
        self._watched_at = self._loop.time()

    def set(self, per_s: float) -> None:
        """Offer so many samples a second from now on, 0 for none."""
        self.per_s = per_s
        self.watched()
        if self._next is not None:
            self._next.cancel()
        self._schedule()

    def send(self, count: int, dispatchers: Sequence[Dispatcher]) -> None:
        """Send ``count`` samples now, each to all of these."""
        for _ in range(count if self._samples and len(self._open) < _MOST_OPEN else 0):
            sample = self._random.choice(self._samples)
            for dispatcher in dispatchers:
                task = self._loop.create_task(self._ask(dispatcher, sample))
                self._open.add(task)
                task.add_done_callback(self._open.discard)

    def _schedule(self) -> None:
        self._next = None
        if self._loop.time() - self._watched_at > _UNWATCHED_S or self._draining.is_set():
            self.per_s = 0.0
        if self.per_s:
            self._next = self._loop.call_later(self._random.expovariate(self.per_s), self._due)

    def _due(self) -> None:
        self.send(1, self._dispatchers)
        self._schedule()

    async def _ask(self, dispatcher: Dispatcher, sample: bytes) -> None:
        def prepare(size: int) -> Pixels:
            return decode(sample, size)

        with suppress(ServiceError):
            await dispatcher.predict(prepare, "", self._timeout_s, size=len(sample), caller=_CALLER)
