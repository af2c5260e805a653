"""Ring all-reduce over links between neighbours: sums that go round in segments, which overlap.

With N ranks, a vector is cut into N chunks. In N - 1 steps every rank adds a chunk from its neighbour to its own and
sends the sum on; in N - 1 more steps the finished chunks go round. So each rank sends 2 (N - 1) / N of a vector. A
vector goes in several segments: while one travels, the next is encoded or added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

Plus = Callable[[Tensor, Tensor], object]
"""Adds the second of two vectors of the wire's type into the first."""
PIECES = 8
"""Parts in which a broadcast travels, so that all links work at once."""


def whole_bytes(elements: int, ranks: int) -> float:
    """What each of ``ranks`` sends, on the average over them, for a whole sum of float32 ``[elements]``."""
    return 2 * (ranks - 1) * elements * 4 / ranks


class RankLost(ConnectionError):
    """A neighbour in the ring ended, or did not answer in time."""


class Pending(Protocol):
    """A transfer that has begun."""

    def wait(self) -> object:
        """Return when it is done; raises RankLost if the neighbour is gone or silent for too long."""
        ...


class Link(Protocol):
    """What a rank needs of its place in a ring: to send to the next rank, and to receive from the one before."""

    rank: int
    size: int

    def send(self, data: Tensor, tag: int) -> Pending:
        """Begin to send a contiguous tensor; it must not change before ``wait`` returned."""
        ...

    def receive(self, into: Tensor, tag: int) -> Pending:
        """Begin to receive into a contiguous tensor; transfers of one tag arrive in the order of their sending."""
        ...


class Ring:
    """One rank's view of a ring. All ranks make the same calls in the same order.

    ``sent`` is the number of bytes that this rank has sent, without the network's headers.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self.rank, self.size, self.sent = link.rank, link.size, 0

    def add(self, segments: Sequence[Callable[[], Tensor]], plus: Plus = Tensor.add_) -> Iterator[Tensor]:
        """Sums over all ranks, in the order of the segments, the same bits everywhere; consume all of them.

        A segment makes a vector ``[n]`` that nobody else uses: the sum is made in it. It is called when the segments
        before it are under way.
        """
        flights = [_Flight(self, number, make()) for number, make in enumerate(segments)]
        last = 2 * (self.size - 1) - 1
        for step in range(last + 1):
            for flight in flights:
                flight.advance(step, step == last, plus)
                if step == last:
                    yield flight.whole
        if self.size == 1:
            yield from (flight.whole for flight in flights)

    def maximum(self, values: Tensor) -> Tensor:
        """The largest of all ranks' values at each place of ``[n]``."""
        (largest,) = self.add([values.clone], lambda mine, theirs: torch.maximum(mine, theirs, out=mine))
        return largest

    def gather(self, mine: Tensor) -> list[Tensor]:
        """The vectors of all ranks, by rank; all have one shape and type."""
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        everyone[self.rank] = mine.contiguous()
        for step in range(self.size - 1):
            sending = self.send(everyone[(self.rank - step) % self.size], 0)
            self.receive(everyone[(self.rank - step - 1) % self.size], 0).wait()
            sending.wait()
        return everyone

    def broadcast(self, values: Tensor) -> Tensor:
        """The vector ``[n]`` of rank 0, on all ranks; the others give one of its shape and type to be overwritten."""
        under_way = []
        for piece in values.tensor_split(PIECES) if len(values) >= PIECES else [values]:
            if self.rank:
                self.receive(piece, 0).wait()
            if self.rank < self.size - 1:
                under_way.append(self.send(piece, 0))
        for sending in under_way:
            sending.wait()
        return values

    def send(self, data: Tensor, tag: int) -> Pending:
        """Begin to send to the next rank."""
        self.sent += data.numel() * data.element_size()
        return self._link.send(data, tag)

    def receive(self, into: Tensor, tag: int) -> Pending:
        """Begin to receive from the rank before."""
        return self._link.receive(into, tag)


class _Flight:
    """One segment on its way round."""

    def __init__(self, ring: Ring, tag: int, whole: Tensor) -> None:
        self.whole, self._ring, self._tag = whole, ring, tag
        self._chunks = list(whole.tensor_split(ring.size))
        self._sending: list[Pending | None] = [None] * ring.size
        self._incoming = torch.empty_like(self._chunks[0])
        if ring.size > 1:
            self._begin(0)

    def _begin(self, step: int) -> None:
        size = self._ring.size
        mine, theirs = (self._ring.rank - step) % size, (self._ring.rank - step - 1) % size
        self._sending[mine] = self._ring.send(self._chunks[mine], self._tag)
        if step < size - 1:  # a sum in the making; later ones are complete and replace what is here
            self._into = self._incoming[: self._chunks[theirs].numel()]
        else:
            self._into = self._chunks[theirs]
            self._sent(theirs)
        self._receiving = self._ring.receive(self._into, self._tag)

    def advance(self, step: int, last: bool, plus: Plus) -> None:
        """Finish a step and begin the next one."""
        self._receiving.wait()
        if step < self._ring.size - 1:
            plus(self._chunks[(self._ring.rank - step - 1) % self._ring.size], self._into)
        if not last:
            self._begin(step + 1)
        else:
            for chunk in range(self._ring.size):
                self._sent(chunk)

    def _sent(self, chunk: int) -> None:
        sending, self._sending[chunk] = self._sending[chunk], None
        if sending is not None:
            sending.wait()
