"""Failures and the budget, rule by rule, in virtual time; see test_policy.py for the usual scenario."""

from dataclasses import replace

import pytest

from frontend.policy.budget import Budget
from frontend.policy.events import (
    Answer,
    AnswerCoded,
    Arrived,
    Cancel,
    CodedWorkers,
    Fail,
    Failed,
    Returned,
    Send,
    SendCoded,
    Straggles,
)
from frontend.policy.machine import Policy
from frontend.policy.rules import Rules
from tests.frontend.virtual import (
    CAREFUL,
    COLLAGE,
    FULL,
    NONE,
    QUICK,
    REPLICATE,
    After,
    Broken,
    Replies,
    Seen,
    Virtual,
    collage,
    ended,
    four,
    one,
    sent,
)

# Failures


@pytest.mark.parametrize("unreachable", [True, False])
@pytest.mark.parametrize("rules", [REPLICATE, COLLAGE, replace(REPLICATE, extra_load=0.0)])
def test_a_failure_is_a_straggler_whose_deadline_is_now(rules: Rules, unreachable: bool) -> None:
    cluster = one(rules, {(1, 0): Broken(0.0625, unreachable), (1, 1): After(0.5)})
    assert cluster.when(Straggles(1)) == 0.0625
    assert cluster.when(Send(1, 1)) == 0.0625
    assert cluster.ends[1] == ended(0.5625, Answer(1, 1))
    assert len(cluster.ordered(Send)) == 2
    assert cluster.ordered(Cancel) == []


def test_a_failure_takes_the_coded_answer_that_is_there() -> None:
    cluster = four(COLLAGE, {(1, 0): Broken(0.125)}, Seen(0.0625))
    assert cluster.ends[1] == ended(0.125, AnswerCoded(1, 1, 0, True))
    assert len(cluster.ordered(Send)) == 4


def test_a_failure_closes_the_open_group() -> None:
    cluster = Virtual(replace(COLLAGE, group_wait=1.0), {(1, 0): Broken(0.0625)}, {1: Seen(0.0625)})
    cluster.arrive(1, 2)
    cluster.run()
    assert cluster.when(sent(1, {0: 1, 1: 2})) == 0.0625
    assert cluster.ends[1] == ended(0.125, AnswerCoded(1, 1, 0, True))


def test_a_replica_that_fails_leaves_the_first_copy_running() -> None:
    cluster = one(REPLICATE, {(1, 0): After(0.5), (1, 1): Broken(0.0625)})
    assert cluster.ends[1] == ended(0.5, Answer(1, 0))
    assert len(cluster.ordered(Send)) == 2


def test_when_every_copy_has_failed_another_is_sent_until_the_attempts_are_used_up() -> None:
    cluster = one(REPLICATE, {(1, 0): Broken(0.5), (1, 1): Broken(0.0625), (1, 2): Broken(0.25)})
    assert cluster.when(Send(1, 2)) == 0.5
    assert cluster.ends[1] == ended(0.75, Fail(1, expired=False))
    assert cluster.ordered(Send) == [Send(1, 0), Send(1, 1), Send(1, 2)]


def test_one_attempt_is_one_attempt() -> None:
    cluster = one(replace(REPLICATE, attempts=1), {(1, 0): Broken(0.5)})
    assert cluster.ordered(Send) == [Send(1, 0)]
    assert cluster.ends[1] == ended(0.5, Fail(1, expired=False))


ALL_BROKEN: Replies = {(1, 0): Broken(0.0625), (1, 1): Broken(0.0625), (1, 2): Broken(0.0625)}


@pytest.mark.parametrize("confidence", [1.0, 0.25])
def test_when_every_attempt_has_failed_the_collage_in_flight_is_awaited(confidence: float) -> None:
    cluster = four(CAREFUL, ALL_BROKEN, Seen(0.5, {0: confidence}))
    assert cluster.ends[1] == ended(0.5, AnswerCoded(1, 1, 0, confidence >= 0.5))


@pytest.mark.parametrize("collage", [Seen(0.5, {1: 1.0}), Broken(0.5)])
def test_when_the_collage_is_no_use_either_the_request_fails(collage: Seen | Broken) -> None:
    assert four(CAREFUL, ALL_BROKEN, collage).ends[1] == ended(0.5, Fail(1, expired=False))


def test_when_every_attempt_has_failed_an_unsure_coded_answer_is_taken() -> None:
    assert four(CAREFUL, ALL_BROKEN, Seen(0.125, {0: 0.25})).ends[1] == ended(0.1875, AnswerCoded(1, 1, 0, False))


def test_policy_none_retries_once_what_never_ran() -> None:
    cluster = one(NONE, {(1, 0): Broken(0.5), (1, 1): QUICK})
    assert cluster.when(Send(1, 1)) == 0.5
    assert cluster.ends[1] == ended(0.625, Answer(1, 1))
    assert cluster.ordered(Straggles) == []
    cluster = one(NONE, {(1, 0): Broken(0.5), (1, 1): Broken(0.125)})
    assert cluster.ends[1] == ended(0.625, Fail(1, expired=False))


def test_policy_none_does_not_retry_what_may_have_run() -> None:
    cluster = one(NONE, {(1, 0): Broken(0.5, unreachable=False)})
    assert cluster.ordered(Send) == [Send(1, 0)]
    assert cluster.ends[1] == ended(0.5, Fail(1, expired=False))


# The budget


def test_one_budget_covers_collages_and_replicas() -> None:
    cluster = Virtual(replace(COLLAGE, extra_load=0.25), {(1, 0): None, (2, 0): After(0.5)}, {1: None}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4)  # two tokens: one for the collage, one for the first replica
    cluster.run()
    assert cluster.when(FULL) == 0
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.when(Send(2, 1)) is None
    assert cluster.ends[2] == ended(0.5, Answer(2, 0))


def test_a_full_group_without_a_budget_gets_no_collage_and_its_stragglers_are_replicated() -> None:
    replies: Replies = {(5, 0): None, (5, 1): QUICK} | {(request, 0): After(0.015625) for request in range(9, 17)}
    cluster = Virtual(replace(COLLAGE, extra_load=0.0625), replies, usual=QUICK)
    cluster.arrive(*range(1, 9))  # 1.25 tokens for the first group, 0.5 for the second
    for request in range(9, 17):
        cluster.arrive(request, at=(request - 8) / 32)
    cluster.run()
    assert cluster.ordered(SendCoded) == [FULL]
    assert cluster.when(Send(5, 1)) == 0.25
    assert cluster.ends[5] == ended(0.375, Answer(5, 1))


def test_a_collage_back_without_a_sure_answer_tries_again_for_a_replica_that_had_no_budget() -> None:
    rules = replace(COLLAGE, extra_load=0.125)
    cluster = Virtual(rules, {(1, 0): None, (1, 1): QUICK}, {1: Broken(0.375)}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4)  # 1.5 tokens: the collage
    cluster.arrive(5, 6, 7, at=0.1875)  # 0.875: no replica at the deadline
    cluster.arrive(8, at=0.3125)  # 1.0; the others of its group have just had their answers
    cluster.run()
    assert cluster.when(Send(1, 1)) == 0.375
    assert cluster.ends[1] == ended(0.5, Answer(1, 1))


def test_without_a_budget_nothing_is_redundant_but_failures_are_sent_again() -> None:
    rules = replace(COLLAGE, extra_load=0.0)
    cluster = Virtual(rules, {(1, 0): After(0.5), (2, 0): Broken(0.0625)}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4)
    cluster.run()
    assert cluster.ordered(SendCoded) == []
    assert cluster.when(Send(1, 1)) is None
    assert cluster.when(Send(2, 1)) == 0.0625


def test_a_budget_earns_at_its_rate_up_to_its_burst() -> None:
    budget = Budget(rate=0.25, most=2.0)
    assert budget.spend()  # one to begin with
    for _ in range(4):
        assert not budget.spend()
        budget.earn()
    assert budget.spend()
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]


def test_many_small_earnings_add_up_in_spite_of_rounding() -> None:
    budget = Budget(rate=0.1)
    budget.spend()
    for _ in range(10):
        budget.earn()
    assert budget.spend()


def test_forced_spending_goes_into_debt_but_not_for_ever() -> None:
    budget = Budget(rate=1.0, most=2.0)
    assert budget.spend()
    assert budget.spend(force=True)
    budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()
    for _ in range(1000):  # an outage: every request is sent again and again
        assert budget.spend(force=True)
    for _ in range(3):
        assert not budget.spend()
        budget.earn()
    assert budget.spend()


# What is never sent


def test_a_replica_that_found_no_worker_costs_nothing() -> None:
    policy = Policy(replace(REPLICATE, extra_load=1.0))
    policy.handle([Arrived(0.0, 1, 4.0)])
    tokens = policy.budget.tokens
    policy.handle([Failed(0.0, 1, 0, sent=False)])
    assert policy.budget.tokens == tokens - 1
    policy.handle([Failed(0.0, 1, 1, sent=False)])
    assert policy.budget.tokens == tokens - 1, "one token came back, and a last attempt took it"
    policy.handle([Failed(0.0, 1, 2, sent=False)])
    assert policy.budget.tokens == tokens


def test_a_collage_that_found_no_worker_costs_nothing() -> None:
    policy = Policy(COLLAGE)
    policy.handle([CodedWorkers(0.0, 1, collage(4))])
    policy.handle([Arrived(0.0, request, 4.0) for request in range(3)])
    tokens = policy.budget.tokens
    assert sent(1, {cell: cell for cell in range(4)}) in policy.handle([Arrived(0.0, 3, 4.0)])
    policy.handle([Returned(0.0, 1, ok=False, sent=False)])
    assert policy.budget.tokens == tokens + COLLAGE.extra_load


@pytest.mark.parametrize("unreachable", [True, False])
def test_without_replicas_a_request_that_never_ran_is_sent_once_more_where_no_collage_can_answer_it(
    unreachable: bool,
) -> None:
    rules = replace(COLLAGE, replica=False)
    cluster = one(rules, {(1, 0): Broken(0.0625, unreachable), (1, 1): After(0.25)})
    if unreachable:
        assert cluster.ends[1] == ended(0.3125, Answer(1, 1))
    else:
        assert cluster.ends[1] == ended(0.0625, Fail(1, expired=False))
    covered = four(rules, {(1, 0): Broken(0.0625)}, Seen(0.125))
    assert covered.ends[1] == ended(0.125, AnswerCoded(1, 1, 0, True))
    assert len(covered.ordered(Send)) == 4


def test_the_second_try_without_replicas_is_free_and_so_is_its_failure() -> None:
    policy = Policy(replace(COLLAGE, replica=False, extra_load=0.125))
    policy.handle([Arrived(0.0, 1, 4.0)])
    tokens = policy.budget.tokens
    assert policy.handle([Failed(0.0, 1, 0, sent=False)])[-1] == Send(1, 1)
    assert policy.handle([Failed(0.0, 1, 1, sent=False)])[-1] == Fail(1, expired=False)
    assert policy.budget.tokens == tokens


def test_nothing_comes_back_of_what_the_deepest_debt_did_not_take() -> None:
    budget = Budget(0.0, most=2.0)
    for _ in range(5):
        budget.spend(force=True)
        budget.give_back()
    assert budget.tokens == 0.0
    for _ in range(5):
        budget.spend(force=True)
    budget.spend(force=True)
    budget.give_back()
    assert budget.tokens == -2.0


def test_a_caller_in_a_hurry_keeps_three_quarters_of_its_time() -> None:
    rules = Rules.named("none")
    assert rules.time_to_answer(10.0) == 10.0 - rules.margin
    assert rules.time_to_answer(0.0625) == 0.046875


def test_no_more_is_given_back_than_a_burst_holds_nor_what_a_bounded_debt_never_took() -> None:
    budget = Budget(1.0)
    for _ in range(20):
        budget.earn()
    budget.give_back()
    assert budget.tokens == 10
    for _ in range(30):
        budget.spend(force=True)
    budget.give_back()
    assert budget.tokens == -10
