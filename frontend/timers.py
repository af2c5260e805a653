"""Many timers of which hardly any is ever due: one entry in the event loop for all of them."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Container
from typing import Generic, TypeVar

from frontend.policy import events as e

SPARE = 1024  # entries of ended requests that may wait to be cleared away


What = TypeVar("What")


class Timers(Generic[What]):
    """Calls ``due`` with each thing at its time, unless it is not ``wanted`` any more by then; nobody cancels them."""

    def __init__(self, due: Callable[[What], None], wanted: Callable[[What], bool]) -> None:
        self._due, self._wanted = due, wanted
        self._heap: list[tuple[float, int, What]] = []
        self._order = itertools.count()
        self._most = SPARE
        self._next: asyncio.TimerHandle | None = None
        self._next_at = 0.0

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, at: float, what: What) -> None:
        """Add one, due ``at`` a time of the event loop."""
        heapq.heappush(self._heap, (at, next(self._order), what))
        if len(self._heap) > self._most:
            self._heap = [entry for entry in self._heap if self._wanted(entry[2])]
            heapq.heapify(self._heap)
            self._most = 2 * len(self._heap) + SPARE
        if self._next is None or at < self._next_at:
            self._arm()

    def close(self) -> None:
        """Forget all of them."""
        self._heap.clear()
        self._arm()

    def _arm(self) -> None:
        if self._next:
            self._next.cancel()
            self._next = None
        while self._heap and not self._wanted(self._heap[0][2]):
            heapq.heappop(self._heap)
        if self._heap:
            self._next_at = self._heap[0][0]
            self._next = asyncio.get_running_loop().call_at(self._next_at, self._ring)

    def _ring(self) -> None:
        now = max(self._next_at, asyncio.get_running_loop().time())  # the loop may be early, within its resolution
        while self._heap and self._heap[0][0] <= now:
            due = heapq.heappop(self._heap)[2]
            if self._wanted(due):
                self._due(due)
        self._next = None
        self._arm()


class PolicyTimers:
    """The timers that the policy sets: ``feed`` gets each when it is due, unless it is of no use by then.

    It is of use while its request is one of the ``requests``, or its group ``is_open``.

    Expiries are apart: they are many, far off and in order, which costs a heap nothing unless others are among them.
    """

    def __init__(self, feed: Callable[[e.Due], None], requests: Container[int], is_open: Callable[[int], bool]) -> None:
        def due(timer: e.SetTimer) -> None:
            feed(e.Due(*timer))

        def wanted(timer: e.SetTimer) -> bool:
            return is_open(timer.id) if timer.timer is e.Timer.CLOSE else timer.id in requests

        self._expiries, self._others = Timers(due, wanted), Timers(due, wanted)

    def set(self, timer: e.SetTimer) -> None:
        """Add one."""
        (self._expiries if timer.timer is e.Timer.EXPIRY else self._others).set(timer.at, timer)

    def close(self) -> None:
        """Forget all of them."""
        self._expiries.close()
        self._others.close()
