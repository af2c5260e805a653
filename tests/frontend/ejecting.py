"""Workers that serve call after call, for tests of ejection."""

from __future__ import annotations

from collections.abc import Callable

from frontend.policy.ejection import Ejection
from tests.frontend.test_balance import balancer


class Fleet:
    """Workers that serve one call after the other, each by a clock of its own."""

    def __init__(self, count: int, rules: Ejection | None = None) -> None:
        self.workers = balancer(count, rules or Ejection())
        self.out: list[str] = []
        self.workers.changed = lambda name, reason: self.out.append(name) if reason else None
        self.clocks = {f"w{number}": 100.0 for number in range(count)}

    def answer(self, name: str, *latencies: float) -> None:
        for latency in latencies:
            self.clocks[name] += latency
            self.workers.succeeded(name, self.clocks[name], latency)

    def cancel(self, name: str, *elapsed: float, calls: int = 1) -> None:
        """``calls`` is how many the worker has then."""
        for _ in range(calls):
            self.workers.started(name)
        for seconds in elapsed:
            self.clocks[name] += seconds
            self.workers.cancelled(name, self.clocks[name], seconds)
        self.workers.released(name, calls)

    def each(self, latency: Callable[[str], float], times: int) -> None:
        """Every worker answers so many calls, in turns."""
        for _ in range(times):
            for name in self.clocks:
                self.answer(name, latency(name))

    def until_out(self, name: str, latency: Callable[[], float], others: Callable[[], float], most: int) -> int:
        """How many answers a worker gives until it, or another, is ejected."""
        for count in range(1, most + 1):
            for other in self.clocks:
                self.answer(other, latency() if other == name else others())
            if self.out:
                return count
        return most + 1
