"""The promises of the policy, checked from the outside: the referee knows only its events and its actions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from encoder.code import GroupShape
from frontend.policy.events import (
    PRIMARY,
    Action,
    Answer,
    AnswerCoded,
    Answered,
    Arrived,
    Audit,
    Cancel,
    CancelCoded,
    CodedWorkers,
    Decoded,
    Due,
    Event,
    Fail,
    Failed,
    Gone,
    Returned,
    Send,
    SendCoded,
    SetTimer,
    Straggles,
    Timer,
)
from frontend.policy.machine import Policy
from frontend.policy.rules import Rules

End = Answer | AnswerCoded | Fail | Gone


def exact(actions: Iterable[Action | Gone]) -> list[tuple[str, Action | Gone]]:
    """Actions in a form that compares their kinds as well: as tuples Send(1, 0) == Cancel(1, 0) == Fail(1, False)."""
    return [(type(action).__name__, action) for action in actions]


@dataclass
class _Open:
    arrived: float
    expires: float
    deadline: float = math.inf
    running: set[int] = field(default_factory=set)
    sent: int = 0
    straggles: bool = False
    waits_unsure: bool = False  # a timer was set for the end of its patience
    place: tuple[int, int] | None = None  # group and place, once its code was sent


@dataclass
class _Coded:
    """A group whose code was sent, as told by events and actions."""

    members: Mapping[int, int]
    shape: GroupShape
    out: int
    back: int = 0
    own: set[int] = field(default_factory=set)


DEBT = 10.0
"""Tokens that a deferring policy may owe."""


class Referee:
    """Holds every batch of actions against the promises of the policy, from the outside."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.open: dict[int, _Open] = {}
        self.ended: set[int] = set()
        self.groups: dict[int, _Coded] = {}
        self.flying: dict[int, Mapping[int, int]] = {}  # groups of which a redundant run is neither back nor cancelled
        self.back: dict[int, Mapping[int, float]] = {}
        self.workers, self.shape = 0, GroupShape(1, 1, 1, 1)
        self.accept = 1.0
        self.coded, self.audits = 0, 0
        self.spent = 0.0  # errors to expect of coded answers that were given by choice
        self.ordinary, self.redundant = 0, 0  # redundant: by choice, not because every attempt had failed

    def check(self, batch: Sequence[Event], actions: Sequence[Action]) -> None:
        flying_before = dict(self.flying)
        answers: dict[int, dict[int, float]] = {}  # attempts that answered, and when
        done: set[tuple[int, int]] = set()
        gone: set[int] = set()
        expired: set[int] = set()
        late: set[int] = set()
        collage_late: set[int] = set()
        impatient: set[int] = set()
        now = max((event.at for event in batch), default=0.0)
        failed: set[int] = set()
        room = [(self.workers, self.shape)]
        for event in sorted(batch, key=lambda event: event.at):
            match event:
                case Arrived(at, request, expires):
                    self.ordinary += 1
                    self.open[request] = _Open(at, expires)
                case Answered(at, request, attempt) if self._runs(request, attempt):
                    done.add((request, attempt))
                    answers.setdefault(request, {})[attempt] = at
                case Failed(_, request, attempt) if self._runs(request, attempt):
                    done.add((request, attempt))
                    failed.add(request)
                case Returned(_, group, ok):
                    if (coded := self.groups.get(group)) and group in self.flying:
                        coded.out -= 1
                        coded.back += ok
                        if not coded.out:
                            del self.flying[group]
                case Decoded(_, group, confidences) if group in self.groups and group not in self.back:
                    self.back[group] = confidences
                case Gone(_, request):
                    gone.add(request)
                case CodedWorkers(_, workers, shape, accept):
                    room.append((workers, shape))
                    self.accept = accept if self.rules.accept is None else self.rules.accept
                case Due(_, Timer.EXPIRY, request):
                    expired.add(request)
                case Due(_, Timer.UNSURE, request):
                    impatient.add(request)
                case Due(_, Timer.DEADLINE, request):
                    late.add(request)
                case Due(_, Timer.LATE, request):
                    collage_late.add(request)
        self.workers, self.shape = room[-1]

        ends: dict[int, End] = {}
        cancelled: set[tuple[int, int]] = set()
        sent: set[tuple[int, int]] = set()
        for action in actions:
            match action:
                case Send(request, attempt):
                    state = self.open[request]
                    assert request not in ends, "sent after the end"
                    assert attempt == state.sent, "attempts are numbered in order"
                    sent.add((request, attempt))
                    state.sent += 1
                    assert state.sent <= (self.rules.attempts if self.rules.replica else 2)
                    if self.rules.replica and state.running - {attempt for r, attempt in done if r == request}:
                        self.redundant += 1
                    state.running.add(attempt)
                case SendCoded(group, members, shape):
                    assert group not in self.groups
                    assert len(set(members.values())) == len(members) >= 1
                    assert shape in [each for _, each in room]
                    assert max(members) < shape.members
                    if len(members) < shape.members:
                        fewest = 2 if self.rules.defer and shape.needed == 1 else shape.fewest
                        assert len(members) >= fewest, "nearly empty"
                        assert len(self.flying) < max(workers for workers, _ in room), "no idle worker"
                    for place, request in members.items():
                        assert request not in ends, "shows a request that has ended"
                        assert self.open[request].place is None, "a request is in one group only"
                        self.open[request].place = (group, place)
                    self.groups[group] = _Coded(members, shape, shape.inputs)
                    self.flying[group] = members
                    self.redundant += shape.inputs
                case Cancel(request, attempt):
                    assert attempt in self.open[request].running, "cancels only what runs"
                    assert (request, attempt) not in cancelled, "cancelled twice"
                    assert (request, attempt) not in sent or request in expired | gone | impatient, (
                        "sent only to be cancelled"
                    )
                    cancelled.add((request, attempt))
                case CancelCoded(group):
                    assert group in self.flying or group in flying_before, "cancels only what runs"
                    self.flying.pop(group, None)
                case Answer(request, attempt):
                    assert (request, attempt) in done, "answers only what has come"
                    self._end(ends, request, action)
                case AnswerCoded(request, group, place, sure, is_early):
                    assert self.open[request].place == (group, place), "its own place"
                    assert place in self.back[group], "answers only what was decoded"
                    assert sure == self._sure(request)
                    early = self.rules.early and self._sure(request)
                    assert is_early <= (early and not self.open[request].straggles)
                    assert self.open[request].straggles or request in expired or is_early, (
                        "coded answers are for stragglers"
                    )
                    self.coded += 1
                    self._end(ends, request, action)
                case Audit(request):
                    assert isinstance(ends[request], AnswerCoded)
                    self.open[request].running.remove(PRIMARY)
                    self.audits += 1
                case Fail(request, is_expired):
                    assert self._confidence(request) is None, "any prediction is better than none"
                    assert not is_expired or request in expired
                    self._end(ends, request, action)
                case Straggles(request):
                    assert request in late | failed | {
                        each for each in collage_late & self.open.keys() if self._flies(each)
                    }
                    assert not self.open[request].straggles
                    self.open[request].straggles = True
                case SetTimer(at, Timer.DEADLINE, request):
                    assert self.rules.replica or self.rules.coded
                    self.open[request].deadline = at
                case SetTimer(at, Timer.UNSURE, request):
                    assert at < self.open[request].expires, "it will not last that long"
                    self.open[request].waits_unsure = True

        for request, times in answers.items():
            end = ends[request]
            assert isinstance(end, Answer), "an s-cnn answer in hand wins"
            assert times[end.attempt] == min(times.values()), "the earlier answer wins"
        for request in (gone & self.open.keys()) - ends.keys():
            ends[request] = Gone(0, request)
        for request, attempt in done | cancelled:
            self.open[request].running.discard(attempt)
        for request, end in ends.items():
            if isinstance(end, Answer) and (its := self.open[request].place):
                self.groups[its[0]].own.add(its[1])
        for request, end in ends.items():
            assert not self.open[request].running, "a loser runs on"
            hopeless = not any(r == request for r, _ in cancelled) and not self._may_be_decoded(request, ends)
            match end:
                case AnswerCoded():
                    patient = now < self._unsure_from(request)
                    assert self._sure(request) or hopeless or request in expired or not patient, "better may come"
                    self.spent += 0.0 if hopeless or request in expired else end.cost
                case Fail(_, False):
                    assert hopeless, "gave up too early"
            del self.open[request]
            self.ended.add(request)
        assert not expired & self.open.keys(), "outlives its caller's deadline"
        unbound = self.rules.accuracy is None  # else an answer may not be paid
        earned = 2 + (self.rules.accuracy or 0.0) * self.ordinary
        assert unbound or self.spent <= earned + 1e-6, "less accurate than the budget"
        assert not unbound or not impatient & self.open.keys(), "waits although its patience is over"
        assert self.audits <= self.rules.audit * self.coded + 1e-6, "more audits than asked for"
        debt = DEBT if self.rules.defer and self.rules.extra_load else 0.0
        assert self.redundant <= 1 + debt + self.rules.extra_load * self.ordinary + 1e-6, "over budget"
        for members in self.flying.values():
            assert any(request in self.open for request in members.values()), "a collage that nobody needs"
        for request, state in self.open.items():
            assert state.running or self._may_be_decoded(request, {}), "waits for nothing"
            assert state.straggles or request not in late, "missed its deadline unnoticed"
            if unbound and (state.straggles or self.rules.early):
                assert not self._sure(request), "left a sure answer lying"
            if unbound and state.straggles and self._confidence(request) is not None:
                assert state.waits_unsure or self._unsure_from(request) >= state.expires, "forgot an unsure answer"

    def check_over(self, policy: Policy) -> None:
        """All is over: nobody waits, and the policy remembers nothing."""
        assert not self.open
        assert policy.open_requests == 0
        assert len(policy._flights) == 0
        assert policy._flights.running == 0
        assert policy.groups.open is None

    def _runs(self, request: int, attempt: int) -> bool:
        return request in self.open and attempt in self.open[request].running

    def _may_be_decoded(self, request: int, ended: Mapping[int, End]) -> bool:
        """Whether the outputs that came and those under way are enough to decode a request's answer."""
        place = self.open[request].place
        if place is None or place[0] in self.back:
            return False
        coded = self.groups[place[0]]
        under_way = {
            each for each, member in coded.members.items()
            if member not in {request, *ended} and member in self.open and self.open[member].running
        }  # fmt: skip
        outputs = coded.out + coded.back
        return outputs >= 1 and len(coded.own) + len(under_way) + outputs >= coded.shape.needed

    def _flies(self, request: int) -> bool:
        place = self.open[request].place
        return place is not None and place[0] in self.flying

    def _confidence(self, request: int) -> float | None:
        place = self.open[request].place
        return self.back.get(place[0], {}).get(place[1]) if place else None

    def _sure(self, request: int) -> bool:
        confidence = self._confidence(request)
        return confidence is not None and confidence >= self.accept

    def _unsure_from(self, request: int) -> float:
        """When its patience ends: from then on a straggler takes an unsure answer too."""
        state = self.open[request]
        return state.arrived + self.rules.patience * (state.deadline - state.arrived)

    def _end(self, ends: dict[int, End], request: int, end: End) -> None:
        assert request in self.open, "answered after it ended"
        assert request not in ends, "ended twice"
        ends[request] = end
