"""What the policy remembers of requests and of groups whose code is at work. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from frontend.policy.accuracy import Accuracy
from frontend.policy.groups import Group, Progress
from frontend.policy.quantile import RunningQuantile
from frontend.policy.rules import Rules


@dataclass(slots=True)
class Request:
    """A request that has not ended. Times in seconds on the events' clock."""

    id: int
    arrived: float
    deadline: float
    expires: float
    group: Group | None = None
    place: int = -1
    outstanding: set[int] = field(default_factory=set)
    """Attempts that are under way."""
    sent: int = 0
    straggles: bool = False

    def patient_until(self, patience: float) -> float:
        """The time from which on a straggler takes an unsure answer: ``patience`` deadlines after its arrival."""
        return self.arrived + patience * (self.deadline - self.arrived)


@dataclass(slots=True)
class Flight:
    """A closed group whose redundant inputs were sent; it lasts as long as a member has no answer."""

    id: int
    sent_at: float
    live: dict[int, int]
    """Members without an answer yet: request by place."""
    progress: Progress
    confidences: Mapping[int, float] | None = None
    """Of the decoded answers by place: None until they are decoded, empty if they cannot be."""
    running: bool = True
    """Whether redundant runs are under way."""


class CodedTimes:
    """How long redundant runs take, from the closing of their group: those of a few minutes ago count no more."""

    def __init__(self, quantile: float) -> None:
        self._usual = RunningQuantile(0.5, 0.0, lowest=0.0, half_life=32.0, every=8)
        self._late = RunningQuantile(quantile, 0.0, lowest=0.0)

    @property
    def usual(self) -> float:
        """Seconds that half of the last few took; 0 while nothing is known."""
        return self._usual.value

    @property
    def late_after(self) -> float:
        """Seconds after which a run is late: a quantile of what they take, as of first copies.

        At most two medians: a frozen worker's runs are never seen to end, and a quantile of runs that are always cut
        off knows no bound.
        """
        return min(self._late.value, 2 * self._late.median)

    @property
    def known(self) -> bool:
        """Whether any run was seen to end."""
        return self._late.median > 0

    def finished(self, seconds: float) -> None:
        """A run came back."""
        self._usual.finished(seconds)
        self._late.finished(seconds)

    def cut_off(self, seconds: float) -> None:
        """A run was cancelled: it would have taken longer."""
        self._usual.cut_off(seconds)
        self._late.cut_off(seconds)


class Flights:
    """The groups whose redundant inputs were sent, and what they promise to the ``requests`` in them."""

    def __init__(self, rules: Rules, requests: dict[int, Request]) -> None:
        self.times = CodedTimes(rules.quantile)
        self.accept = 1.0 if rules.accept is None else rules.accept
        """Confidence from which on a coded answer is sure."""
        self.accuracy = Accuracy(rules.accuracy)
        """What coded answers may cost."""
        self.running = 0
        """Groups of which redundant runs are under way."""
        self.requests = requests
        self._flights: dict[int, Flight] = {}

    def __len__(self) -> int:
        """How many groups have members without an answer."""
        return len(self._flights)

    def get(self, group: int) -> Flight | None:
        """The flight of a group, if it has one."""
        return self._flights.get(group)

    def of(self, request: Request) -> Flight | None:
        """The flight of a request's group, if it has one."""
        return self._flights.get(request.group.id) if request.group else None

    def start(self, group: Group, at: float) -> Flight:
        """A closed group's redundant inputs are sent."""
        flight = self._flights[group.id] = Flight(group.id, at, dict(group.members), Progress(group.shape))
        self.running += 1
        return flight

    def stopped(self, flight: Flight) -> None:
        """No redundant run of the group is under way any more."""
        flight.running = False
        self.running -= 1

    def leave(self, flight: Flight, place: int) -> None:
        """A member has ended; with the last one the flight is forgotten."""
        del flight.live[place]
        if not flight.live:
            del self._flights[flight.id]

    def members(self, flight: Flight) -> list[Request]:
        """The members without an answer."""
        return [self.requests[request] for request in flight.live.values()]

    def confidence(self, request: Request) -> float | None:
        """The confidence of a request's coded answer; None if it has none, or none yet."""
        flight = self.of(request)
        return flight.confidences.get(request.place) if flight and flight.confidences is not None else None

    def sure(self, request: Request) -> bool:
        """Whether a request has a coded answer of which the code is sure."""
        confidence = self.confidence(request)
        return confidence is not None and confidence >= self.accept

    def paid(self, request: Request, *, early: bool = False) -> bool:
        """Whether a request has a coded answer, and the budget of accuracy pays for that."""
        confidence = self.confidence(request)
        return confidence is not None and self.accuracy.pays(confidence, early=early)

    def pending(self, request: Request) -> bool:
        """Whether the request may still be decoded: what is there and what is under way would be enough."""
        flight = self.of(request)
        if flight is None or flight.confidences is not None:
            return False
        return flight.progress.reachable(sum(1 for each in self._siblings(flight, request) if each.outstanding))

    def late_at(self, request: Request) -> float | None:
        """When the coded answer of a straggler is late; None if none is expected.

        Redundant runs are late after a quantile of what they usually take, siblings whose answers the code needs at
        their deadlines. A sibling that straggles itself is not waited for.
        """
        flight = self.of(request)
        if flight is None or not self.pending(request):
            return None
        times = [flight.sent_at + self.times.late_after] if flight.running else []
        if (lacking := flight.progress.lacking) > 0:
            deadlines = sorted(
                each.deadline for each in self._siblings(flight, request) if each.outstanding and not each.straggles
            )
            if len(deadlines) < lacking:
                return None
            times.append(deadlines[lacking - 1])
        return max(times, default=None)

    def back_at(self, request: Request) -> float | None:
        """When the redundant runs for a request are usually back; None if none is under way that could help."""
        flight = self.of(request)
        if flight is None or not flight.running or not self.pending(request):
            return None
        return flight.sent_at + self.times.usual

    def _siblings(self, flight: Flight, request: Request) -> Iterator[Request]:
        return (self.requests[id] for id in flight.live.values() if id != request.id)
