"""The budget of errors: what coded answers cost, who may spend, and what audits change."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.policy.accuracy import Accuracy, ErrorStep

TABLE = (ErrorStep(0.0, 0.375, 0.125, 0.75), ErrorStep(0.5, 0.125, 0.0625, 0.25), ErrorStep(0.75, 0.0, 0.03125, 0.0625))


def bounded(rate: float = 0.25, steps: tuple[ErrorStep, ...] = TABLE, left: float | None = None) -> Accuracy:
    accuracy = Accuracy(rate)
    accuracy.use(steps)
    if left is not None:
        accuracy.left = left
    return accuracy


@pytest.mark.parametrize(
    ("confidence", "cost"),
    [(0.0, 0.5), (0.49, 0.5), (0.5, 0.1875), (0.74, 0.1875), (0.75, 0.03125), (1.0, 0.03125)],
)
def test_an_answer_costs_one_standard_error_more_than_the_table_says(confidence: float, cost: float) -> None:
    assert bounded().cost(confidence) == cost


def test_an_answer_never_costs_more_than_one_error() -> None:
    assert bounded(steps=(ErrorStep(0.0, 0.9, 0.2, 1.0),)).cost(0.5) == 1


@pytest.mark.parametrize("early", [False, True])
def test_without_a_budget_every_answer_is_paid_and_its_cost_is_known(early: bool) -> None:
    accuracy = Accuracy(None)
    accuracy.use(TABLE)
    assert accuracy.pays(0.0, early=early)
    assert [accuracy.spend(0.0) for _ in range(100)] == [0.5] * 100
    assert accuracy.pays(0.0, early=early)


@pytest.mark.parametrize("early", [False, True])
def test_without_a_table_every_answer_is_paid_and_costs_nothing(early: bool) -> None:
    accuracy = bounded(0.0, ())
    assert accuracy.pays(0.0, early=early)
    assert accuracy.spend(0.0) == 0


@pytest.mark.parametrize(
    ("left", "straggler", "early"),
    [
        (4.0, 0.0, 0.0),  # from which confidence on an answer is given
        (3.99, 0.0, 0.5),
        (2.75, 0.0, 0.5),
        (2.74, 0.0, 0.75),
        (2.125, 0.0, 0.75),
        (2.124, 0.0, None),
        (1.99, 0.5, None),
        (0.75, 0.5, None),
        (0.74, 0.75, None),
        (0.125, 0.75, None),
        (0.124, None, None),
        (-1.0, None, None),
    ],
)
def test_early_answers_stop_first_then_the_less_sure_ones_of_stragglers(
    left: float, straggler: float | None, early: float | None
) -> None:
    accuracy = bounded(left=left)

    def least(early: bool) -> float | None:
        paid = [step.confidence for step in TABLE if accuracy.pays(step.confidence, early=early)]
        assert paid == [step.confidence for step in TABLE][len(TABLE) - len(paid) :], "surer answers are paid as well"
        return paid[0] if paid else None

    assert (least(early=False), least(early=True)) == (straggler, early)


def test_an_answer_that_costs_nothing_is_always_paid() -> None:
    free = (ErrorStep(0.0, 0.0, 0.0, 0.0),)
    for left in (-4.0, 0.0, 1.0):
        assert bounded(steps=free, left=left).pays(0.5, early=True)


def test_requests_earn_the_budget_up_to_a_burst() -> None:
    accuracy = bounded(0.25)
    assert accuracy.left == 2, "half of the burst is there at the start"
    accuracy.earn()
    assert accuracy.left == 2.25
    for _ in range(100):
        accuracy.earn()
    assert accuracy.left == accuracy.most == 4


def test_a_budget_of_nothing_pays_for_nothing() -> None:
    accuracy = bounded(0.0)
    accuracy.earn()
    assert accuracy.left == 0
    assert not accuracy.pays(1.0)


def test_answers_that_have_to_be_given_lead_into_a_debt_that_is_bounded() -> None:
    accuracy = bounded(0.25, left=0.25)
    assert accuracy.spend(0.0) == 0.5
    assert accuracy.left == -0.25
    for _ in range(100):
        accuracy.spend(0.0)
    assert accuracy.left == -4


# Audits


def test_audits_that_agree_with_the_table_change_nothing() -> None:
    accuracy = bounded()
    for turn in range(64):
        accuracy.audited(0.5, agrees=turn % 4 > 0)
    assert accuracy.scale == 1


def test_audits_scale_what_answers_cost_and_few_of_them_hardly_do() -> None:
    accuracy = bounded()
    accuracy.audited(0.5, agrees=False)
    assert accuracy.scale == 21 / 20.25, "the table weighs as much as 20 disagreements"
    for _ in range(79):
        accuracy.audited(0.5, agrees=False)
    assert accuracy.scale == 100 / 40
    assert accuracy.cost(0.5) == 0.1875 * 2.5
    assert accuracy.cost(0.0) == 1.0


def test_answers_get_cheaper_where_audits_find_fewer_differences() -> None:
    accuracy = bounded()
    for _ in range(80):
        accuracy.audited(0.6, agrees=True)
    assert accuracy.scale == 0.5
    assert accuracy.cost(0.75) == 0.03125 / 2


def test_what_audits_found_is_forgotten_by_halves() -> None:
    accuracy = bounded()
    for _ in range(200):
        accuracy.audited(0.5, agrees=False)
    assert accuracy.scale == 220 / 70
    accuracy.audited(0.5, agrees=False)  # the 201st
    assert accuracy.scale == pytest.approx((20 + 201 / 2) / (20 + 201 / 8))


def test_the_audits_of_another_table_are_forgotten_and_those_of_the_same_are_kept() -> None:
    accuracy = bounded()
    accuracy.audited(0.5, agrees=False)
    accuracy.use(tuple(TABLE))
    assert accuracy.scale > 1
    accuracy.use(TABLE[:2])
    assert accuracy.scale == 1


def test_audits_without_a_table_say_nothing() -> None:
    accuracy = bounded(steps=())
    accuracy.audited(0.5, agrees=False)
    assert accuracy.scale == 1


# Whatever happens


@settings(max_examples=200, deadline=None)
@given(
    rate=st.sampled_from([0.0, 0.0005, 0.01, 0.125]),
    events=st.lists(
        st.one_of(
            st.integers(1, 400),  # requests
            st.tuples(st.sampled_from([0.1, 0.6, 0.9]), st.booleans()),  # an answer of this confidence, early or not
            st.booleans(),  # an audit
        ),
        max_size=300,
    ),
)
def test_what_is_spent_never_exceeds_what_was_earned_and_a_burst(
    rate: float, events: list[int | tuple[float, bool]]
) -> None:
    accuracy = bounded(rate)
    balance = [0.0]  # earned less spent, since the start
    for event in events:
        if isinstance(event, tuple):
            confidence, early = event
            if accuracy.pays(confidence, early=early):
                before = accuracy.left
                assert not early or before >= accuracy.most / 2
                balance.append(-accuracy.spend(confidence))
                assert accuracy.left >= 0, "into debt by choice"
                assert not early or accuracy.left >= accuracy.most / 2, "early answers took what is kept for stragglers"
        elif isinstance(event, bool):
            accuracy.audited(0.6, agrees=event)
        else:
            for _ in range(event):
                accuracy.earn()
            balance.append(rate * event)
    highest = 0.0
    for total in accumulate(balance):
        highest = max(highest, total)
        assert highest - total <= accuracy.most + 1e-6, "more than a burst beyond what was earned meanwhile"
