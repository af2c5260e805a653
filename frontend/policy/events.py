"""What the policy hears and what it says: events in, actions out. Times in seconds on any one clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from encoder.code import GroupShape
from frontend.policy.accuracy import ErrorStep

PRIMARY = 0  # the attempt that every request starts with; higher numbers are replicas


class Arrived(NamedTuple):
    """A request was admitted; it must end by ``expires``, which leaves time for the answer's way back."""

    at: float
    request: int
    expires: float


class Answered(NamedTuple):
    """A worker of the base model answered an attempt."""

    at: float
    request: int
    attempt: int


class Failed(NamedTuple):
    """An attempt failed. ``unreachable``: it never ran, as far as anyone knows (gRPC UNAVAILABLE).

    If it was not even ``sent``, for want of a worker, it costs nothing.
    """

    at: float
    request: int
    attempt: int
    unreachable: bool = True
    sent: bool = True


class Returned(NamedTuple):
    """A redundant run of a group came back, or if not ``ok`` will not.

    If it was not even ``sent``, for want of a worker, it costs nothing.
    """

    at: float
    group: int
    ok: bool = True
    sent: bool = True


class Decoded(NamedTuple):
    """A group's missing answers were decoded: confidence by place, no entry where the code found nothing.

    It comes once, after the ``Returned`` or the member's own answer that made the group decodable; without any entry
    also when the group will never be.
    """

    at: float
    group: int
    confidences: Mapping[int, float]


class Gone(NamedTuple):
    """The caller hung up."""

    at: float
    request: int


class CodedWorkers(NamedTuple):
    """How many groups can be run at once by redundant workers that are ready, of which shape, and when they are sure.

    ``accept`` is the confidence from which on their model says that a coded answer is sure; ``errors`` is its table of
    what answers cost, empty if it has none.
    """

    at: float
    workers: int
    shape: GroupShape
    accept: float = 1.0
    errors: Sequence[ErrorStep] = ()


class Audited(NamedTuple):
    """A coded answer of this ``confidence`` was compared with the base model's own."""

    at: float
    confidence: float
    agrees: bool


class Timer(Enum):
    """What a timer is for; its id names a request or, for CLOSE, a group."""

    DEADLINE = "deadline"
    UNSURE = "unsure"
    LATE = "late"
    EXPIRY = "expiry"
    CLOSE = "close"
    JOIN = "join"


class Due(NamedTuple):
    """A timer is due; ``at`` is the time it was set for."""

    at: float
    timer: Timer
    id: int


Event = Arrived | Answered | Failed | Returned | Decoded | Gone | CodedWorkers | Audited | Due


class Send(NamedTuple):
    """Send a request to a base worker; where there is a choice, not to one that has another attempt of it."""

    request: int
    attempt: int


class SendCoded(NamedTuple):
    """Encode these members (request by place) of a group of this shape, and send its redundant inputs."""

    group: int
    members: Mapping[int, int]
    shape: GroupShape


class Cancel(NamedTuple):
    """Stop an attempt that lost."""

    request: int
    attempt: int


class CancelCoded(NamedTuple):
    """Stop what still runs for a group's code: nobody needs it any more."""

    group: int


class Answer(NamedTuple):
    """End a request with the answer of an attempt."""

    request: int
    attempt: int


class AnswerCoded(NamedTuple):
    """End a request with the coded answer for its place, of which the code is ``sure`` or not.

    ``early``: before its deadline, in place of an own answer that would have come. ``cost``: errors to expect.
    """

    request: int
    group: int
    place: int
    sure: bool
    early: bool = False
    cost: float = 0.0


class Fail(NamedTuple):
    """End a request without an answer: out of time, or every attempt failed."""

    request: int
    expired: bool


class SetTimer(NamedTuple):
    """Send ``Due`` at this time, unless the request has ended (or the group has closed) by then."""

    at: float
    timer: Timer
    id: int


class Audit(NamedTuple):
    """Let the first attempt of a request that was answered from the code finish, and compare the two answers."""

    request: int


class Straggles(NamedTuple):
    """For the record: a request has no answer of its own at its deadline, or its worker failed."""

    request: int


Action = Send | SendCoded | Cancel | CancelCoded | Answer | AnswerCoded | Fail | SetTimer | Audit | Straggles
