"""What to do about stragglers: a pure state machine from events to actions.

It knows no clock, no network and no event loop. Events carry the time ``at`` which they happened, in seconds on any one
clock; actions are carried out by a shell: the dispatcher, a test, or a simulator.

The rules are those of Collage inference, section 3.2: an s-cnn answer by the deadline wins; at the deadline a coded
answer is taken, and where there is none the request is replicated. Ours are added: a coded answer of low confidence
waits for the replica, redundant requests obey one budget, failures are stragglers at once, and losers are cancelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from frontend.groups import Group, Groups

PRIMARY = 0  # the attempt that every request starts with; higher numbers are replicas


class Arrived(NamedTuple):
    """A request was admitted; it must end by ``expires``."""

    at: float
    request: int
    expires: float


class Answered(NamedTuple):
    """An s-cnn worker answered an attempt."""

    at: float
    request: int
    attempt: int


class Failed(NamedTuple):
    """An attempt failed. ``unreachable``: it never ran, as far as anyone knows (gRPC UNAVAILABLE)."""

    at: float
    request: int
    attempt: int
    unreachable: bool = True


class Decoded(NamedTuple):
    """A collage came back: confidence by cell, no entry where it found nothing."""

    at: float
    group: int
    confidences: Mapping[int, float]


class CollageFailed(NamedTuple):
    """A collage will not come back."""

    at: float
    group: int


class Gone(NamedTuple):
    """The caller hung up."""

    at: float
    request: int


class CollageWorkers(NamedTuple):
    """How many collage workers are ready, and how many cells their collages have."""

    at: float
    workers: int
    cells: int


class Timer(Enum):
    """What a timer is for; its id names a request or, for CLOSE, a group."""

    DEADLINE = "deadline"
    EXPIRY = "expiry"
    CLOSE = "close"


class Due(NamedTuple):
    """A timer is due; ``at`` is the time it was set for."""

    at: float
    timer: Timer
    id: int


Event = Arrived | Answered | Failed | Decoded | CollageFailed | Gone | CollageWorkers | Due


class Send(NamedTuple):
    """Send a request to an s-cnn worker; not the one its other attempts are with, where there is a choice."""

    request: int
    attempt: int


class SendCollage(NamedTuple):
    """Encode these members (request by cell) and send the collage."""

    group: int
    members: Mapping[int, int]


class Cancel(NamedTuple):
    """Stop an attempt that lost."""

    request: int
    attempt: int


class CancelCollage(NamedTuple):
    """Stop a collage that nobody needs any more."""

    group: int


class Answer(NamedTuple):
    """End a request with the answer of an attempt."""

    request: int
    attempt: int


class AnswerCoded(NamedTuple):
    """End a request with the collage's prediction for its cell."""

    request: int
    group: int
    cell: int


class Fail(NamedTuple):
    """End a request without an answer: out of time, or every attempt failed."""

    request: int
    expired: bool


class SetTimer(NamedTuple):
    """Send ``Due`` at this time, unless the request has ended (or the group has closed) by then."""

    at: float
    timer: Timer
    id: int


class Straggles(NamedTuple):
    """For the record: a request has no s-cnn answer at its deadline, or its worker failed."""

    request: int


Action = Send | SendCollage | Cancel | CancelCollage | Answer | AnswerCoded | Fail | SetTimer | Straggles


@dataclass(frozen=True)
class Rules:
    """Which means a policy may use, and their limits. Times in seconds.

    ``attempts`` bounds how often one request is sent in all; ``extra_load`` is the budget of redundant requests per
    ordinary one; ``accept`` the confidence below which a coded answer is unsure; ``margin`` what is kept of the
    caller's time for the answer's way back.
    """

    collage: bool = False
    replica: bool = False
    deadline: float = 0.25
    group_wait: float = 0.05
    accept: float = 0.0
    extra_load: float = 0.25
    attempts: int = 3
    margin: float = 0.02

    @classmethod
    def named(cls, policy: str, **limits: float) -> Rules:
        """The rules of a policy by name: none, replicate (at the deadline) or collage (then a replica)."""
        means = {
            "none": {"collage": False, "replica": False},
            "replicate": {"collage": False, "replica": True},
            "collage": {"collage": True, "replica": True},
        }
        return cls(**means[policy], **limits)  # type: ignore[arg-type]


class Budget:
    """Tokens for redundant requests: each ordinary request earns ``rate`` of one, up to a burst of ``most``."""

    def __init__(self, rate: float, most: float = 10.0) -> None:
        self.rate, self.most = rate, most
        self.tokens = 1.0 if rate > 0 else 0.0

    def earn(self) -> None:
        """Count an ordinary request."""
        self.tokens = min(self.most, self.tokens + self.rate)

    @property
    def allows(self) -> bool:
        """Whether there is a token."""
        return self.tokens >= 1.0 - 1e-9

    def spend(self, *, force: bool = False) -> bool:
        """Take one token if there is one; with ``force`` go into debt rather than refuse.

        The debt is bounded as well: after an outage redundancy must be back within a few requests.
        """
        if not self.allows and not force:
            return False
        self.tokens = max(self.tokens - 1.0, -self.most)
        return True


@dataclass(slots=True)
class _Request:
    id: int
    expires: float
    group: Group | None = None
    cell: int = -1
    outstanding: set[int] = field(default_factory=set)
    sent: int = 0
    straggles: bool = False


@dataclass(slots=True)
class _Flight:
    """A group whose collage is in flight or back; ``confidences`` is None until it is back, empty if it failed."""

    live: dict[int, int]  # members without an answer yet: cell to request
    confidences: Mapping[int, float] | None = None


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
        self._actions: list[Action] = []

    @property
    def open_requests(self) -> int:
        """How many requests have not ended."""
        return len(self._requests)

    def handle(self, events: Iterable[Event]) -> Sequence[Action]:
        """Take a batch of events and return what to do, in order.

        Within a batch s-cnn answers come first, so that an exact answer in hand beats a coded one or a deadline; then
        collages, so that a coded answer in hand beats a replica.
        """
        self._actions = []
        turn = {Answered: 0, Decoded: 1}
        for event in sorted(events, key=lambda event: (turn.get(type(event), 2), event.at)):
            match event:
                case Arrived():
                    self._arrived(event)
                case Answered(_, request, attempt):
                    self._answered(request, attempt)
                case Failed():
                    self._failed(event)
                case Decoded(at, group, confidences):
                    self._collage_back(at, group, confidences)
                case CollageFailed(at, group):
                    self._collage_back(at, group, {})
                case Gone(_, request):
                    if gone := self._requests.get(request):
                        self._end(gone)
                case CollageWorkers(at, workers, cells):
                    self._collage_workers_changed(at, workers, cells)
                case Due(at, timer, id):
                    self._due(at, timer, id)
        return self._actions

    # Events

    def _arrived(self, event: Arrived) -> None:
        request = self._requests[event.request] = _Request(event.request, event.expires)
        self.budget.earn()
        self._send(request)
        self._actions.append(SetTimer(event.expires - self.rules.margin, Timer.EXPIRY, request.id))
        if self.rules.collage or self.rules.replica:
            self._actions.append(SetTimer(event.at + self.rules.deadline, Timer.DEADLINE, request.id))
        if self.rules.collage and self._collage_workers:
            group, request.cell = self.groups.join(request.id, event.at)
            request.group = group
            if group.full:
                self._close(group)
            elif len(group.members) == 1:
                self._actions.append(SetTimer(event.at + self.rules.group_wait, Timer.CLOSE, group.id))

    def _answered(self, id: int, attempt: int) -> None:
        request = self._requests.get(id)
        if request and attempt in request.outstanding:
            request.outstanding.discard(attempt)
            self._actions.append(Answer(id, attempt))
            self._end(request)

    def _failed(self, event: Failed) -> None:
        request = self._requests.get(event.request)
        if not request or event.attempt not in request.outstanding:
            return
        request.outstanding.discard(event.attempt)
        if self.rules.replica or self.rules.collage:
            if not request.straggles:
                self._straggle(request, event.at)
            elif not request.outstanding:
                self._rescue(request)
        elif event.unreachable and request.sent < 2:
            self._send(request)
        self._give_up_if_hopeless(request)

    def _collage_back(self, at: float, id: int, confidences: Mapping[int, float]) -> None:
        flight = self._flights.get(id)
        if not flight or flight.confidences is not None:
            return
        flight.confidences = confidences
        self._in_flight -= 1
        for request in [self._requests[member] for member in flight.live.values()]:
            if request.straggles:
                self._rescue(request)
                self._give_up_if_hopeless(request)
        overdue = self.groups.open
        if overdue and at >= overdue.opened_at + self.rules.group_wait:
            self._close_early(overdue)

    def _collage_workers_changed(self, at: float, workers: int, cells: int) -> None:
        self._collage_workers = workers
        if cells != self.groups.cells:
            if self.groups.open:
                for cell, member in list(self.groups.open.members.items()):
                    self._requests[member].group = None
                    self.groups.leave(self.groups.open, cell)
            self.groups.cells = cells

    def _due(self, at: float, timer: Timer, id: int) -> None:
        if timer is Timer.CLOSE:
            if self.groups.open and self.groups.open.id == id:
                self._close_early(self.groups.open)
            return
        request = self._requests.get(id)
        if not request:
            return
        if timer is Timer.EXPIRY:
            if self._confidence(request) is not None:
                self._answer_coded(request)
            else:
                self._actions.append(Fail(id, expired=True))
                self._end(request)
        elif not request.straggles:
            self._straggle(request, at)

    # Decisions

    def _straggle(self, request: _Request, at: float) -> None:
        """The deadline has passed, or the worker has failed: take what the code has, else replicate."""
        request.straggles = True
        self._actions.append(Straggles(request.id))
        if request.group and not request.group.closed:
            self._close_early(request.group)
        self._rescue(request)

    def _rescue(self, request: _Request) -> None:
        """Answer a straggler from the code if that is sure, else see to it that a replica is on its way."""
        confidence = self._confidence(request)
        if confidence is not None and confidence >= self.rules.accept:
            self._answer_coded(request)
        elif self.rules.replica and request.sent < self.rules.attempts:
            nothing_left = not request.outstanding
            if (nothing_left or request.sent == 1) and self.budget.spend(force=nothing_left):
                self._send(request)

    def _give_up_if_hopeless(self, request: _Request) -> None:
        """Fail a request that nothing can answer any more; an unsure coded answer is better than none."""
        if request.id not in self._requests or request.outstanding or self._collage_pending(request):
            return
        if self._confidence(request) is not None:
            self._answer_coded(request)
        else:
            self._actions.append(Fail(request.id, expired=False))
            self._end(request)

    def _confidence(self, request: _Request) -> float | None:
        flight = self._flights.get(request.group.id) if request.group else None
        return flight.confidences.get(request.cell) if flight and flight.confidences is not None else None

    def _collage_pending(self, request: _Request) -> bool:
        flight = self._flights.get(request.group.id) if request.group else None
        return flight is not None and flight.confidences is None

    # Means

    def _send(self, request: _Request) -> None:
        attempt = request.sent
        request.sent += 1
        request.outstanding.add(attempt)
        self._actions.append(Send(request.id, attempt))

    def _close_early(self, group: Group) -> None:
        """Close a group that is not full, if it is worth a collage, at least half full, and can have one at once."""
        worker_idle = self._in_flight < self._collage_workers
        if 2 * len(group.members) >= group.cells and worker_idle and self.budget.allows:
            self._close(group)

    def _close(self, group: Group) -> None:
        self.groups.close(group)
        if not self._collage_workers or not self.budget.spend():
            return  # the group stays without a collage; its stragglers are replicated
        self._flights[group.id] = _Flight(dict(group.members))
        self._in_flight += 1
        self._actions.append(SendCollage(group.id, dict(group.members)))

    def _answer_coded(self, request: _Request) -> None:
        assert request.group is not None  # noqa: S101 - only members of a group have a confidence
        self._actions.append(AnswerCoded(request.id, request.group.id, request.cell))
        self._end(request)

    def _end(self, request: _Request) -> None:
        """Forget a request; cancel what still runs for it, and its collage if it was the last to need it."""
        del self._requests[request.id]
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
                    self._actions.append(CancelCollage(group.id))
