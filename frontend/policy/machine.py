"""What to do about stragglers: a pure state machine from events to actions.

It knows no clock, no network and no event loop. Events carry the time ``at`` which they happened, in seconds on any one
clock; actions are carried out by a shell: the dispatcher, a test, or a simulator.

The rules are those of Collage inference, section 3.2: an s-cnn answer by the deadline wins; at the deadline a coded
answer is taken, and where there is none the request is replicated. Ours are added: a coded answer of low confidence
waits for the replica, redundant requests obey one budget, failures are stragglers at once, and losers are cancelled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from frontend.policy.events import (
    PRIMARY,
    Action,
    Answer,
    AnswerCoded,
    Answered,
    Arrived,
    Audit,
    Cancel,
    CancelCollage,
    CollageFailed,
    CollageWorkers,
    Decoded,
    Due,
    Event,
    Fail,
    Failed,
    Gone,
    Send,
    SendCollage,
    SetTimer,
    Straggles,
    Timer,
)
from frontend.policy.groups import Group, Groups
from frontend.policy.quantile import RunningQuantile
from frontend.policy.rules import Budget, Rules


@dataclass(slots=True)
class _Request:
    id: int
    arrived: float
    deadline: float
    expires: float
    group: Group | None = None
    cell: int = -1
    outstanding: set[int] = field(default_factory=set)
    sent: int = 0
    straggles: bool = False


@dataclass(slots=True)
class _Flight:
    """A group whose collage is in flight or back; ``confidences`` is None until it is back, empty if it failed."""

    sent_at: float
    live: dict[int, int]  # members without an answer yet: cell to request
    confidences: Mapping[int, float] | None = None


def _turn(event: Event) -> tuple[int, float]:
    """Its place in a batch."""
    return 0 if isinstance(event, Answered) else 1 if isinstance(event, Decoded) else 2, event.at


class Policy:
    """Turns events into actions. Every request ends once: in an Answer, AnswerCoded or Fail, or because it is Gone."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.groups = Groups()
        self.budget = Budget(rules.extra_load)
        self._requests: dict[int, _Request] = {}
        self._flights: dict[int, _Flight] = {}
        self._in_flight = 0  # collages sent and not yet back
        self._collage_workers = 0
        self._latency = RunningQuantile(rules.quantile, rules.deadline, rules.shortest, rules.longest, rules.stretch)
        self._collage_time = RunningQuantile(0.5, 0.0, lowest=0.0, half_life=32.0, every=8)  # of the last few
        self._collage_late = RunningQuantile(rules.quantile, 0.0, lowest=0.0)
        self._audits = 0.0
        self.accept = 1.0 if rules.accept is None else rules.accept
        self._reserve = 0.0  # tokens that a collage has to leave for replicas
        self._actions: list[Action] = []
        self._economise()

    @property
    def open_requests(self) -> int:
        """How many requests have not ended."""
        return len(self._requests)

    @property
    def deadline(self) -> float:
        """Seconds after its arrival at which a request becomes a straggler, as things are."""
        return self._latency.value if self.rules.tracked else self.rules.deadline

    def handle(self, events: Sequence[Event]) -> Sequence[Action]:
        """Take a batch of events and return what to do, in order.

        Within a batch s-cnn answers come first, so that an exact answer in hand beats a coded one or a deadline; then
        collages, so that a coded answer in hand beats a replica.
        """
        self._actions = []
        for event in sorted(events, key=_turn) if len(events) > 1 else events:
            match event:
                case Arrived():
                    self._arrived(event)
                case Answered():
                    self._answered(event)
                case Failed():
                    self._failed(event)
                case Decoded(at, group, confidences):
                    self._collage_back(at, group, confidences)
                case CollageFailed(at, group, sent):
                    if not sent:
                        self.budget.give_back()
                    self._collage_back(at, group, {})
                case Gone(at, request):
                    if gone := self._requests.get(request):
                        self._end(gone, at)
                case CollageWorkers():
                    self._collage_workers_changed(event)
                case Due(at, timer, id):
                    self._due(at, timer, id)
        return self._actions

    # Events

    def _arrived(self, event: Arrived) -> None:
        request = self._requests[event.request] = _Request(
            event.request, event.at, event.at + self.deadline, event.expires
        )
        self.budget.earn()
        self._send(request)
        self._actions.append(SetTimer(event.expires, Timer.EXPIRY, request.id))
        if self.rules.collage or self.rules.replica:
            self._actions.append(SetTimer(request.deadline, Timer.DEADLINE, request.id))
        if self.rules.collage and self._collage_workers:
            group, request.cell = self.groups.join(request.id, event.at)
            request.group = group
            if group.full:
                self._close(group, event.at)
            elif len(group.members) == 1:
                self._actions.append(SetTimer(event.at + self._group_wait, Timer.CLOSE, group.id))

    def _answered(self, event: Answered) -> None:
        request = self._requests.get(event.request)
        if request and event.attempt in request.outstanding:
            request.outstanding.discard(event.attempt)
            if event.attempt == PRIMARY:
                self._latency.finished(event.at - request.arrived)
            self._actions.append(Answer(request.id, event.attempt))
            self._end(request, event.at)

    def _failed(self, event: Failed) -> None:
        if not event.sent and event.attempt != PRIMARY and self.rules.replica:
            self.budget.give_back()
        request = self._requests.get(event.request)
        if not request or event.attempt not in request.outstanding:
            return
        request.outstanding.discard(event.attempt)
        if self.rules.replica or self.rules.collage:
            if not request.straggles:
                self._straggle(request, event.at)
            elif not request.outstanding:
                self._rescue(request, event.at)
        if not self.rules.replica and event.unreachable and request.sent < 2 and self._hopeless(request):
            self._send(request)
        self._give_up_if_hopeless(request, event.at)

    def _collage_back(self, at: float, id: int, confidences: Mapping[int, float]) -> None:
        flight = self._flights.get(id)
        if not flight or flight.confidences is not None:
            return
        flight.confidences = confidences
        self._in_flight -= 1
        if confidences:
            self._collage_time.finished(at - flight.sent_at)
            self._collage_late.finished(at - flight.sent_at)
        for request in [self._requests[member] for member in flight.live.values()]:
            if request.straggles:
                self._rescue(request, at)
                self._give_up_if_hopeless(request, at)
            elif self.rules.early and self._sure(request):
                self._answer_coded(request, at)
        overdue = self.groups.open
        if overdue and at >= overdue.opened_at + self._group_wait:
            self._close_early(overdue, at)

    def _collage_workers_changed(self, event: CollageWorkers) -> None:
        self._collage_workers = event.workers
        if self.rules.accept is None:
            self.accept = event.accept
        if event.cells != self.groups.cells:
            if self.groups.open:
                for cell, member in list(self.groups.open.members.items()):
                    self._requests[member].group = None
                    self.groups.leave(self.groups.open, cell)
            self.groups.cells = event.cells
            self._economise()

    def _due(self, at: float, timer: Timer, id: int) -> None:
        if timer is Timer.CLOSE:
            if self.groups.open and self.groups.open.id == id:
                self._close_early(self.groups.open, at)
            return
        request = self._requests.get(id)
        if not request:
            return
        if timer is Timer.DEADLINE:
            if not request.straggles:
                self._straggle(request, at)
        elif timer is Timer.LATE:
            if request.straggles:
                self._rescue(request, at)
            elif self._collage_pending(request):
                self._straggle(request, at)
        elif self._confidence(request) is not None:
            self._answer_coded(request, at)
        elif timer is Timer.EXPIRY:
            self._actions.append(Fail(id, expired=True))
            self._end(request, at)

    # Decisions

    def _straggle(self, request: _Request, at: float) -> None:
        """The deadline has passed, or the worker has failed: take what the code has, else replicate."""
        request.straggles = True
        self._actions.append(Straggles(request.id))
        if request.group and not request.group.closed:
            self._close_early(request.group, at)
        self._rescue(request, at)

    def _rescue(self, request: _Request, at: float) -> None:
        """Answer a straggler from the code if that is sure, else see to it that a replica is on its way."""
        unsure_from = request.arrived + self.rules.patience * (request.deadline - request.arrived)
        coded = self._confidence(request) is not None
        if coded and (self._sure(request) or at >= unsure_from):
            self._answer_coded(request, at)
            return
        if coded and unsure_from < request.expires:
            self._actions.append(SetTimer(unsure_from, Timer.UNSURE, request.id))
        too_late = coded and at + self._latency.median > unsure_from  # a replica could not be back before that
        nothing_left = not request.outstanding
        flight = self._flight(request) if self.rules.thrifty and self._collage_pending(request) else None
        # It is no help if a replica would be sooner, as both usually are.
        slow = flight is not None and flight.sent_at + self._collage_time.value > at + self._latency.median
        late = flight.sent_at + self._collage_late_after if flight else at
        if at < late and not slow and not nothing_left:
            self._actions.append(SetTimer(late, Timer.LATE, request.id))
            return
        wanted = nothing_left or (request.sent == 1 and not too_late)
        may = self.rules.replica and request.sent < self.rules.attempts
        if wanted and may and self.budget.spend(force=nothing_left):
            self._send(request)
            if slow and request.sent < self.rules.attempts and self.budget.spend():
                self._send(request)  # in place of the collage

    def _give_up_if_hopeless(self, request: _Request, at: float) -> None:
        """Fail a request that nothing can answer any more; an unsure coded answer is better than none."""
        if not self._hopeless(request):
            return
        if self._confidence(request) is not None:
            self._answer_coded(request, at)
        else:
            self._actions.append(Fail(request.id, expired=False))
            self._end(request, at)

    def _hopeless(self, request: _Request) -> bool:
        """Whether a request waits for an answer, and nothing that could give one is under way."""
        return request.id in self._requests and not request.outstanding and not self._collage_pending(request)

    def _flight(self, request: _Request) -> _Flight | None:
        return self._flights.get(request.group.id) if request.group else None

    def _confidence(self, request: _Request) -> float | None:
        flight = self._flight(request)
        return flight.confidences.get(request.cell) if flight and flight.confidences is not None else None

    def _sure(self, request: _Request) -> bool:
        confidence = self._confidence(request)
        return confidence is not None and confidence >= self.accept

    def _collage_pending(self, request: _Request) -> bool:
        flight = self._flight(request)
        return flight is not None and flight.confidences is None

    @property
    def _collage_late_after(self) -> float:
        """Seconds after which a collage is late: a quantile of what they take, as of first copies.

        At most two medians: those of a frozen worker are never seen to end, and a quantile of what is always cut off
        knows no bound.
        """
        return min(self._collage_late.value, 2 * self._collage_late.median)

    @property
    def _group_wait(self) -> float:
        """A group must close early enough that its collage can be back by the deadline of its first member."""
        return max(0.0, min(self.rules.group_wait, self.deadline - self._collage_time.value))

    # Means

    def _send(self, request: _Request) -> None:
        attempt = request.sent
        request.sent += 1
        request.outstanding.add(attempt)
        self._actions.append(Send(request.id, attempt))

    def _close_early(self, group: Group, at: float) -> None:
        """Close a group that is not full, if it is worth a collage, at least half full, and can have one at once."""
        worker_idle = self._in_flight < self._collage_workers
        if 2 * len(group.members) >= group.cells and worker_idle and self.budget.allows(self._reserve):
            self._close(group, at)

    def _close(self, group: Group, at: float) -> None:
        self.groups.close(group)
        if not self.budget.spend(leaving=self._reserve):
            return  # the group stays without a collage; its stragglers are replicated
        self._flights[group.id] = _Flight(at, dict(group.members))
        self._in_flight += 1
        self._actions.append(SendCollage(group.id, dict(group.members)))
        if self.rules.thrifty and self._collage_late.median:  # or nothing is known of those that come back
            late = at + self._collage_late_after
            members = (self._requests[member] for member in group.members.values())
            self._actions.extend(SetTimer(late, Timer.LATE, member.id) for member in members if late < member.deadline)

    def _economise(self) -> None:
        """Where the budget is too small for a collage of every group, replicas come first, of those that it can pay.

        A collage costs a token whether it is needed or not, a replica is for stragglers only. The deadline is then the
        quantile beyond which only so many are (Finagle's: with N % extra load, send at percentile 100 - N).
        """
        scarce = self.rules.thrifty and self.budget.scarce(self.groups.cells)
        self._reserve = self.budget.reserve if scarce else 0.0
        self._latency.share, self._latency.stretch = self.rules.quantile, self.rules.stretch
        if scarce and self.rules.quantile < 1 - self.budget.affordable < 1:
            self._latency.share, self._latency.stretch = 1 - self.budget.affordable, math.inf

    def _answer_coded(self, request: _Request, at: float) -> None:
        assert request.group is not None  # noqa: S101 - only members of a group have a confidence
        self._actions.append(AnswerCoded(request.id, request.group.id, request.cell))
        self._audits += self.rules.audit
        if self._audits >= 1 and PRIMARY in request.outstanding:
            self._audits -= 1
            request.outstanding.discard(PRIMARY)
            self._latency.cut_off(at - request.arrived)
            self._actions.append(Audit(request.id))
        self._end(request, at)

    def _end(self, request: _Request, at: float) -> None:
        """Forget a request; cancel what still runs for it, and its collage if it was the last to need it."""
        del self._requests[request.id]
        if PRIMARY in request.outstanding:
            self._latency.cut_off(at - request.arrived)
        self._actions.extend(Cancel(request.id, attempt) for attempt in sorted(request.outstanding))
        group = request.group
        if group is None:
            return
        if not group.closed:
            self.groups.leave(group, request.cell)
        elif flight := self._flights.get(group.id):
            del flight.live[request.cell]
            if not flight.live:
                del self._flights[group.id]
                if flight.confidences is None:
                    self._in_flight -= 1
                    self._collage_time.cut_off(at - flight.sent_at)
                    self._collage_late.cut_off(at - flight.sent_at)
                    self._actions.append(CancelCollage(group.id))
