"""A cluster in virtual time: obeys a Policy as the dispatcher would, with scripted workers.

No asyncio and no real clock: a heap of events, delivered in batches. After each batch the referee checks the actions,
so that every test that runs a cluster tests all the promises of the policy.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from encoder.code import GroupShape
from frontend.policy.accuracy import ErrorStep
from frontend.policy.events import (
    Action,
    Answer,
    AnswerCoded,
    Answered,
    Arrived,
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
)
from frontend.policy.groups import Progress
from frontend.policy.machine import Policy
from frontend.policy.rules import Rules
from tests.frontend.referee import End, Referee

Ordered = TypeVar("Ordered", bound=Action)


def collage(cells: int) -> GroupShape:
    """The shape of a collage's groups."""
    return GroupShape.collage(max(1, cells))


def sent(group: int, members: Mapping[int, int], shape: GroupShape | None = None) -> SendCoded:
    """What sends a group's code; of four cells, where nothing else is said."""
    return SendCoded(group, members, shape or collage(4))


def ended(at: float, end: End) -> tuple[float, str, End]:
    """An entry of ``Virtual.ends``."""
    return at, type(end).__name__, end


@dataclass(frozen=True)
class After:
    """An s-cnn answer after ``after`` seconds."""

    after: float


@dataclass(frozen=True)
class Broken:
    """A failure, of an attempt or of a collage, after ``after`` seconds."""

    after: float
    unreachable: bool = True


@dataclass(frozen=True)
class Seen:
    """A redundant run that comes back after ``after`` seconds, and the confidences by place that it makes decodable.

    None stands for a sure answer in every place.
    """

    after: float
    confidences: Mapping[int, float] | None = None


@dataclass(frozen=True)
class Window:
    """How much is delivered in one batch: all that happens within ``width`` seconds, perhaps in reverse order."""

    width: float = 0.0
    reverse: bool = False


Replies = Mapping[tuple[int, int], After | Broken | None]
Run = Seen | Broken | None
Collages = Mapping[int, Run | tuple[Run, ...]]


class Virtual:
    """Workers that do what the script says; what it does not mention takes ``usual`` or never comes back.

    ``replies`` is keyed by (request, attempt), ``collages`` by group, with a tuple where there are several redundant
    runs. A cancelled call stays silent, unless the workers are ``deaf``: then its outcome arrives all the same. Timers
    are always delivered, even needless ones.
    """

    def __init__(
        self,
        rules: Rules,
        replies: Replies | None = None,
        collages: Collages | None = None,
        *,
        usual: After | None = None,
        workers: int = 1,
        cells: int = 4,
        shape: GroupShape | None = None,
        accept: float = 0.5,
        errors: Sequence[ErrorStep] = (),
        windows: Iterable[Window] = (),
        deaf: bool = False,
    ) -> None:
        self.policy = Policy(rules)
        self._accept, self._errors = accept, errors
        self.now = 0.0
        self.log: list[tuple[float, Action]] = []
        self.ends: dict[int, tuple[float, str, End]] = {}
        self._replies, self._collages, self._usual, self._deaf = replies or {}, collages or {}, usual, deaf
        self._windows = itertools.chain(windows, itertools.repeat(Window()))
        self._referee = Referee(rules)
        self._heap: list[tuple[float, int, Event]] = []
        self._order = itertools.count()
        self._cancelled: set[tuple[int, int] | int] = set()
        self._progress: dict[int, Progress] = {}
        self._groups: dict[int, tuple[int, int]] = {}  # group and place by request
        self.coded_workers(workers, shape or collage(cells))

    # What happens

    def arrive(self, *requests: int, at: float = 0.0, timeout: float = 4.0) -> None:
        for request in requests:
            self._schedule(Arrived(at, request, at + self.policy.rules.time_to_answer(timeout)))

    def hang_up(self, request: int, at: float) -> None:
        self._schedule(Gone(at, request))

    def coded_workers(self, workers: int, shape: GroupShape, at: float = 0.0) -> None:
        self._schedule(CodedWorkers(at, workers, shape, self._accept, self._errors))

    def run(self) -> Virtual:
        """Run until nothing is left to happen; then nothing may be left in the policy either."""
        while self._heap:
            self._step()
        self._referee.check_over(self.policy)
        return self

    # What came of it

    def when(self, action: Action) -> float | None:
        """The time at which the policy ordered this, None for never; it may not order it twice."""
        times = [at for at, ordered in self.log if type(ordered) is type(action) and ordered == action]
        assert len(times) <= 1, f"{action} was ordered {len(times)} times"
        return times[0] if times else None

    def ordered(self, *kinds: type[Ordered]) -> list[Ordered]:
        """All actions of these kinds, in order."""
        return [action for _, action in self.log if isinstance(action, kinds)]

    def _schedule(self, event: Event) -> None:
        order = next(self._order)
        assert order < 50_000, "this never ends"
        heapq.heappush(self._heap, (event.at, order, event))

    def _step(self) -> None:
        window = next(self._windows)
        until = self._heap[0][0] + window.width
        units: list[list[Event]] = []
        while self._heap and self._heap[0][0] <= until:
            at, _, event = heapq.heappop(self._heap)
            self.now = max(self.now, at)
            if self._deaf or not self._silenced(event):
                units.append([event, *self._decoded_by(event)])
        if window.reverse:
            units.reverse()
        batch = [event for unit in units for event in unit]
        actions = self.policy.handle(batch)
        self._referee.check(batch, actions)
        for action in actions:
            self._obey(action)
        for event in batch:
            if isinstance(event, Gone):
                self.ends.setdefault(event.request, ended(self.now, Gone(self.now, event.request)))

    def _decoded_by(self, event: Event) -> list[Event]:
        """What follows at once where a redundant run comes back that makes its group decodable."""
        if isinstance(event, Returned) and self._progress[event.group].returned(event.ok):
            return [Decoded(event.at, event.group, self._confidences(event.group))]
        return []

    def _confidences(self, group: int) -> Mapping[int, float]:
        runs = self._collages.get(group)
        seen = next(run for run in (runs if isinstance(runs, tuple) else (runs,)) if isinstance(run, Seen))
        places = range(self._progress[group].shape.members)
        found = dict.fromkeys(places, 1.0) if seen.confidences is None else seen.confidences
        members = {place for of, place in self._groups.values() if of == group}
        return {place: found[place] for place in found if place in members - self._progress[group].own}

    def _silenced(self, event: Event) -> bool:
        match event:
            case Answered(_, request, attempt) | Failed(_, request, attempt):
                return (request, attempt) in self._cancelled
            case Decoded(_, group) | Returned(_, group):
                return group in self._cancelled
        return False

    def _obey(self, action: Action) -> None:
        self.log.append((self.now, action))
        match action:
            case Send(request, attempt):
                match self._replies.get((request, attempt), self._usual):
                    case After(after):
                        self._schedule(Answered(self.now + after, request, attempt))
                    case Broken(after, unreachable):
                        self._schedule(Failed(self.now + after, request, attempt, unreachable))
            case SendCoded(group, members, shape):
                self._progress[group] = Progress(shape)
                self._groups |= {request: (group, place) for place, request in members.items()}
                runs = self._collages.get(group)
                for run in (runs if isinstance(runs, tuple) else (runs,) * shape.inputs)[: shape.inputs]:
                    if run is not None:
                        self._schedule(Returned(self.now + run.after, group, isinstance(run, Seen)))
            case Cancel(request, attempt):
                self._cancelled.add((request, attempt))
            case CancelCoded(group):
                self._cancelled.add(group)
            case SetTimer(at, timer, id):
                self._schedule(Due(at, timer, id))
            case Answer() | AnswerCoded() | Fail():
                self.ends[action.request] = ended(self.now, action)
                group, place = self._groups.get(action.request, (0, 0))
                if isinstance(action, Answer) and group and self._progress[group].answered(place):
                    self._schedule(Decoded(self.now, group, self._confidences(group)))


# Scenarios for the example tests

NONE = Rules.named("none", margin=0.125)
REPLICATE = Rules.named("replicate", extra_load=1.0, margin=0.125)
COLLAGE = Rules.named("collage", extra_load=1.0, margin=0.125, group_wait=0.0625)
CAREFUL = replace(COLLAGE, accept=0.5)

FULL = sent(1, {0: 1, 1: 2, 2: 3, 3: 4})
QUICK = After(0.125)


def one(rules: Rules, replies: Replies, *, timeout: float = 4.0) -> Virtual:
    """One request, in no group that could help it."""
    cluster = Virtual(rules, replies)
    cluster.arrive(1, timeout=timeout)
    return cluster.run()


def four(
    rules: Rules, replies: Replies, collage: Seen | Broken | None, *, timeout: float = 4.0, hang_up: float | None = None
) -> Virtual:
    """A full group, whose collage is sent at 0."""
    cluster = Virtual(rules, replies, {1: collage}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4, timeout=timeout)
    if hang_up is not None:
        cluster.hang_up(1, hang_up)
    cluster.run()
    assert cluster.when(FULL) == 0
    return cluster


def straggling() -> Policy:
    """Requests 1 to 4 in group 1, all in flight; 2, 3 and 4 have their answers."""
    policy = Policy(COLLAGE)
    policy.handle([CodedWorkers(0, 1, collage(4)), *(Arrived(0, request, 4.0) for request in (1, 2, 3, 4))])
    policy.handle([Answered(0.125, request, 0) for request in (2, 3, 4)])
    return policy
