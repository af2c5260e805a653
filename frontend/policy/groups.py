"""Groups of requests: who sits in which place, when a group closes, and when its missing answers follow.

Pure: no I/O, no clock. ``Progress`` is the one bookkeeping of a closed group; policy, frontend, simulator and tests
share it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from encoder.code import GroupShape


@dataclass(slots=True)
class Group:
    """Requests protected together; ``members`` maps places to requests. Open until ``closed``."""

    id: int
    shape: GroupShape
    opened_at: float
    members: dict[int, int] = field(default_factory=dict)
    closed: bool = False

    @property
    def full(self) -> bool:
        """Whether every place is taken."""
        return len(self.members) == self.shape.members

    @property
    def enough(self) -> bool:
        """Whether it has members enough to be of use: two, or all whose answers the code needs."""
        return self.worth_closing if self.shape.needed > 1 else len(self.members) > 1

    @property
    def worth_closing(self) -> bool:
        """Whether it has members enough to be closed before it is full."""
        return len(self.members) >= self.shape.fewest


class Groups:
    """Hands out the places of one open group at a time; a request that ends while its group is open frees its place."""

    def __init__(self) -> None:
        self.shape: GroupShape | None = None
        """That of new groups; None while there is no redundant worker."""
        self.open: Group | None = None
        self._count = 0

    def join(self, request: int, at: float) -> tuple[Group, int]:
        """Give a request the first free place of the open group, opening one if need be."""
        if self.open is None:
            assert self.shape is not None  # noqa: S101 - nobody joins before there are redundant workers
            self._count += 1
            self.open = Group(self._count, self.shape, at)
        members = self.open.members
        place = 0
        while place in members:
            place += 1
        members[place] = request
        return self.open, place

    def is_open(self, id: int) -> bool:
        """Whether the group of this id is the open one."""
        return self.open is not None and self.open.id == id

    def leave(self, group: Group, place: int) -> None:
        """Free a place of a group that is still open; the last one to leave takes the group with it."""
        del group.members[place]
        if not group.members:
            self.close(group)

    def close(self, group: Group) -> None:
        """Take no more members: what the group has now is what its redundant inputs are made of."""
        group.closed = True
        if self.open is group:
            self.open = None

    def reshape(self, shape: GroupShape) -> None:
        """New groups have this shape; the open one is closed, and nothing is made of it."""
        if self.open:
            self.close(self.open)
        self.shape = shape


@dataclass(slots=True)
class Progress:
    """Which outputs of a closed group are there."""

    shape: GroupShape
    own: set[int] = field(default_factory=set)
    """Places whose member has its own answer, from whichever copy."""
    out: int = 0
    """Redundant runs that may still come back."""
    back: int = 0
    """Redundant runs that came back with an output."""
    decoded: bool = False
    """Whether decoding was tried; it is tried once."""

    def __post_init__(self) -> None:
        self.out = self.shape.inputs

    def answered(self, place: int) -> bool:
        """A member has its own answer; true if that makes the group decodable."""
        self.own.add(place)
        return self._due()

    def returned(self, ok: bool) -> bool:
        """A redundant run came back or failed; true if that makes the group decodable."""
        if self.out:
            self.out -= 1
            self.back += ok
        return ok and self._due()

    def _due(self) -> bool:
        if self.decoded or not self.shape.decodable(len(self.own), self.back):
            return False
        self.decoded = True
        return True

    @property
    def lacking(self) -> int:
        """How many own answers it takes beside those that are there, if all redundant runs come back."""
        return self.shape.needed - len(self.own) - self.back - self.out

    def reachable(self, under_way: int) -> bool:
        """Whether missing answers may follow if ``under_way`` more members get their own."""
        return self.shape.decodable(len(self.own) + under_way, self.back + self.out)
