"""Filling and closing groups: which request sits in which cell. Pure: no I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Group:
    """Requests protected together; ``members`` maps cells to requests. Open until ``closed``."""

    id: int
    cells: int
    opened_at: float
    members: dict[int, int] = field(default_factory=dict)
    closed: bool = False

    @property
    def full(self) -> bool:
        """Whether every cell is taken."""
        return len(self.members) == self.cells


class Groups:
    """Hands out the cells of one open group at a time; a request that ends while its group is open frees its cell."""

    def __init__(self) -> None:
        self.cells = 0  # N of the collage workers; 0 while there are none
        self.open: Group | None = None
        self._count = 0

    def join(self, request: int, at: float) -> tuple[Group, int]:
        """Give a request the first free cell of the open group, opening one if need be."""
        if self.open is None:
            self._count += 1
            self.open = Group(self._count, self.cells, at)
        members = self.open.members
        cell = next(cell for cell in range(self.open.cells) if cell not in members)
        members[cell] = request
        return self.open, cell

    def leave(self, group: Group, cell: int) -> None:
        """Free a cell of a group that is still open; the last one to leave takes the group with it."""
        del group.members[cell]
        if not group.members:
            self.close(group)

    def close(self, group: Group) -> None:
        """Take no more members: what the group has now is what its collage shows."""
        group.closed = True
        if self.open is group:
            self.open = None
