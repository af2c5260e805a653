"""What to do about stragglers: a pure state machine from events to actions (docs/policy.md has states and decisions).

It knows no clock, no network and no event loop, and of the code only its ``GroupShape``. Events carry the time ``at``
which they happened, in seconds on any one clock; a shell carries actions out: the dispatcher, a test, or a simulator.

The rules are those of Collage inference, section 3.2: an own answer by the deadline wins; at the deadline a coded
answer is taken, and where there is none the request is replicated. Ours are added: a coded answer of low confidence
waits for the replica, redundant executions obey one budget, failures are stragglers at once, and losers are cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from encoder.code import GroupShape
from frontend.policy import events as e
from frontend.policy.budget import Budget
from frontend.policy.deadline import Deadline
from frontend.policy.deferral import Deferral
from frontend.policy.forming import Forming
from frontend.policy.grids import preferred
from frontend.policy.groups import Group, Groups
from frontend.policy.rules import Rules
from frontend.policy.state import Flight, Flights, Request


def _turn(event: e.Event) -> tuple[int, float]:
    """Its place in a batch."""
    helps = isinstance(event, e.Decoded) or (isinstance(event, e.Returned) and event.ok)
    return 0 if isinstance(event, e.Answered) else 1 if helps else 2, event.at


_SMOOTHING = 0.01  # the weight of the latest number of requests under way


class Policy:
    """Turns events into actions. Every request ends once: in Answer, AnswerCoded or Fail, or because it is Gone."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.groups = Groups()
        self.budget = Budget(rules.extra_load)
        self._requests: dict[int, Request] = {}
        self._actions: list[e.Action] = []
        self._flights = Flights(rules, self._requests)
        self._deadline = Deadline(rules)
        self._deferral = Deferral(rules.defer, self.budget, self._deadline.latency)
        self._forming = Forming(rules, self.groups, self._flights, self._deadline, self._deferral, self._actions)
        self._audits = 0.0
        self._under_way = 0.0  # requests, of late

    @property
    def open_requests(self) -> int:
        """How many requests have not ended."""
        return len(self._requests)

    def prefer(self, offers: Mapping[GroupShape, int]) -> GroupShape:
        """The best shape of groups, of those that redundant workers could run, so many of each at once."""
        return preferred(offers, self.groups.shape, self.budget, self._under_way)

    @property
    def deadline(self) -> float:
        """Seconds after its arrival at which a request becomes a straggler, as things are."""
        return self._deadline.value

    def handle(self, events: Sequence[e.Event]) -> Sequence[e.Action]:
        """Take a batch of events and return what to do, in order.

        Within a batch own answers come first, so that an exact answer in hand beats a coded one or a deadline; then
        what the code gives, so that a coded answer in hand beats a replica.
        """
        for event in sorted(events, key=_turn) if len(events) > 1 else events:
            match event:  # the usual ones first
                case e.Arrived():
                    self._arrived(event)
                case e.Answered():
                    self._answered(event)
                case e.Due(at, timer, id):
                    self._due(at, timer, id)
                case e.Failed():
                    self._failed(event)
                case e.Returned():
                    self._returned(event)
                case e.Decoded(at, group, confidences):
                    if (flight := self._flights.get(group)) and flight.confidences is None:
                        self._decoded(flight, confidences, at)
                case e.Gone(at, request):
                    if gone := self._requests.get(request):
                        self._end(gone, at)
                case e.CodedWorkers():
                    self._coded_workers_changed(event)
                case e.Audited(_, confidence, agrees):
                    self._flights.accuracy.audited(confidence, agrees=agrees)
        actions = self._actions.copy()
        self._actions.clear()
        return actions

    # Events

    def _arrived(self, event: e.Arrived) -> None:
        deadline = event.at + self._deadline.value
        request = self._requests[event.request] = Request(event.request, event.at, deadline, event.expires)
        self._under_way += _SMOOTHING * (len(self._requests) - self._under_way)
        self._deferral.earn(event.at)
        self._flights.accuracy.earn()
        self._send(request)
        self._actions.append(e.SetTimer(event.expires, e.Timer.EXPIRY, request.id))
        if self.rules.coded or self.rules.replica:
            self._actions.append(e.SetTimer(request.deadline, e.Timer.DEADLINE, request.id))
        self._forming.arrived(request, event.at)

    def _answered(self, event: e.Answered) -> None:
        request = self._requests.get(event.request)
        if request and event.attempt in request.outstanding:
            request.outstanding.discard(event.attempt)
            if event.attempt == e.PRIMARY:
                self._deadline.finished(event.at - request.arrived)
                self._deferral.update(event.at, self._flights.times.usual)
            self._actions.append(e.Answer(request.id, event.attempt))
            if flight := self._flights.of(request):
                flight.progress.answered(request.place)
            self._end(request, event.at)

    def _failed(self, event: e.Failed) -> None:
        if not event.sent and event.attempt != e.PRIMARY and self.rules.replica:
            self.budget.give_back()
        request = self._requests.get(event.request)
        if not request or event.attempt not in request.outstanding:
            return
        request.outstanding.discard(event.attempt)
        if self.rules.replica or self.rules.coded:
            if not request.straggles:
                self._straggle(request, event.at)
            elif not request.outstanding:
                self._rescue(request, event.at)
        if not self.rules.replica and event.unreachable and request.sent < 2 and self._hopeless(request):
            self._send(request)
        self._give_up_if_hopeless(request, event.at)
        if request.id in self._requests and not request.outstanding:
            self._look_after_siblings(request, event.at)

    def _returned(self, event: e.Returned) -> None:
        if not event.sent:
            self.budget.give_back()
        flight = self._flights.get(event.group)
        if not flight or not flight.running:
            return
        decodable = flight.progress.returned(event.ok)
        if event.ok:
            self._flights.times.finished(event.at - flight.sent_at)
        if not flight.progress.out:
            self._flights.stopped(flight)
        if not flight.progress.out + flight.progress.back:
            self._decoded(flight, {}, event.at)
        elif not decodable:  # else e.Decoded follows
            if not event.ok:
                self._look_after(flight, event.at)
            self._worker_idle(event.at)

    def _decoded(self, flight: Flight, confidences: Mapping[int, float], at: float) -> None:
        flight.confidences = confidences
        if flight.running:
            self._cancel_coded(flight, at)
        self._look_after(flight, at)
        self._worker_idle(at)

    def _coded_workers_changed(self, event: e.CodedWorkers) -> None:
        if self.rules.accept is None:
            self._flights.accept = event.accept
        self._flights.accuracy.use(event.errors)
        self._forming.workers_changed(event.workers, event.shape, event.at)

    def _due(self, at: float, timer: e.Timer, id: int) -> None:
        if timer is e.Timer.CLOSE:
            if (group := self.groups.open) and group.id == id:
                self._forming.due(group, at)
                self._look_into(group, at)
            return
        request = self._requests.get(id)
        if not request:
            return
        if timer is e.Timer.DEADLINE:
            if not request.straggles:
                self._straggle(request, at)
        elif timer is e.Timer.LATE:
            if request.straggles:
                self._rescue(request, at)
            elif (flight := self._flights.of(request)) and flight.running:
                self._straggle(request, at)
        elif timer is e.Timer.JOIN:
            self._forming.join(request, at)
            self._look_into(request.group, at)
        elif timer is e.Timer.UNSURE:
            self._rescue(request, at)
        elif self._flights.confidence(request) is not None:
            self._answer_coded(request, at)
        else:
            self._actions.append(e.Fail(id, expired=True))
            self._end(request, at)

    # Decisions

    def _straggle(self, request: Request, at: float) -> None:
        """The deadline has passed, or the worker has failed: take what the code has, else replicate."""
        request.straggles = True
        self._actions.append(e.Straggles(request.id))
        if request.group and not request.group.closed:
            self._forming.consider(request.group, at)
        elif self._deferral.active:
            self._forming.join(request, at)
        self._rescue(request, at)

    def _rescue(self, request: Request, at: float) -> None:
        """Answer a straggler from the code, else wait for its coded answer, else replicate it."""
        if not self._take_coded(request, at) and not self._await_coded(request, at):
            self._replicate(request, at)

    def _take_coded(self, request: Request, at: float) -> bool:
        """Answer from the code if that is sure, or the request was patient, and it is paid; true if that ends it."""
        if self._flights.confidence(request) is None:
            return False
        unsure_from = request.patient_until(self.rules.patience)
        if (self._flights.sure(request) or at >= unsure_from) and self._flights.paid(request):
            self._answer_coded(request, at)
            return True
        if at < unsure_from < request.expires:
            self._actions.append(e.SetTimer(unsure_from, e.Timer.UNSURE, request.id))
        return False

    def _await_coded(self, request: Request, at: float) -> bool:
        """Leave a straggler to its coded answer for now; true if that is the best there is."""
        if not self.rules.await_coded or not request.outstanding or self._replica_is_sooner(request, at):
            return False
        late = self._flights.late_at(request)
        if late is None or at >= late:
            return False
        self._actions.append(e.SetTimer(late, e.Timer.LATE, request.id))
        return True

    def _replicate(self, request: Request, at: float) -> None:
        """Send a straggler again, if it may be; twice where a coded answer that is under way would come after that."""
        nothing_left = not request.outstanding
        coded = self._flights.paid(request)
        too_late = coded and at + self._deadline.median > request.patient_until(self.rules.patience)
        wanted = nothing_left or (request.sent == 1 and not too_late)
        if wanted and self._send_again(request, at, force=nothing_left) and self._replica_is_sooner(request, at):
            self._send_again(request, at)

    def _send_again(self, request: Request, at: float, *, force: bool = False) -> bool:
        may = self.rules.replica and request.sent < self.rules.attempts
        if may and not force and self._deferral.active:
            may = self._deferral.pays([at - request.arrived])
        if may := may and self._deferral.spend(force=force):
            self._send(request)
        return may

    def _replica_is_sooner(self, request: Request, at: float) -> bool:
        """A replica sent now would usually return before the redundant runs that are under way."""
        back_at = self._flights.back_at(request) if self.rules.await_coded else None
        return back_at is not None and back_at > at + self._deadline.median

    def _worker_idle(self, at: float) -> None:
        if group := self.groups.open:
            self._forming.worker_idle(at)
            self._look_into(group, at)

    def _look_into(self, group: Group | None, at: float) -> None:
        """A group may have been closed, or may not be worth waiting for any more."""
        if group and self._deferral.active:
            for id in list(group.members.values()):
                if (request := self._requests.get(id)) and request.straggles:
                    self._rescue(request, at)

    def _look_after(self, flight: Flight, at: float) -> None:
        """Something changed for all members of a group that have no answer."""
        for request in self._flights.members(flight):
            if request.id not in self._requests:
                continue  # ended on behalf of one before it
            if request.straggles:
                self._rescue(request, at)
                self._give_up_if_hopeless(request, at)
            elif self.rules.early and self._flights.sure(request) and self._flights.paid(request, early=True):
                self._answer_coded(request, at, early=True)

    def _look_after_siblings(self, request: Request, at: float) -> None:
        """A member will have no own answer: without it the others may not be decodable any more."""
        if (flight := self._flights.of(request)) and flight.confidences is None and flight.progress.shape.needed > 1:
            self._look_after(flight, at)

    def _give_up_if_hopeless(self, request: Request, at: float) -> None:
        """Fail a request that nothing can answer any more; an unsure coded answer is better than none."""
        if not self._hopeless(request):
            return
        if self._flights.confidence(request) is not None:
            self._answer_coded(request, at)
        else:
            self._actions.append(e.Fail(request.id, expired=False))
            self._end(request, at)

    def _hopeless(self, request: Request) -> bool:
        """Whether a request waits for an answer, and nothing that could give one is under way."""
        return request.id in self._requests and not request.outstanding and not self._flights.pending(request)

    # Means

    def _send(self, request: Request) -> None:
        attempt = request.sent
        request.sent += 1
        request.outstanding.add(attempt)
        self._actions.append(e.Send(request.id, attempt))

    def _answer_coded(self, request: Request, at: float, *, early: bool = False) -> None:
        group, confidence = request.group, self._flights.confidence(request)
        assert group is not None and confidence is not None  # noqa: S101, PT018 - a decoded member
        cost, sure = self._flights.accuracy.spend(confidence), self._flights.sure(request)
        self._actions.append(e.AnswerCoded(request.id, group.id, request.place, sure, early, cost))
        self._audits += self.rules.audit
        if self._audits >= 1 and e.PRIMARY in request.outstanding:
            self._audits -= 1
            request.outstanding.discard(e.PRIMARY)
            self._deadline.cut_off(at - request.arrived)
            self._actions.append(e.Audit(request.id))
        self._end(request, at)

    def _end(self, request: Request, at: float) -> None:
        """Forget a request; cancel what still runs for it, and its group's code if it was the last to need that."""
        del self._requests[request.id]
        if e.PRIMARY in request.outstanding:
            self._deadline.cut_off(at - request.arrived)
        for attempt in sorted(request.outstanding):
            self._actions.append(e.Cancel(request.id, attempt))
        group = request.group
        if group is None:
            return
        if not group.closed:
            self.groups.leave(group, request.place)
        elif flight := self._flights.get(group.id):
            self._flights.leave(flight, request.place)
            if not flight.live:
                if flight.running:
                    self._cancel_coded(flight, at)
            elif request.place not in flight.progress.own:
                self._look_after_siblings(request, at)

    def _cancel_coded(self, flight: Flight, at: float) -> None:
        self._flights.stopped(flight)
        self._flights.times.cut_off(at - flight.sent_at)
        self._actions.append(e.CancelCoded(flight.id))
