"""A discrete-event simulator of a cluster, around the frontend's own Policy, Groups and Balancer.

It runs in virtual time, without asyncio and processes. Simulated workers take time (by the worker's own draws), queue,
fail and acknowledge. The code that runs in production decides what to do about it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np

from bench.measured import COLLAGE, NOBODY, REPLICA, S_CNN, Run
from bench.offer import Models, Outage, Regime, Seconds, TypicalModels
from bench.simulator.stations import (
    Agenda,
    CallContext,
    CodedGroup,
    Setup,
    SimulatedFrontend,
    StationCall,
    Stations,
)
from frontend.policy import events as e
from frontend.policy.balance import Balancer
from frontend.policy.ejection import Ejection
from frontend.policy.rules import Rules
from worker.slowdown import Slowdown

__all__ = ["Setup", "Simulation"]

UNENDED = -1.0


class Simulation:
    """One run: create it, then call ``closed`` or ``open`` once.

    Deterministic for a seed. All policies meet the same draws, images and arrivals, and the same outages as counted
    from the first measured request on. The clock, which starts with the warm-up, decides who is slow in a mixture.
    """

    def __init__(
        self,
        setup: Setup,
        rules: Rules,
        regime: Regime,
        seed: int = 0,
        model: Models | None = None,
        ejection: Ejection | None = None,
    ) -> None:
        """``model`` and ``ejection`` as by default if not given; without ``rules.eject`` nobody is ejected."""
        self.setup, self.rules, self.regime, self.seed = setup, rules, regime, seed
        self.model: Models = model or TypicalModels()
        self.collages = self.replicas = 0
        self._agenda = Agenda()
        self._s_cnn = setup.workers if setup.equal_resources else setup.n
        self._stations = Stations(
            self._agenda,
            self._slowdown,
            self._answered,
            self._failed,
            setup.queue_size,
            setup.inference_s,
            setup.overhead_s,
            setup.probe_s,
        )
        ejecting = (ejection or Ejection()) if rules.eject else None
        self.frontends = [
            SimulatedFrontend(rules, ejecting, seed + number, setup, self._stations)
            for number in range(setup.frontends)
        ]
        self._closed = False
        self._unanswered = 0  # of the closed group
        self._warm_up_busy_s = 0.0
        self._began = 0.0  # when the first measured request arrived
        self._time_to_answer = rules.time_to_answer(setup.timeout_s)
        at_once = (setup.workers - self._s_cnn) // setup.shape.inputs
        for frontend in self.frontends:
            for index in range(setup.workers):
                self._balancer(frontend, index).set_ready(str(index), True)
            if rules.coded and at_once:
                model = self.model
                frontend.policy.handle([e.CodedWorkers(0.0, at_once, setup.shape, model.accept, model.errors)])
        self._outages = regime.outages(setup.workers, seed)

    def closed(self, groups: int, warm_up: int = 20) -> Run:
        """Groups of ``n`` one after another, each sent at once; the first ``warm_up`` groups do not count."""
        self._prepare(groups, warm_up)
        self._closed = True
        self._send_group(0)
        return self._run()

    def open(self, times: Seconds, warm_up: int = 20) -> Run:
        """Requests at these times (seconds, rising); ``n`` in a row are a group, the first ``warm_up`` do not count."""
        self._prepare(len(times) // self.setup.n - warm_up, warm_up)
        self._arrivals = enumerate(times[: self._left].tolist())
        self._next_arrival()
        return self._run()

    def _prepare(self, groups: int, warm_up: int) -> None:
        if groups < 1:
            raise ValueError("there is nothing to measure after the warm-up")
        self._measured_from = warm_up * self.setup.n
        self._left = (warm_up + groups) * self.setup.n
        self._images = self.model.draw(self._left, self.seed)
        self._confidence = [None if math.isnan(value) else value for value in self._images.confidence.tolist()]
        self._started = array("d", [0.0]) * self._left
        self._latency = array("d", [UNENDED]) * self._left
        self._source = bytearray(self._left)

    def _run(self) -> Run:
        self._agenda.run(lambda: self._left > 0)
        measured = slice(self._measured_from, None)
        source = np.frombuffer(self._source, np.uint8)
        right = np.where(source == COLLAGE, self._images.coded_right, self._images.s_cnn_right) & (source != NOBODY)
        return Run(
            latency_s=np.array(self._latency)[measured],
            source=source[measured],
            unsure=(self._images.confidence < self.model.accept)[measured],
            right=right[measured],
            available=self._images.s_cnn_right[measured],
            members=self.setup.n,
            collages=self.collages,
            replicas=self.replicas,
            busy_s=self._stations.busy_s - self._warm_up_busy_s,
            ejections=sum(frontend.ejections for frontend in self.frontends),
        )

    # Requests

    def _send_group(self, group: int) -> None:
        first = group * self.setup.n
        if first < len(self._latency):
            self._unanswered = self.setup.n
            self._arrive(group, range(first, first + self.setup.n))

    def _next_arrival(self) -> None:
        if following := next(self._arrivals, None):
            self._agenda.at(following[1], self._arrival, following[0])

    def _arrival(self, request: int) -> None:
        self._arrive(request, (request,))
        self._next_arrival()

    def _arrive(self, turn: int, requests: Sequence[int]) -> None:
        if self._measured_from in requests:
            self._warm_up_busy_s, self._began = self._stations.busy_s, self._agenda.now
            self._next_outage()
        expires = self._agenda.now + self._time_to_answer
        for request in requests:
            self._started[request] = self._agenda.now
        frontend = self.frontends[turn % len(self.frontends)]
        self._feed(frontend, *(e.Arrived(self._agenda.now, request, expires) for request in requests))

    def _feed(self, frontend: SimulatedFrontend, *events: e.Event) -> None:
        """Hand events to the policy and do what it says, as the dispatcher does."""
        for action in frontend.policy.handle(events):
            match action:
                case e.Send(request, attempt):
                    self._send(frontend, request, attempt)
                case e.SetTimer(at, timer, id):
                    self._agenda.at(at, self._due, (frontend, at, timer, id))
                case e.Answer(request, attempt):
                    self._end(frontend, request, S_CNN if attempt == e.PRIMARY else REPLICA)
                    self._own_answer(frontend, request)
                case e.AnswerCoded(request):
                    self._end(frontend, request, COLLAGE)
                case e.Fail(request):
                    self._end(frontend, request, NOBODY)
                case e.Cancel(request, attempt):
                    self._cancel(frontend, (request, attempt))
                case e.CancelCoded(group):
                    for row in range(self.setup.shape.inputs):
                        self._cancel(frontend, (group, row, 0))
                    frontend.groups.pop(group, None)
                case e.SendCoded(group, members, shape):
                    self._send_coded(frontend, group, CodedGroup(members, shape))
                case e.Audit() | e.Straggles():
                    pass

    def _due(self, timer: tuple[SimulatedFrontend, float, e.Timer, int]) -> None:
        frontend, at, kind, id = timer
        if kind is e.Timer.CLOSE or self._latency[id] == UNENDED:
            self._feed(frontend, e.Due(at, kind, id))

    def _end(self, frontend: SimulatedFrontend, request: int, source: int) -> None:
        self._latency[request] = self._agenda.now - self._started[request] + self.setup.caller_s
        self._source[request] = source
        frontend.tried.pop(request, None)
        self._left -= 1
        self._unanswered -= 1
        if self._closed and not self._unanswered:
            self._agenda.at(self._agenda.now + self.setup.caller_s, self._send_group, request // self.setup.n + 1)

    def _name(self, request: int) -> str:
        """The request's id, as the load generator would give it; ids of the warm-up begin with ``w``."""
        group, member = divmod(request - self._measured_from, self.setup.n)
        return f"g{group:04d}-{member}" if group >= 0 else f"w{-group:04d}-{member}"

    # Calls

    def _send(self, frontend: SimulatedFrontend, request: int, attempt: int) -> None:
        now, balancer = self._agenda.now, frontend.s_cnn
        tried = frontend.tried.setdefault(request, [])
        worker = balancer.pick(now, tried)
        if worker is None and tried:
            running = [name for number, name in enumerate(tried) if (request, number) in frontend.calls]
            worker = balancer.pick(now, running)
        if worker is None:
            tried.append("")
            self._agenda.at(now, self._no_worker, (frontend, e.Failed(now, request, attempt, sent=False)))
            return
        if attempt != e.PRIMARY and request >= self._measured_from:
            self.replicas += 1
        tried.append(worker)
        key = request, attempt
        call = frontend.calls[key] = StationCall(CallContext(frontend, balancer, key), self._name(request), attempt)
        balancer.started(worker)
        self._stations.send(call, worker)

    def _no_worker(self, failure: tuple[SimulatedFrontend, e.Event]) -> None:
        self._feed(*failure)

    def _send_coded(self, frontend: SimulatedFrontend, group: int, coded: CodedGroup) -> None:
        frontend.groups[group] = coded
        shape, first = coded.progress.shape, coded.members[min(coded.members)]
        if shape.needed > 1:
            frontend.places.update((request, (group, place)) for place, request in coded.members.items())
        for row in range(shape.inputs):
            self.collages += first >= self._measured_from
            context = CallContext(frontend, frontend.coded[row], (group, row, 0), coded)
            call = frontend.calls[context.key] = StationCall(context, f"collage:{self._name(first)}", row)
            self._agenda.at(self._agenda.now + self.setup.encode_s, self._encoded, call)

    def _encoded(self, call: StationCall) -> None:
        if call.over:
            return
        balancer = call.context.balancer
        worker = balancer.pick(self._agenda.now)
        if worker is None:
            self._returned(call.context, call.context.group, ok=False, sent=False)
        else:
            balancer.started(worker)
            self._stations.send(call, worker)

    def _own_answer(self, frontend: SimulatedFrontend, request: int) -> None:
        """An own answer may make what its group lacks decodable."""
        if not (place := frontend.places.pop(request, None)):
            return
        coded = frontend.groups.get(place[0])
        if coded and coded.progress.answered(place[1]):
            self._agenda.at(self._agenda.now, self._decoded, (frontend, place[0], coded))

    def _returned(self, context: CallContext, coded: CodedGroup, *, ok: bool, sent: bool = True) -> None:
        """A redundant run is over."""
        now, group = self._agenda.now, context.key[0]
        events: list[e.Event] = [e.Returned(now, group, ok, sent)]
        if coded.progress.returned(ok):
            events.append(self._decoding(context.frontend, group, coded))
        elif not coded.progress.out + coded.progress.back:
            context.frontend.groups.pop(group, None)
        self._report(context, *events)

    def _decoded(self, group: tuple[SimulatedFrontend, int, CodedGroup]) -> None:
        self._feed(group[0], self._decoding(*group))

    def _decoding(self, frontend: SimulatedFrontend, group: int, coded: CodedGroup) -> e.Decoded:
        frontend.groups.pop(group, None)
        seen = {place: self._confidence[member] for place, member in coded.lacking.items()}
        found = {place: confidence for place, confidence in seen.items() if confidence is not None}
        return e.Decoded(self._agenda.now, group, found)

    def _slowdown(self, worker: str) -> Slowdown:
        index = int(worker)
        scale = 1.0 if index < self._s_cnn else self.model.factor
        return self.regime.slowdown(index, self.setup.workers, self.seed, scale)

    def _answered(self, call: StationCall) -> None:
        now, context = self._agenda.now, call.context
        context.balancer.released(call.worker)
        context.balancer.succeeded(call.worker, now, now - call.sent_at)
        if context.group is None:
            self._report(context, e.Answered(now, *context.key))
        else:
            self._returned(context, context.group, ok=True)

    def _failed(self, failure: tuple[StationCall, bool]) -> None:
        (call, unreachable), now = failure, self._agenda.now
        context = call.context
        context.balancer.released(call.worker)
        if unreachable:  # else it was full, which is no fault
            context.balancer.failed(call.worker, now)
        if context.group is None:
            request, attempt = context.key
            self._report(context, e.Failed(now, request, attempt, unreachable))
        else:
            self._returned(context, context.group, ok=False)

    def _report(self, context: CallContext, *events: e.Event) -> None:
        """A call is over."""
        del context.frontend.calls[context.key]
        self._feed(context.frontend, *events)

    def _cancel(self, frontend: SimulatedFrontend, key: tuple[int, ...]) -> None:
        call = frontend.calls.pop(key, None)
        if call is None:
            return
        self._stations.cancel(call)
        if call.worker:
            now = self._agenda.now
            call.context.balancer.cancelled(call.worker, now, now - call.sent_at)
            known = max(now, self._stations.frozen_until(call.worker)) + self.setup.acknowledge_s
            if known > now:
                self._agenda.at(known, self._acknowledged, call)
            else:
                self._acknowledged(call)

    def _acknowledged(self, call: StationCall) -> None:
        call.context.balancer.released(call.worker)

    # Failures

    def _next_outage(self) -> None:
        if outage := next(self._outages, None):
            self._agenda.at(self._began + outage.at, self._crash, outage)

    def _crash(self, outage: Outage) -> None:
        """A worker dies: its callers notice, and nobody calls it until it is back. Or it freezes unnoticed."""
        until = self._began + outage.until
        if outage.frozen:
            self._stations.freeze(str(outage.index), until)
            self._next_outage()
            return
        self._set_ready((outage.index, False))
        self._stations.crash(str(outage.index))
        self._agenda.at(until, self._set_ready, (outage.index, True))
        self._next_outage()

    def _set_ready(self, change: tuple[int, bool]) -> None:
        index, ready = change
        for frontend in self.frontends:
            self._balancer(frontend, index).set_ready(str(index), ready)

    def _balancer(self, frontend: SimulatedFrontend, index: int) -> Balancer:
        return frontend.s_cnn if index < self._s_cnn else frontend.coded[(index - self._s_cnn) % len(frontend.coded)]
