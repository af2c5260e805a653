"""The parts of a simulated cluster: virtual time, workers (one slot each, a bounded queue), the state of frontends."""

from __future__ import annotations

import gc
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.simulator.prequal import LoadHistory, Told
from bench.simulator.rivals import choice_named
from encoder.code import GroupShape
from frontend.policy.balance import Balancer
from frontend.policy.ejection import Ejection
from frontend.policy.groups import Progress
from frontend.policy.machine import Policy
from frontend.policy.rules import Rules
from worker.slowdown import Slowdown


@dataclass(frozen=True)
class Setup:
    """A cluster. Times in seconds."""

    n: int = 9  # s-cnn workers
    redundant: int = 1  # redundant workers, of all rows of the code
    equal_resources: bool = False  # the redundant workers are s-cnn workers instead
    frontends: int = 1  # that share the workers and split the requests evenly
    queue_size: int = 16  # calls that may wait at a worker
    timeout_s: float = 10.0  # of a request
    encode_s: float = 0.003  # to make a collage
    inference_s: float = 0.0  # the shortest inference
    overhead_s: float = 0.0  # from the end of an inference to the frontend; the worker is free meanwhile
    caller_s: float = 0.0  # between caller and frontend
    acknowledge_s: float = 0.0  # that a cancelled call stays outstanding
    choice: str = "fewest-calls"  # of a worker, one of bench.simulator.rivals
    probe_s: float = 0.001  # from a probe to its answer, where the choice asks workers for their loads
    code: GroupShape | None = None  # of the groups; None for collages of n / redundant cells

    @property
    def workers(self) -> int:
        """The number of workers of both kinds."""
        return self.n + self.redundant

    @property
    def shape(self) -> GroupShape:
        """The shape of the code's groups."""
        if self.code:
            return self.code
        return GroupShape.collage(max(1, self.n // self.redundant if self.redundant else 1))


class Agenda:
    """A clock in seconds, and actions in order of time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._order = itertools.count()

    def at(self, at: float, act: Callable[[Any], None], subject: Any) -> None:
        """Do ``act(subject)`` then, or next if that is over already."""
        heapq.heappush(self._heap, (at, next(self._order), act, subject))

    def run(self, going: Callable[[], object]) -> None:
        """Do one action after the other while ``going()``.

        Without garbage collection: a simulation leaves no cycles, and looking for them costs more with every request
        under way.
        """
        was = gc.isenabled()
        gc.disable()
        try:
            while going():
                at, _, act, subject = heapq.heappop(self._heap)
                if at > self.now:
                    self.now = at
                act(subject)
        finally:
            if was:
                gc.enable()


@dataclass(slots=True, eq=False)
class StationCall:
    """One attempt, or one collage; ``name`` and ``attempt`` decide how long it takes, ``context`` is the caller's."""

    context: Any
    name: str
    attempt: int
    sent_at: float = 0.0
    worker: str = ""  # none as yet
    started_at: float = 0.0
    others: int = 0  # that were at the worker when it came
    over: bool = False


@dataclass(slots=True, eq=False)
class _Station:
    slowdown: Slowdown
    current: StationCall | None = None
    queue: deque[StationCall] = field(default_factory=deque)
    frozen_until: float = 0.0
    history: LoadHistory = field(default_factory=LoadHistory)

    @property
    def calls(self) -> int:
        """How many it has."""
        return len(self.queue) + (self.current is not None)


class Stations:
    """Workers, made when they are called first: ``slowdown`` tells the draws of one by its name.

    A call ends in ``answered(call)`` or ``failed((call, unreachable))`` if it is not cancelled. ``queue_size`` calls
    may wait for the slot of a worker; more fail. The slot is held for ``least_s`` seconds at least; ``overhead_s``
    passes after that without holding it. The answer to a probe is back after ``probe_s``.
    """

    def __init__(
        self,
        agenda: Agenda,
        slowdown: Callable[[str], Slowdown],
        answered: Callable[[StationCall], None],
        failed: Callable[[tuple[StationCall, bool]], None],
        queue_size: int,
        least_s: float = 0.0,
        overhead_s: float = 0.0,
        probe_s: float = 0.0,
    ) -> None:
        self.busy_s = 0.0
        self._agenda, self._slowdown, self._queue_size = agenda, slowdown, queue_size
        self._answered, self._failed = answered, failed
        self._least_s, self._overhead_s, self._probe_s = least_s, overhead_s, probe_s
        self._stations: dict[str, _Station] = {}

    def send(self, call: StationCall, worker: str) -> None:
        """Start a call, or let it wait in line."""
        call.worker, call.sent_at = worker, self._agenda.now
        station = self._station(worker)
        call.others = station.calls
        if station.current is None:
            self._start(station, call)
        elif len(station.queue) < self._queue_size:
            station.queue.append(call)
        else:
            self._agenda.at(self._agenda.now, self._reject, call)

    def probe(self, worker: str, told: Told) -> None:
        """Ask a worker for its load; a frozen one answers when it goes on."""
        self._agenda.at(self._agenda.now + self._probe_s / 2, self._probed, (worker, told))

    def _probed(self, probe: tuple[str, Told]) -> None:
        station, now = self._station(probe[0]), self._agenda.now
        if now < station.frozen_until:
            self._agenda.at(station.frozen_until, self._probed, probe)
            return
        load, back_at = station.history.load(station.calls), now + self._probe_s / 2
        self._agenda.at(back_at, lambda told: told(back_at, load), probe[1])

    def freeze(self, worker: str, until: float) -> None:
        """Let a worker do nothing until then; what would have ended by then ends then."""
        self._station(worker).frozen_until = until

    def frozen_until(self, worker: str) -> float:
        """When a worker goes on that is frozen; a time that is past if it is not."""
        return self._station(worker).frozen_until

    def cancel(self, call: StationCall) -> None:
        """Stop a call; its slot is free at once."""
        call.over = True
        if call.worker:
            station = self._stations[call.worker]
            if station.current is call:
                self._free(station)
            elif call in station.queue:
                station.queue.remove(call)

    def crash(self, worker: str) -> None:
        """Lose all calls of a worker."""
        station = self._station(worker)
        lost = [call for call in (station.current, *station.queue) if call]
        station.queue.clear()
        if station.current:
            self._free(station)
        for call in lost:
            if not call.over:  # a failure may have cancelled others
                call.over = True
                self._failed((call, True))

    def _station(self, name: str) -> _Station:
        station = self._stations.get(name)
        if station is None:
            station = self._stations[name] = _Station(self._slowdown(name))
        return station

    def _start(self, station: _Station, call: StationCall) -> None:
        now = self._agenda.now
        station.current, call.started_at = call, now
        service = max(self._least_s, station.slowdown.draw(call.name, call.attempt, now))
        self._agenda.at(max(now, station.frozen_until) + service, self._computed, call)

    def _free(self, station: _Station) -> None:
        """The slot's call is over; the next one gets it."""
        if station.current:
            self.busy_s += self._agenda.now - station.current.started_at
        station.current = None
        if station.queue:
            self._start(station, station.queue.popleft())

    def _computed(self, call: StationCall) -> None:
        if call.over:
            return
        station = self._stations[call.worker]
        if self._agenda.now < station.frozen_until:
            self._agenda.at(station.frozen_until, self._computed, call)
            return
        station.history.finished(call.others, self._agenda.now - call.sent_at)
        self._free(station)
        if self._overhead_s:
            self._agenda.at(self._agenda.now + self._overhead_s, self._arrived, call)
        else:
            self._arrived(call)

    def _arrived(self, call: StationCall) -> None:
        if not call.over:
            call.over = True
            self._answered(call)

    def _reject(self, call: StationCall) -> None:
        if not call.over:
            call.over = True
            self._failed((call, False))


class CodedGroup:
    """A group whose code is at work: its members by place, and which outputs are there."""

    def __init__(self, members: Mapping[int, int], shape: GroupShape) -> None:
        self.members, self.progress = members, Progress(shape)

    @property
    def lacking(self) -> dict[int, int]:
        """Members without an own answer, by place."""
        return {place: member for place, member in self.members.items() if place not in self.progress.own}


class SimulatedFrontend:
    """One frontend process."""

    def __init__(self, rules: Rules, ejection: Ejection | None, seed: int, setup: Setup, stations: Stations) -> None:
        self.policy = Policy(rules)
        self.s_cnn = Balancer(ejection, seed, choice_named(setup.choice, stations.probe))
        self.coded = [Balancer(ejection, seed) for _ in range(setup.shape.inputs)]
        self.calls: dict[tuple[int, ...], StationCall] = {}
        self.tried: dict[int, list[str]] = {}
        self.groups: dict[int, CodedGroup] = {}  # that are not decodable yet
        self.places: dict[int, tuple[int, int]] = {}  # group and place by request, where own answers count
        self.ejections = 0  # of workers
        for balancer in (self.s_cnn, *self.coded):
            balancer.changed = self._changed

    def _changed(self, worker: str, reason: str) -> None:
        """A worker is ejected for a reason, or is well again, without one."""
        self.ejections += reason != ""


@dataclass(slots=True, eq=False)
class CallContext:
    """The purpose of a call: an attempt, key (request, attempt), or a redundant run of a group, key (id, row, 0)."""

    frontend: SimulatedFrontend
    balancer: Balancer
    key: tuple[int, ...]
    group: CodedGroup | None = None
