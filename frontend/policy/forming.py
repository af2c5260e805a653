"""Which requests sit in a group together, and when the redundant inputs of a group are sent. Pure: no I/O, no clock."""

from __future__ import annotations

from encoder.code import GroupShape
from frontend.policy import events as e
from frontend.policy.deadline import Deadline
from frontend.policy.deferral import ALONE, Deferral
from frontend.policy.groups import Group, Groups
from frontend.policy.rules import Rules
from frontend.policy.state import Flights, Request


class Forming:
    """Puts requests into the open group and closes it.

    A request joins when it comes, and a group is closed when it is full or has waited. Where the budget does not pay
    for that, requests join when they are worth it, and a group is closed when it is worth it (``Deferral``).
    """

    def __init__(
        self,
        rules: Rules,
        groups: Groups,
        flights: Flights,
        deadline: Deadline,
        deferral: Deferral,
        actions: list[e.Action],
    ) -> None:
        """``actions`` is where to say what is to be done."""
        self._workers = 0  # groups that can be run at once
        self._rules, self._groups, self._flights, self._requests = rules, groups, flights, flights.requests
        self._deadline, self._deferral, self._actions = deadline, deferral, actions

    def workers_changed(self, workers: int, shape: GroupShape, at: float) -> None:
        """So many groups of this shape can be run at once."""
        before, self._workers = self._groups.open, workers
        self._deferral.sell(shape, shape if workers else ALONE)
        if shape != self._groups.shape:
            self._groups.reshape(shape)
            if before and self._deferral.active:
                self._defer(before, at)

    def arrived(self, request: Request, at: float) -> None:
        """Let a request join, now or later."""
        if not self._rules.coded or not self._workers:
            return
        if self._deferral.known:
            self._actions.append(e.SetTimer(at + self._deferral.joins_after(), e.Timer.JOIN, request.id))
        else:
            self.join(request, at)

    def join(self, request: Request, at: float) -> None:
        """Give a request a place in the open group, if it has none."""
        if request.group or not self._workers or (self._deferral.active and not self._deferral.known):
            return
        group = self._seat(request, at)
        if group.full:
            self._close(group, at)
        else:
            if self._deferral.active:
                self.consider(group, at)
            if len(group.members) == 1 and not group.closed:
                self._look_again(group, at)

    def due(self, group: Group, at: float) -> None:
        """The open group has waited."""
        self.consider(group, at)
        if self._deferral.active and not group.closed:
            self._look_again(group, at)

    def consider(self, group: Group, at: float) -> None:
        """Close a group that is not full, if it is worth that and its redundant inputs can be run at once."""
        if self._flights.running >= self._workers:
            return
        if self._deferral.active:
            waiting = [request for id in group.members.values() if (request := self._requests[id]).sent == 1]
            if self._deferral.pays([at - request.arrived for request in waiting], group.shape):
                self._fill(group, at)
                if group.enough:
                    self._close(group, at)
        elif group.worth_closing and self._deferral.budget.allows(group.shape.inputs):
            self._close(group, at)

    def worker_idle(self, at: float) -> None:
        """A redundant worker is idle: the open group may have waited for one."""
        if (group := self._groups.open) and (self._deferral.active or at >= group.opened_at + self._wait):
            self.consider(group, at)

    @property
    def _wait(self) -> float:
        """A group must close early enough that its redundant runs can be back by the deadline of its first member."""
        return max(0.0, min(self._rules.group_wait, self._deadline.value - self._flights.times.usual))

    def _look_again(self, group: Group, at: float) -> None:
        wait = self._deferral.tick if self._deferral.active else self._wait
        self._actions.append(e.SetTimer(at + wait, e.Timer.CLOSE, group.id))

    def _seat(self, request: Request, at: float) -> Group:
        request.group, request.place = self._groups.join(request.id, at)
        return request.group

    def _fill(self, group: Group, at: float) -> None:
        """Give the places left to requests that are not worth it themselves: it costs nothing more.

        Where the code needs siblings' own answers, those come first that are likely to have them, the latest.
        """
        for id in self._requests if group.shape.needed == 1 else reversed(self._requests):
            if group.full:
                break
            request = self._requests[id]
            if request.group is None and request.sent == 1 and request.outstanding:
                self._seat(request, at)

    def _close(self, group: Group, at: float) -> None:
        self._groups.close(group)
        if not self._deferral.spend(group.shape.inputs):
            if self._deferral.active:
                self._defer(group, at)
            return  # the group stays without a code; its stragglers are replicated
        flight = self._flights.start(group, at)
        self._actions.append(e.SendCoded(group.id, dict(group.members), group.shape))
        if self._rules.late_coded and self._flights.times.known:
            late = at + self._flights.times.late_after
            waiting = [member.id for member in self._flights.members(flight) if late < member.deadline]
            self._actions.extend(e.SetTimer(late, e.Timer.LATE, member) for member in waiting)

    def _defer(self, group: Group, at: float) -> None:
        """Let members join another group, when there may be tokens again."""
        for id in group.members.values():
            self._requests[id].group = None
            self._actions.append(e.SetTimer(at + self._deferral.retry, e.Timer.JOIN, id))
