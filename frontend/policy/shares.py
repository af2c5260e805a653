"""Who holds how much of the room for requests, so that no caller takes all of it. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

FEWEST = 100
"""Requests that one caller may have in flight, at least: as many as a connection may have calls."""
QUEUED = 16
"""Calls that a worker queues, unless its operator says otherwise: all of them together are all the room there is."""


@dataclass(slots=True)
class Held:
    """Requests in flight, and the bytes that these hold."""

    requests: int = 0
    size: int = 0


class Shares:
    """The room for ``most`` requests and ``most_bytes``, of which one caller may have the share ``share``, 0 to 1.

    There is no more room for requests than workers have in their queues; ``resize`` says how many workers there are. A
    caller is a name, "" for one that has no limit of its own. The first request is taken whatever its size.
    """

    def __init__(self, most: int, most_bytes: int, share: float) -> None:
        self.most, self.most_bytes = most, most_bytes
        self._share, self._bytes_of_one = share, most_bytes * share
        self.resize(most)
        self.all = Held()
        self._callers: dict[str, Held] = {}

    def resize(self, workers: int) -> None:
        """There are ``workers`` now."""
        room = min(self.most, QUEUED * workers) if self._share < 1 else self.most
        self.most_of_one = max(1, min(int(self.most * self._share), max(FEWEST, int(room * self._share))))

    def refusal(self, caller: str, requests: int, size: int) -> tuple[str, str] | None:
        """Why there is no room: the reason (count, bytes or share) and a text. None if there is."""
        held, mine = self.all, self._callers.get(caller)
        if held.requests + requests > self.most:
            return "count", f"{held.requests} requests are in flight already"
        if size and held.size and held.size + size > self.most_bytes:
            return "bytes", f"requests in flight hold {held.size:,} bytes already"
        if mine is None or not caller:
            return None
        if mine.requests + requests > self.most_of_one:
            return "share", f"this connection has {mine.requests} requests in flight already"
        if size and mine.size and mine.size + size > self._bytes_of_one:
            return "share", f"this connection's requests in flight hold {mine.size:,} bytes already"
        return None

    def take(self, caller: str, requests: int, size: int) -> None:
        """Requests begin."""
        if (mine := self._callers.get(caller)) is None:
            mine = self._callers[caller] = Held()
        held = self.all
        held.requests += requests
        held.size += size
        mine.requests += requests
        mine.size += size

    def leave(self, caller: str, requests: int, size: int) -> None:
        """They end."""
        held, mine = self.all, self._callers[caller]
        held.requests -= requests
        held.size -= size
        mine.requests -= requests
        mine.size -= size
        if not mine.requests and not mine.size:
            del self._callers[caller]

    @contextmanager
    def holding(self, caller: str, requests: int, size: int) -> Iterator[None]:
        """They begin with the block and end with it."""
        self.take(caller, requests, size)
        try:
            yield
        finally:
            self.leave(caller, requests, size)
