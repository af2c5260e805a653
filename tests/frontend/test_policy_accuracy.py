"""What the policy gives, and what it does instead, where the budget of accuracy is short."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from frontend.policy.accuracy import ErrorStep
from frontend.policy.events import (
    PRIMARY,
    Answer,
    AnswerCoded,
    Answered,
    Arrived,
    Audited,
    Cancel,
    CodedWorkers,
    Decoded,
    Due,
    Fail,
    Returned,
    Send,
    SetTimer,
    Straggles,
    Timer,
)
from frontend.policy.machine import Policy
from frontend.policy.rules import Rules
from tests.frontend.referee import exact
from tests.frontend.virtual import COLLAGE, QUICK, Replies, Seen, Virtual, collage, ended

TABLE = (ErrorStep(0.0, 0.375, 0.125, 0.5), ErrorStep(0.5, 0.0, 0.125, 0.25))
"""An answer costs .5 errors, or .125 from a confidence of .5 on."""
ADAPTIVE = replace(
    Rules.named("adaptive", extra_load=1.0, margin=0.125, deadline=0.25, accuracy=0.0),
    shortest=0.25,
    longest=0.25,
    stretch=1000.0,
    group_wait=0.0625,
)
SLOW: Replies = {(1, PRIMARY): None, (1, 1): None, (1, 2): None}


def four(rules: Rules, left: float, confidence: float, after: float = 0.125, replies: Replies = SLOW) -> Virtual:
    """A full group at 0 whose first member has no answer, with so many errors left."""
    cluster = Virtual(rules, replies, {1: Seen(after, {0: confidence})}, usual=QUICK, errors=TABLE)
    cluster.policy._flights.accuracy.left = left
    cluster.arrive(1, 2, 3, 4)
    return cluster.run()


def test_a_straggler_gets_a_coded_answer_that_is_paid() -> None:
    cluster = four(replace(COLLAGE, accuracy=0.0), 0.5, 0.75)
    assert cluster.ends[1] == ended(0.25, AnswerCoded(1, 1, 0, True, early=False, cost=0.125))
    assert cluster.policy._flights.accuracy.left == 0.375


def test_a_straggler_is_replicated_instead_where_the_budget_is_short() -> None:
    cluster = four(replace(COLLAGE, accuracy=0.0), 0.49, 0.75, replies={(1, PRIMARY): None})
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))
    assert cluster.policy._flights.accuracy.left == 0.49


def test_a_straggler_without_replicas_waits_for_its_own_answer_where_the_budget_is_short() -> None:
    rules = Rules.named("collage-only", margin=0.125, deadline=0.25, accuracy=0.0)
    cluster = four(rules, 0.49, 0.75, replies={(1, PRIMARY): None})
    assert cluster.ends[1] == ended(3.875, AnswerCoded(1, 1, 0, True, early=False, cost=0.125))
    assert cluster.policy._flights.accuracy.left == 0.365, "at the end of its time a coded answer is better than none"


@pytest.mark.parametrize(
    ("left", "end"),
    [
        (2.5, ended(0.125, AnswerCoded(1, 1, 0, True, early=True, cost=0.125))),
        (2.49, ended(0.25, AnswerCoded(1, 1, 0, True, early=False, cost=0.125))),
        (0.5, ended(0.25, AnswerCoded(1, 1, 0, True, early=False, cost=0.125))),
    ],
)
def test_no_coded_answer_is_given_early_while_less_than_half_of_the_burst_is_left(
    left: float, end: tuple[float, str, AnswerCoded]
) -> None:
    assert four(ADAPTIVE, left, 0.75).ends[1] == end


def unsure_at_the_deadline(left: float) -> tuple[Policy, list[tuple[str, Any]]]:
    """Request 1, whose replica would come after the end of its patience, as first copies take .125 s; what is done."""
    policy = Policy(ADAPTIVE)
    for request in range(100, 200):
        policy.handle([Arrived(0.0, request, 4.0)])
        policy.handle([Answered(0.125, request, PRIMARY)])
    policy.handle([CodedWorkers(1.0, 1, collage(4), 0.5, TABLE)])
    policy.handle([Arrived(1.0, request, 5.0) for request in (1, 2, 3, 4)])
    policy._flights.accuracy.left = left
    told = policy.handle([Returned(1.25, 1), Decoded(1.25, 1, {0: 0.25}), Due(1.25, Timer.DEADLINE, 1)])
    return policy, [*exact(action for action in told if getattr(action, "request", None) == 1)]


def test_an_unsure_answer_is_waited_for_if_it_is_paid_and_is_replicated_else() -> None:
    assert unsure_at_the_deadline(2.0)[1] == exact([Straggles(1)])
    assert unsure_at_the_deadline(1.99)[1] == exact([Straggles(1), Send(1, 1)])


def test_patience_that_ends_while_the_budget_is_short_leads_to_a_replica() -> None:
    policy, _ = unsure_at_the_deadline(2.0)
    policy._flights.accuracy.left = 1.99
    assert exact(policy.handle([Due(1.275, Timer.UNSURE, 1)])) == exact([Send(1, 1)])
    assert exact(policy.handle([Due(1.275, Timer.UNSURE, 1)])) == []


def test_the_end_of_patience_is_awaited_even_by_a_sure_answer_that_is_not_paid_yet() -> None:
    policy = Policy(replace(ADAPTIVE, accuracy=1.0, patience=2.0))
    policy._flights.accuracy.left = -4.0
    policy.handle([CodedWorkers(0, 1, collage(4), 0.5, TABLE)])
    policy.handle([Arrived(0.0, request, 4.0) for request in (1, 2, 3, 4)])
    policy.handle([Returned(0.125, 1), Decoded(0.125, 1, {0: 0.75})])
    told = policy.handle([Due(0.25, Timer.DEADLINE, 1)])
    assert exact(told) == exact([Straggles(1), SetTimer(0.5, Timer.UNSURE, 1), Send(1, 1)])
    policy.handle([Arrived(0.375, request, 4.0) for request in range(5, 9)])
    told = policy.handle([Due(0.5, Timer.UNSURE, 1)])
    answer = AnswerCoded(1, 1, 0, True, early=False, cost=0.125)
    assert exact(told) == exact([answer, Cancel(1, 0), Cancel(1, 1)])


def test_an_answer_that_nothing_else_can_give_is_given_on_credit() -> None:
    rules = Rules.named("collage-only", margin=0.125, deadline=0.25, accuracy=0.0)
    policy = Policy(rules)
    policy.handle([CodedWorkers(0, 1, collage(4), 0.0, TABLE)])
    policy.handle([Arrived(0.0, request, 4.0) for request in (1, 2, 3, 4)])
    policy.handle([Returned(0.125, 1), Decoded(0.125, 1, {0: 0.25})])
    told = policy.handle([Due(3.875, Timer.EXPIRY, 1), Due(3.875, Timer.EXPIRY, 2)])
    assert AnswerCoded(1, 1, 0, True, early=False, cost=0.5) in told
    assert Fail(2, expired=True) in told
    assert policy._flights.accuracy.left == -0.5


def test_requests_earn_and_audits_correct_the_table() -> None:
    policy = Policy(replace(ADAPTIVE, accuracy=0.25))
    accuracy = policy._flights.accuracy
    policy.handle([CodedWorkers(0, 1, collage(4), 0.5, TABLE)])
    policy.handle([Arrived(0.0, request, 4.0) for request in (1, 2, 3, 4)])
    assert accuracy.left == 3.0
    policy.handle([Audited(0.0, 0.75, agrees=False)] * 20)
    assert accuracy.scale == 40 / 25
    assert accuracy.cost(0.75) == 0.2


def test_a_frontend_without_a_budget_says_what_its_answers_cost() -> None:
    cluster = four(replace(ADAPTIVE, accuracy=None), -4.0, 0.75)
    assert cluster.ends[1] == ended(0.125, AnswerCoded(1, 1, 0, True, early=True, cost=0.125))
