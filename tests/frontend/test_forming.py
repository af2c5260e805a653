"""Groups of requests that a scarce budget helps, event by event: when they close, who waits, who is sent again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from encoder.code import GroupShape
from frontend.policy.events import (
    Action,
    Answered,
    Arrived,
    CodedWorkers,
    Decoded,
    Due,
    Failed,
    Returned,
    Send,
    SendCoded,
    SetTimer,
    Straggles,
    Timer,
)
from frontend.policy.machine import Policy
from frontend.policy.rules import Rules
from tests.frontend.virtual import collage, sent

PAIR = GroupShape(2, 1, 2, 2)
FAST, SLOW, RUN = 0.125, 0.75, 0.0625
T = 2000.0
"""When the requests of a test come; those of which a test says nothing have ended."""


class Known:
    """A policy that has seen 1,000 requests, of which one in fifty took ``SLOW`` seconds; it has ten tokens.

    A token costs as much as ``price`` requests of .2 s are worth.
    """

    def __init__(self, price: float, workers: int = 1, shape: GroupShape | None = None) -> None:
        self.policy = Policy(Rules.named("adaptive", deadline=0.25, extra_load=0.02))
        self.policy.handle([CodedWorkers(0.0, workers, shape or collage(4))])
        self.see(range(1000))
        for _ in range(64):
            self.policy._flights.times.finished(RUN)
        self.policy.budget.tokens = 10.0
        self.price(price)

    def see(self, requests: range) -> None:
        """One a second."""
        for request in requests:
            took = FAST if request % 50 else SLOW
            self.policy.handle([Arrived(request, request, request + 4.0)])
            self.policy.handle([Answered(request + took, request, 0)])

    def price(self, price: float) -> None:
        self.policy._deferral._price = price * self.policy._deferral.worth(0.2)

    def arrive(self, *requests: int, at: float = T) -> None:
        self.policy.handle([Arrived(at, request, at + 4.0) for request in requests])

    def due(self, timer: Timer, id: int, at: float) -> Sequence[Action]:
        return self.policy.handle([Due(T + at, timer, id)])

    def join(self, request: int, at: float = 0.2) -> Sequence[Action]:
        return self.due(Timer.JOIN, request, at)


def about(at: float) -> Any:
    return pytest.approx(at, abs=1e-3)


def of(kind: type[Action], actions: Sequence[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, kind)]


def test_a_group_closes_when_its_members_are_worth_it_and_is_looked_at_until_then() -> None:
    cluster = Known(1.5)
    cluster.arrive(1001, 1002)
    tick = about(T + 0.2 + FAST / 32)
    assert cluster.join(1001) == [SetTimer(tick, Timer.CLOSE, 1)]
    again = cluster.due(Timer.CLOSE, 1, 0.21)
    assert again == [SetTimer(about(T + 0.21 + FAST / 32), Timer.CLOSE, 1)]
    assert of(SendCoded, cluster.join(1002, 0.22)) == [sent(1, {0: 1001, 1: 1002})]


def test_a_group_has_two_members_at_least() -> None:
    cluster = Known(0.5)
    cluster.arrive(1001)
    assert of(SendCoded, cluster.join(1001)) == []


@pytest.mark.parametrize(("shape", "members"), [(collage(4), (1001, 1003, 1004, 1005)), (PAIR, (1001, 1006))])
def test_places_left_go_to_requests_under_way_that_have_no_replica(shape: GroupShape, members: tuple[int, ...]) -> None:
    cluster = Known(0.5, shape=shape)
    cluster.arrive(1001)
    cluster.arrive(1002, at=T + 0.04)
    for request in range(1003, 1007):
        cluster.arrive(request, at=T + 0.05 + request / 1e5)
    cluster.policy._requests[1002].sent = 2
    assert of(SendCoded, cluster.join(1001)) == [sent(1, dict(enumerate(members)), shape)]


def test_members_that_have_a_replica_do_not_make_a_group_worth_it() -> None:
    cluster = Known(1.5)
    cluster.arrive(1001, 1002, 1003)
    cluster.join(1001)
    cluster.policy._requests[1001].sent = 2
    assert of(SendCoded, cluster.join(1002)) == []
    assert of(SendCoded, cluster.join(1003)) == [sent(1, {0: 1001, 1: 1002, 2: 1003})]


def test_a_group_that_waits_for_a_worker_is_sent_when_that_is_idle() -> None:
    cluster = Known(1.5)
    cluster.arrive(1001, 1002)
    cluster.join(1001)
    cluster.join(1002)
    cluster.price(1.5)
    cluster.arrive(1003, 1004)
    cluster.join(1003)
    cluster.due(Timer.DEADLINE, 1003, 0.2)
    assert of(SendCoded, cluster.join(1004)) == []
    back = cluster.policy.handle([Returned(T + 0.21, 1), Decoded(T + 0.21, 1, {0: 1.0, 1: 1.0})])
    assert of(SendCoded, back) == [sent(2, {0: 1003, 1: 1004})]
    late = [timer.id for timer in back if isinstance(timer, SetTimer) and timer.timer is Timer.LATE]
    assert late == [1003], "it straggles, and waits for its coded answer from now on"


def test_members_of_a_group_that_cannot_be_paid_join_again_a_quarter_of_a_median_later() -> None:
    cluster = Known(1.5)
    cluster.arrive(1001, 1002)
    cluster.join(1001)
    cluster.policy.budget.tokens = -9.5
    again = about(T + 0.2 + FAST / 4)
    assert cluster.join(1002) == [SetTimer(again, Timer.JOIN, 1001), SetTimer(again, Timer.JOIN, 1002)]
    cluster.policy.budget.tokens = 5.0
    cluster.join(1001, 0.24)
    assert of(SendCoded, cluster.join(1002, 0.24)) == [sent(2, {0: 1001, 1: 1002})]


def test_a_straggler_waits_in_an_open_group_until_it_is_worth_a_replica() -> None:
    cluster = Known(1.5)
    cluster.arrive(1001)
    cluster.join(1001)
    assert cluster.due(Timer.DEADLINE, 1001, 0.2) == [Straggles(1001)]
    cluster.price(0.9)
    assert of(Send, cluster.due(Timer.CLOSE, 1, 0.205)) == [Send(1001, 1)]


def test_a_straggler_that_closes_a_group_as_it_joins_waits_for_its_coded_answer() -> None:
    cluster = Known(1.5)
    cluster.arrive(1001, 1002)
    cluster.join(1001)
    cluster.due(Timer.DEADLINE, 1001, 0.2)
    actions = cluster.join(1002)
    assert of(Send, actions) == []
    assert [timer.id for timer in actions if isinstance(timer, SetTimer) and timer.timer is Timer.LATE] == [1001]


def test_a_straggler_joins_a_group_at_its_deadline() -> None:
    cluster = Known(1.5)
    cluster.arrive(1001, 1002)
    cluster.due(Timer.DEADLINE, 1001, 0.2)
    assert of(SendCoded, cluster.due(Timer.DEADLINE, 1002, 0.2)) == [sent(1, {0: 1001, 1: 1002})]


@pytest.mark.parametrize(("price", "replicas"), [(1.1, []), (0.9, [Send(1001, 1)])])
def test_without_redundant_workers_a_replica_must_be_worth_a_token(price: float, replicas: list[Send]) -> None:
    cluster = Known(price, workers=0)
    cluster.arrive(1001)
    assert of(Send, cluster.due(Timer.DEADLINE, 1001, 0.2)) == replicas


def test_a_request_that_has_no_copy_left_is_sent_again_at_any_price() -> None:
    cluster = Known(100.0)
    cluster.arrive(1001)
    assert of(Send, cluster.policy.handle([Failed(T + 0.05, 1001, 0)])) == [Send(1001, 1)]


def test_nobody_joins_when_the_redundant_workers_have_gone() -> None:
    cluster = Known(1.5)
    cluster.arrive(1001)
    cluster.policy.handle([CodedWorkers(T, 0, collage(4))])
    assert cluster.join(1001) == []
    assert cluster.policy.groups.open is None


def test_without_redundant_workers_the_price_is_bounded_by_what_replicas_are_worth() -> None:
    cluster = Known(100.0, workers=0)
    cluster.see(range(1000, 1064))
    deferral = cluster.policy._deferral
    assert deferral._price <= 2.0 * max(deferral._worth)


def test_a_group_of_a_code_that_needs_all_its_members_is_not_closed_with_two() -> None:
    cluster = Known(0.5, shape=GroupShape(4, 2, 4, 4))
    cluster.arrive(1001, 1002)
    assert of(SendCoded, [*cluster.join(1001), *cluster.join(1002)]) == []
