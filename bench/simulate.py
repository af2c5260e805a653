"""A discrete-event simulator of a cluster, around the frontend's own Policy, Groups and Balancer.

Virtual time, no asyncio, no processes: what is simulated is how long workers take (the worker's own draws), queue, fail
and acknowledge. What to do about it is decided by the code that runs in production.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.figures import COLLAGE, NOBODY, REPLICA, S_CNN, Run
from bench.workload import Model, Outage, Regime, Seconds
from frontend import events as e
from frontend.balance import Balancer, Ejection
from frontend.policy import Policy, Rules
from worker.slowdown import COLLAGE_FACTOR, Slowdown

ACCEPT = 0.5  # the threshold of the simulated model
UNENDED = -1.0


@dataclass(frozen=True)
class Setup:
    """A cluster. Times in seconds.

    ``n`` s-cnn workers and ``redundant`` collage workers with n / redundant cells each; ``equal_resources`` makes
    s-cnn workers of the redundant ones. Several frontends share the workers and split the requests evenly.
    ``encode_s`` is what making a collage takes, ``inference_s`` the least that an inference takes, ``overhead_s`` what
    is lost between the end of an inference and its answer's arrival in the frontend, without holding the worker,
    ``acknowledge_s`` how long a cancelled call stays outstanding.
    """

    n: int = 9
    redundant: int = 1
    equal_resources: bool = False
    frontends: int = 1
    queue_size: int = 16
    timeout_s: float = 10.0
    encode_s: float = 0.003
    inference_s: float = 0.0
    overhead_s: float = 0.0
    acknowledge_s: float = 0.0

    @property
    def workers(self) -> int:
        """How many there are, of both kinds."""
        return self.n + self.redundant

    @property
    def cells(self) -> int:
        """N of one collage."""
        return self.n // self.redundant if self.redundant else 0


@dataclass(slots=True, eq=False)
class _Call:
    """An attempt or a collage on its way; ``key`` is (request, attempt), or (group,)."""

    frontend: _Frontend
    key: tuple[int, ...]
    name: str  # of the request
    attempt: int
    station: _Station
    sent_at: float
    members: Any = None
    started_at: float = -1.0
    ended: bool = False

    @property
    def balancer(self) -> Balancer:
        return self.frontend.s_cnn if self.members is None else self.frontend.collage


@dataclass(slots=True, eq=False)
class _Station:
    """A worker: one slot, and a queue in front."""

    name: str
    slowdown: Slowdown
    current: _Call | None = None
    queue: deque[_Call] = field(default_factory=deque)


class _Frontend:
    """What a frontend process knows."""

    def __init__(self, rules: Rules, ejection: Ejection | None, seed: int) -> None:
        self.policy = Policy(rules)
        self.s_cnn, self.collage = Balancer(ejection, seed), Balancer(ejection, seed)
        self.calls: dict[tuple[int, ...], _Call] = {}
        self.tried: dict[int, list[str]] = {}


class Simulation:
    """One run: create it, then call ``closed`` or ``open`` once.

    Deterministic for a seed. All policies meet the same draws, images and arrivals.
    """

    def __init__(
        self,
        setup: Setup,
        rules: Rules,
        regime: Regime,
        seed: int = 0,
        model: Model | None = None,
        ejection: Ejection | None = None,
    ) -> None:
        """``model`` and ``ejection`` as by default if not given; without ``rules.eject`` nobody is ejected."""
        self.setup, self.rules, self.regime, self.seed = setup, rules, regime, seed
        self.model = model or Model()
        self.now = 0.0
        self.busy_s = 0.0
        self.collages = self.replicas = 0
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._order = itertools.count()
        self._s_cnn = setup.workers if setup.equal_resources else setup.n
        ejecting = (ejection or Ejection()) if rules.eject else None
        self.frontends = [_Frontend(rules, ejecting, seed + number) for number in range(setup.frontends)]
        self._stations: dict[str, _Station] = {}  # of those that ever had a call
        self._closed = False
        self._unanswered = 0  # of the closed group
        collage_workers = setup.workers - self._s_cnn
        for frontend in self.frontends:
            for index in range(setup.workers):
                (frontend.s_cnn if index < self._s_cnn else frontend.collage).set_ready(str(index), True)
            if rules.collage and collage_workers:
                frontend.policy.handle([e.CollageWorkers(0.0, collage_workers, setup.cells, accept=ACCEPT)])
        self._outages = regime.outages(setup.workers, seed)
        self._next_outage()

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
        self._started = [0.0] * self._left
        self._latency = [UNENDED] * self._left
        self._source = bytearray(self._left)

    def _run(self) -> Run:
        heap, pop = self._heap, heapq.heappop
        while self._left:
            at, _, act, subject = pop(heap)
            if at > self.now:  # a timer may have been set for a moment ago
                self.now = at
            act(subject)
        measured = slice(self._measured_from, None)
        source = np.frombuffer(self._source, np.uint8)
        right = np.where(source == COLLAGE, self._images.coded_right, self._images.s_cnn_right) & (source != NOBODY)
        return Run(
            latency_s=np.array(self._latency)[measured],
            source=source[measured],
            unsure=(self._images.confidence < ACCEPT)[measured],
            right=right[measured],
            available=self._images.s_cnn_right[measured],
            members=self.setup.n,
            collages=self.collages,
            replicas=self.replicas,
            busy_s=self.busy_s,
        )

    def _at(self, at: float, act: Callable[[Any], None], subject: Any) -> None:
        heapq.heappush(self._heap, (at, next(self._order), act, subject))

    # Requests

    def _send_group(self, group: int) -> None:
        first = group * self.setup.n
        if first < len(self._latency):
            self._unanswered = self.setup.n
            self._arrive(group, range(first, first + self.setup.n))

    def _next_arrival(self) -> None:
        if following := next(self._arrivals, None):
            self._at(following[1], self._arrival, following[0])

    def _arrival(self, request: int) -> None:
        self._arrive(request, (request,))
        self._next_arrival()

    def _arrive(self, turn: int, requests: Iterable[int]) -> None:
        expires = self.now + self.setup.timeout_s
        for request in requests:
            self._started[request] = self.now
        frontend = self.frontends[turn % len(self.frontends)]
        self._feed(frontend, *(e.Arrived(self.now, request, expires) for request in requests))

    def _feed(self, frontend: _Frontend, *events: e.Event) -> None:
        """Hand events to the policy and do what it says, as the dispatcher does."""
        for action in frontend.policy.handle(events):
            match action:
                case e.Send(request, attempt):
                    self._send(frontend, request, attempt)
                case e.SetTimer(at, timer, id):
                    self._at(at, self._due, (frontend, at, timer, id))
                case e.Answer(request, attempt):
                    self._end(frontend, request, S_CNN if attempt == e.PRIMARY else REPLICA)
                case e.AnswerCoded(request):
                    self._end(frontend, request, COLLAGE)
                case e.Fail(request):
                    self._end(frontend, request, NOBODY)
                case e.Cancel(request, attempt):
                    self._cancel(frontend, (request, attempt))
                case e.CancelCollage(group):
                    self._cancel(frontend, (group,))
                case e.SendCollage(group, members):
                    self.collages += min(members.values()) >= self._measured_from
                    name = f"collage:{self._name(members[min(members)])}"
                    call = _Call(frontend, (group,), name, 0, _NO_STATION, self.now, members)
                    frontend.calls[group,] = call
                    self._at(self.now + self.setup.encode_s, self._encoded, call)

    def _due(self, timer: tuple[_Frontend, float, e.Timer, int]) -> None:
        frontend, at, kind, id = timer
        if kind is e.Timer.CLOSE or self._latency[id] == UNENDED:
            self._feed(frontend, e.Due(at, kind, id))

    def _end(self, frontend: _Frontend, request: int, source: int) -> None:
        self._latency[request] = self.now - self._started[request]
        self._source[request] = source
        frontend.tried.pop(request, None)
        self._left -= 1
        self._unanswered -= 1
        if self._closed and not self._unanswered:
            self._at(self.now, self._send_group, request // self.setup.n + 1)

    def _name(self, request: int) -> str:
        """The request id that the load generator gives; the warm-up is ``w``."""
        group, member = divmod(request - self._measured_from, self.setup.n)
        return f"g{group:04d}-{member}" if group >= 0 else f"w{-group:04d}-{member}"

    # Calls

    def _send(self, frontend: _Frontend, request: int, attempt: int) -> None:
        tried = frontend.tried.setdefault(request, [])
        worker = frontend.s_cnn.pick(self.now, tried)
        if worker is None and tried:
            running = [name for number, name in enumerate(tried) if (request, number) in frontend.calls]
            worker = frontend.s_cnn.pick(self.now, running)
        if attempt != e.PRIMARY and request >= self._measured_from:
            self.replicas += 1
        if worker is None:
            tried.append("")
            self._at(self.now, self._no_worker, (frontend, e.Failed(self.now, request, attempt)))
            return
        tried.append(worker)
        call = _Call(frontend, (request, attempt), self._name(request), attempt, self._station(worker), self.now)
        frontend.calls[call.key] = call
        frontend.s_cnn.started(worker)
        self._enqueue(call)

    def _no_worker(self, failure: tuple[_Frontend, e.Event]) -> None:
        self._feed(*failure)

    def _encoded(self, call: _Call) -> None:
        if call.ended:
            return
        worker = call.balancer.pick(self.now)
        if worker is None:
            self._forget(call)
            self._feed(call.frontend, e.CollageFailed(self.now, call.key[0]))
            return
        call.station, call.sent_at = self._station(worker), self.now
        call.balancer.started(worker)
        self._enqueue(call)

    def _station(self, name: str) -> _Station:
        station = self._stations.get(name)
        if station is None:
            index = int(name)
            scale = 1.0 if index < self._s_cnn else COLLAGE_FACTOR
            slowdown = self.regime.slowdown(index, self.setup.workers, self.seed, scale)
            station = self._stations[name] = _Station(name, slowdown)
        return station

    def _enqueue(self, call: _Call) -> None:
        station = call.station
        if station.current is None:
            self._start(station, call)
        elif len(station.queue) < self.setup.queue_size:
            station.queue.append(call)
        else:
            self._at(self.now, self._failed, (call, False))

    def _start(self, station: _Station, call: _Call) -> None:
        station.current, call.started_at = call, self.now
        service = max(self.setup.inference_s, station.slowdown.draw(call.name, call.attempt, self.now))
        self._at(self.now + service, self._computed, call)

    def _computed(self, call: _Call) -> None:
        if call.ended or call.station.current is not call:
            return
        self._free(call.station)
        if self.setup.overhead_s:
            self._at(self.now + self.setup.overhead_s, self._answered, call)
        else:
            self._answered(call)

    def _free(self, station: _Station) -> None:
        """The slot's call is over; the next one gets it."""
        assert station.current is not None  # noqa: S101
        self.busy_s += self.now - station.current.started_at
        station.current = None
        if station.queue:
            self._start(station, station.queue.popleft())

    def _answered(self, call: _Call) -> None:
        if call.ended:
            return
        self._forget(call)
        balancer = call.balancer
        balancer.released(call.station.name)
        balancer.succeeded(call.station.name, self.now, self.now - call.sent_at)
        if call.members is None:
            self._feed(call.frontend, e.Answered(self.now, *call.key))
            return
        confidences = {
            cell: confidence
            for cell, member in call.members.items()
            if (confidence := self._confidence[member]) is not None
        }
        self._feed(call.frontend, e.Decoded(self.now, call.key[0], confidences))

    def _failed(self, failure: tuple[_Call, bool]) -> None:
        call, unreachable = failure
        if call.ended:
            return
        self._forget(call)
        call.balancer.released(call.station.name)
        call.balancer.failed(call.station.name, self.now)
        if call.members is None:
            self._feed(call.frontend, e.Failed(self.now, call.key[0], call.key[1], unreachable))
        else:
            self._feed(call.frontend, e.CollageFailed(self.now, call.key[0]))

    def _cancel(self, frontend: _Frontend, key: tuple[int, ...]) -> None:
        call = frontend.calls.get(key)
        if call is None:
            return
        self._forget(call)
        station = call.station
        if station is _NO_STATION:  # its collage is still being made
            return
        if station.current is call:
            self._free(station)
        elif call in station.queue:
            station.queue.remove(call)
        call.balancer.cancelled(station.name, self.now, self.now - call.sent_at)
        if self.setup.acknowledge_s:
            self._at(self.now + self.setup.acknowledge_s, self._acknowledged, call)
        else:
            self._acknowledged(call)

    def _acknowledged(self, call: _Call) -> None:
        call.balancer.released(call.station.name)

    def _forget(self, call: _Call) -> None:
        call.ended = True
        del call.frontend.calls[call.key]

    # Failures

    def _next_outage(self) -> None:
        if outage := next(self._outages, None):
            self._at(outage.at, self._crash, outage)

    def _crash(self, outage: Outage) -> None:
        """A worker dies; its callers notice at once, and no one calls it until it is back."""
        name = str(outage.index)
        station = self._station(name)
        self._ready(name, False)
        lost = [call for call in (station.current, *station.queue) if call]
        station.queue.clear()
        if station.current:
            self._free(station)
        for call in lost:
            self._failed((call, True))
        self._at(outage.until, self._back, name)
        self._next_outage()

    def _back(self, name: str) -> None:
        self._ready(name, True)

    def _ready(self, name: str, ready: bool) -> None:
        s_cnn = int(name) < self._s_cnn
        for frontend in self.frontends:
            (frontend.s_cnn if s_cnn else frontend.collage).set_ready(name, ready)


_NO_STATION = _Station("", Slowdown())
