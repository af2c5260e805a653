"""Links between neighbours of a ring: torch.distributed between processes, memory between threads of one process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from queue import Empty, SimpleQueue

import torch.distributed as dist
from torch import Tensor

from models.distributed.ring import Pending, RankLost

TIMEOUT_S = 60.0
"""How long a rank waits for its neighbour."""


@dataclass(frozen=True)
class _Waiting:
    """A transfer that is finished by a call."""

    wait: Callable[[], object]


class ProcessLink:
    """Over the default group of ``torch.distributed``, which must exist. ``timeout_s`` bounds every transfer."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._next, self._before = (self.rank + 1) % self.size, (self.rank - 1) % self.size
        self._timeout = timedelta(seconds=timeout_s)

    def send(self, data: Tensor, tag: int) -> Pending:
        """Begin to send to the next rank."""
        return self._pending(lambda: dist.isend(data, self._next, tag=tag), self._next)

    def receive(self, into: Tensor, tag: int) -> Pending:
        """Begin to receive from the rank before."""
        return self._pending(lambda: dist.irecv(into, self._before, tag=tag), self._before)

    def _pending(self, begin: Callable[[], dist.Work | None], neighbour: int) -> Pending:
        try:
            work = begin()
        except RuntimeError as error:
            raise self._lost(neighbour, error) from error
        assert work is not None, "every rank is in the group"  # noqa: S101

        def wait() -> None:
            try:
                work.wait(self._timeout)
            except RuntimeError as error:
                raise self._lost(neighbour, error) from error

        return _Waiting(wait)

    def _lost(self, neighbour: int, error: RuntimeError) -> RankLost:
        silent = "timed out" in str(error).lower()
        what = f"did not answer within {self._timeout.total_seconds():g} s" if silent else "ended"
        return RankLost(f"rank {neighbour} {what}")


_Queue = SimpleQueue[Tensor]


@dataclass
class MemoryLink:
    """Between threads of one process, for simulated workers: the arithmetic of a ring without its network."""

    rank: int
    size: int
    timeout_s: float = TIMEOUT_S
    _out: defaultdict[int, _Queue] = field(default_factory=lambda: defaultdict(SimpleQueue))
    _in: defaultdict[int, _Queue] = field(default_factory=lambda: defaultdict(SimpleQueue))

    @classmethod
    def ring(cls, size: int, timeout_s: float = TIMEOUT_S) -> list[MemoryLink]:
        """Links of ``size`` ranks, each for a thread of its own."""
        links = [cls(rank, size, timeout_s) for rank in range(size)]
        for link in links:
            link._in = links[link.rank - 1]._out
        return links

    def send(self, data: Tensor, tag: int) -> Pending:
        """Hand a copy to the next rank."""
        self._out[tag].put(data.clone())
        return _Waiting(lambda: None)

    def receive(self, into: Tensor, tag: int) -> Pending:
        """Wait for what the rank before hands over."""

        def wait() -> None:
            try:
                into.copy_(self._in[tag].get(timeout=self.timeout_s))
            except Empty:
                before = (self.rank - 1) % self.size
                raise RankLost(f"rank {before} did not answer within {self.timeout_s:g} s") from None

        return _Waiting(wait)
