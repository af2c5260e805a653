"""What the policy hears and what it says: events in, actions out. Times in seconds on any one clock."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

PRIMARY = 0  # the attempt that every request starts with; higher numbers are replicas


class Arrived(NamedTuple):
    """A request was admitted; it must end by ``expires``, which leaves time for the answer's way back."""

    at: float
    request: int
    expires: float


class Answered(NamedTuple):
    """An s-cnn worker answered an attempt."""

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


class Decoded(NamedTuple):
    """A collage came back: confidence by cell, no entry where it found nothing."""

    at: float
    group: int
    confidences: Mapping[int, float]


class CollageFailed(NamedTuple):
    """A collage will not come back; if it was not even ``sent``, for want of a worker, it costs nothing."""

    at: float
    group: int
    sent: bool = True


class Gone(NamedTuple):
    """The caller hung up."""

    at: float
    request: int


class CollageWorkers(NamedTuple):
    """How many collage workers are ready, how many cells they see, and from which confidence on they are sure."""

    at: float
    workers: int
    cells: int
    accept: float = 1.0


class Timer(Enum):
    """What a timer is for; its id names a request or, for CLOSE, a group."""

    DEADLINE = "deadline"
    UNSURE = "unsure"
    LATE = "late"
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


class Audit(NamedTuple):
    """Let the first attempt of a request that was answered from the code finish, and compare the two answers."""

    request: int


class Straggles(NamedTuple):
    """For the record: a request has no s-cnn answer at its deadline, or its worker failed."""

    request: int


Action = Send | SendCollage | Cancel | CancelCollage | Answer | AnswerCoded | Fail | SetTimer | Audit | Straggles
