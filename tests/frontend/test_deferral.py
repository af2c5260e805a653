"""Which requests a scarce budget helps, and when: the price of a token, and groups of those that are worth it."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from encoder.code import GroupShape
from frontend.policy.budget import Budget
from frontend.policy.deferral import ALONE, Deferral
from frontend.policy.events import Send, SendCoded, SetTimer, Timer
from frontend.policy.quantile import RunningQuantile
from frontend.policy.rules import Rules
from tests.frontend.virtual import After, Seen, Virtual

NINE, FOUR, PAIR = GroupShape(9, 1, 1, 5), GroupShape(4, 1, 1, 2), GroupShape(2, 1, 2, 2)
FAST, SLOW, RUN = 0.125, 0.75, 0.125


def deferral(rate: float, shape: GroupShape = NINE, slow: int = 2, fast: float = FAST, run: float = RUN) -> Deferral:
    """As after 3,200 requests, of which ``slow`` in a hundred took ``SLOW`` seconds."""
    latency = RunningQuantile(0.95, 0.25)
    found = Deferral(True, Budget(rate), latency)
    found.sell(shape, shape)
    found.earn(0.0)
    for request in range(3200):
        latency.finished(SLOW if request % 100 < slow else fast)
    found.update(10.0, run)
    return found


def near(seconds: float) -> object:
    return pytest.approx(seconds, rel=0.04)  # bins are 2 % wide


@pytest.mark.parametrize("age", [0.01, 0.1, 0.2, 0.4])
def test_help_is_worth_what_it_takes_off_the_square_of_a_latency(age: float) -> None:
    """Of a hundred requests two are slow; from .125 s on only these are unanswered."""
    found, likely = deferral(0.02), 0.02 if age < FAST else 1.0
    assert found.worth(age) == pytest.approx(likely * (SLOW**2 - (age + RUN) ** 2), rel=0.06)


def test_help_that_comes_after_the_answer_is_worth_nothing() -> None:
    assert deferral(0.02).worth(0.7) == 0.0


def test_a_request_older_than_all_that_were_seen_is_worth_the_most() -> None:
    found = deferral(0.02)
    assert found.worth(5.0) == found.worth(90.0) == near(SLOW**2 - (FAST + RUN) ** 2)


def test_an_age_that_is_nearly_never_reached_is_worth_the_most() -> None:
    """One slow answer that came before 8,000 quick ones."""
    latency = RunningQuantile(0.95, 0.25)
    found = Deferral(True, Budget(0.02), latency)
    found.earn(0.0)
    for seconds in (SLOW, *[FAST] * 8000):
        latency.finished(seconds)
    found.update(10.0, RUN)
    assert found.worth(0.2) == found.worth(0.5) == found.worth(90.0) > 0


def test_requests_that_were_helped_would_have_taken_twice_the_longest_time_seen() -> None:
    latency = RunningQuantile(0.95, 0.25)
    found = Deferral(True, Budget(0.02), latency)
    found.earn(0.0)
    for request in range(3200):
        (latency.finished if request % 50 else latency.cut_off)(FAST if request % 50 else SLOW / 2)
    found.update(10.0, RUN)
    assert found.worth(0.2) == pytest.approx(SLOW**2 - (0.2 + RUN) ** 2, rel=0.08)


def test_a_run_of_which_nothing_is_known_takes_as_long_as_half_of_all_answers() -> None:
    assert deferral(0.02, run=0.0).worth(0.4) == pytest.approx(deferral(0.02).worth(0.4), rel=0.03)


def test_a_group_is_worth_the_sum_of_its_members() -> None:
    found = deferral(0.02)
    while found.pays([0.2, 0.2], NINE):
        found.spend()
    assert found.pays([0.2, 0.2, 0.2], NINE)
    assert found.pays([0.2, 0.2, *[0.01] * 7], NINE)
    assert not found.pays([0.2, *[0.01] * 8], NINE)


def test_a_group_costs_the_price_of_all_its_tokens() -> None:
    found = deferral(0.02, GroupShape(4, 2, 4, 4))
    while found.pays([0.2], GroupShape(4, 2, 4, 4)):
        found.spend()
    assert found.pays([0.2])
    assert not found.pays([0.2], GroupShape(4, 2, 4, 4))
    assert found.pays([0.2, 0.2], GroupShape(4, 2, 4, 4))


def test_the_smaller_the_budget_the_later_requests_join() -> None:
    joins = [deferral(rate, slow=30).joins_after() for rate in (0.1, 0.04, 0.02, 0.005)]
    assert joins[:2] == [0.0, 0.0], "where nine requests in ten have a group, or three in ten are slow"
    assert [near(FAST)] * 2 == joins[2:]


def test_requests_join_where_they_are_worth_their_share_of_a_group() -> None:
    found = deferral(0.02)
    for _ in range(100):
        found.spend()
    joins = found.joins_after()
    assert found.worth(joins * 1.03) >= 0.9 * found.worth(0.15)
    assert not found.pays([joins * 0.9] * 9, NINE)


def test_the_price_rises_with_tokens_asked_for_though_the_budget_has_none() -> None:
    found = deferral(0.02)
    assert found.pays([0.2, 0.2], NINE)
    assert sum(found.spend() for _ in range(100)) == 11, "what the budget has, and a debt of ten"
    for _ in range(100):
        assert not found.spend()
    assert not found.pays([0.2, 0.2], NINE)


def test_the_price_rises_with_each_token_of_a_group() -> None:
    one, two = deferral(0.02), deferral(0.02)
    one.spend()
    one.spend()
    two.spend(2)
    assert one._price == pytest.approx(two._price)


@pytest.mark.parametrize("requests", [50, 10])
def test_the_price_stays_where_as_much_is_spent_as_is_earned(requests: int) -> None:
    found = deferral(1 / requests, PAIR)
    before = found._price
    for _ in range(10):
        for _ in range(requests):
            found.earn(0.0)
        found.spend()
    assert found._price == pytest.approx(before, rel=0.01)


def test_the_price_outlasts_a_look_at_the_latencies() -> None:
    found = deferral(0.02)
    for _ in range(20):
        found.spend()
    before = found._price
    for _ in range(64):
        found._latency.finished(FAST)
    found.update(20.0, RUN)
    assert found._price == before


def test_the_price_falls_with_every_request() -> None:
    found = deferral(0.02)
    for _ in range(100):
        found.spend()
    for _ in range(5500):
        found.earn(0.0)
    assert found.pays([0.2] * 9, NINE)


def test_the_price_stays_within_reach() -> None:
    found = deferral(0.02)
    for _ in range(10_000):
        found.spend()
    assert found.joins_after() == near(FAST), "nobody is ever worth more"
    for _ in range(64):
        found._latency.finished(FAST)
    found.update(20.0, RUN)
    assert found._price == pytest.approx(2.0 * 9 * max(found._worth))
    for _ in range(30_000):
        found.earn(20.0)
    for _ in range(64):
        found._latency.finished(FAST)
    found.update(30.0, RUN)
    assert found._price == pytest.approx(0.001 * 9 * max(found._worth))


def test_nothing_is_known_before_slow_answers_can_have_come() -> None:
    latency = RunningQuantile(0.95, 0.25)
    found = Deferral(True, Budget(0.02), latency)
    found.sell(NINE, NINE)
    found.earn(5.0)
    found.earn(5.0 + 2 * FAST)
    for _ in range(64):
        latency.finished(FAST)
    found.update(5.0 + 9 * FAST, RUN)
    assert not found.known
    assert found.pays([0.0])
    latency.finished(SLOW)
    for _ in range(64):
        latency.finished(FAST)
    found.update(5.0 + 11 * FAST, RUN)
    assert found.known


def test_where_all_answers_take_equally_long_help_is_worth_nothing() -> None:
    assert deferral(0.02, slow=0).worth(0.1) == 0.0


@pytest.mark.parametrize(
    ("allowed", "rate", "shape", "active"),
    [(True, 0.1, NINE, True), (True, 0.11, NINE, False), (True, 0.2, None, True), (True, 0.0, NINE, False),
     (False, 0.02, NINE, False), (True, 0.47, PAIR, True), (True, 0.48, PAIR, False)],
)  # fmt: skip
def test_tokens_have_a_price_where_the_budget_does_not_pay_for_every_group(
    allowed: bool, rate: float, shape: GroupShape | None, active: bool
) -> None:
    found = Deferral(allowed, Budget(rate), RunningQuantile(0.95, 0.25))
    found.sell(shape, shape or ALONE)
    assert found.active is active


# The policy with it


COUNT, KNOWN, RATE = 3000, 1000, 50


@functools.cache
def cluster(extra_load: float, shape: GroupShape = FOUR, workers: int = 8, confidence: float = 1.0) -> Virtual:
    """What came of fifty requests a second, of which every fiftieth takes ``SLOW`` seconds; runs take ``RUN``."""
    found = Virtual(
        Rules.named("adaptive", deadline=0.25, extra_load=extra_load),
        {(request, 0): After(SLOW) for request in range(0, COUNT, RATE)},
        dict.fromkeys(range(1, COUNT), Seen(RUN, dict.fromkeys(range(shape.members), confidence))),
        usual=After(FAST),
        workers=workers,
        shape=shape,
    )
    for request in range(COUNT):
        found.arrive(request, at=request / RATE)
    return found.run()


def groups(found: Virtual) -> list[list[float]]:
    """How old the members of each group were when it was closed; of later groups, when enough is known."""
    return [
        sorted(at - request / RATE for request in action.members.values())
        for at, action in found.log
        if isinstance(action, SendCoded) and min(action.members.values()) > KNOWN
    ]


def again(found: Virtual) -> set[int]:
    """Requests that were sent more than once."""
    return {send.request for send in found.ordered(Send) if send.attempt}


LATER = range(KNOWN, COUNT, RATE)  # slow ones


@pytest.mark.parametrize("extra_load", [0.01, 0.02, 0.1])
def test_the_extra_load_is_that_of_the_budget_if_so_much_is_of_use(extra_load: float) -> None:
    found = cluster(extra_load)
    spent = len(found.ordered(SendCoded)) + sum(send.attempt > 0 for send in found.ordered(Send))
    assert spent <= extra_load * COUNT + 11, "and a debt of ten"
    assert spent >= 0.85 * extra_load * COUNT


def test_requests_join_when_they_are_worth_it_and_not_before() -> None:
    joins = [t.at - t.id / RATE for t in cluster(0.02).ordered(SetTimer) if t.timer is Timer.JOIN and t.id > KNOWN]
    assert min(joins) > 0.9 * FAST
    oldest = [group[-1] for group in groups(cluster(0.02))]
    assert min(oldest) > 0.9 * FAST
    assert max(oldest) < 2 * FAST


def test_places_that_are_left_go_to_the_oldest_that_are_unanswered() -> None:
    for group in groups(cluster(0.02)):
        assert len(group) == 4, "six others are under way"
        assert group[0] == pytest.approx(group[-1] - 3 / RATE, abs=0.2 / RATE)


def test_stragglers_are_answered_from_the_code_and_others_by_themselves() -> None:
    found = cluster(0.02)
    slow = [found.ends[request] for request in LATER]
    assert sum(kind == "AnswerCoded" for _, kind, _ in slow) > 0.8 * len(slow)
    assert np.median([at - request / RATE for request, (at, _, _) in zip(LATER, slow, strict=True)]) < 0.3
    assert all(found.ends[request][0] - request / RATE == pytest.approx(FAST) for request in range(1001, 1050))


def test_members_of_a_group_that_cannot_be_paid_join_again() -> None:
    joined = [timer.id for timer in cluster(0.004).ordered(SetTimer) if timer.timer is Timer.JOIN]
    assert len(joined) > len(set(joined))


def test_without_redundant_workers_the_budget_goes_to_replicas_of_stragglers() -> None:
    found = cluster(0.02, workers=0)
    assert not found.ordered(SendCoded)
    assert again(found) <= set(range(0, COUNT, RATE))
    assert len(again(found)) > 30


def test_an_unsure_straggler_is_replicated_where_that_is_worth_a_token() -> None:
    found = cluster(0.2, confidence=0.1)
    assert len(again(found) & set(LATER)) > 0.8 * len(LATER)


def test_a_group_whose_code_needs_all_others_is_filled_with_the_latest() -> None:
    found = cluster(0.02, PAIR)
    assert {len(action.members) for action in found.ordered(SendCoded)} == {2}
    assert np.median([old - young for young, old in groups(found)]) > 3 / RATE, "these have their own answers soon"
