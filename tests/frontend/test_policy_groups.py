"""Groups and their collages, rule by rule, in virtual time; see test_policy.py for the usual scenario."""

from dataclasses import replace

import pytest

from frontend.policy.events import Answer, AnswerCoded, CancelCoded, Send, SendCoded, SetTimer, Timer
from tests.frontend.virtual import (
    COLLAGE,
    FULL,
    QUICK,
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

# Groups


def test_a_group_still_open_at_the_deadline_is_closed_and_the_straggler_replicated() -> None:
    rules = replace(COLLAGE, group_wait=1.0)
    cluster = Virtual(rules, {(1, 0): None, (1, 1): After(0.5), (2, 0): QUICK}, {1: Seen(0.125)})
    cluster.arrive(1)
    cluster.arrive(2, at=0.1875)
    cluster.run()
    assert cluster.when(sent(1, {0: 1, 1: 2})) == 0.25
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.ends[1] == ended(0.375, AnswerCoded(1, 1, 0, True))


def test_a_nearly_empty_group_is_not_worth_a_collage() -> None:
    cluster = one(COLLAGE, {(1, 0): None, (1, 1): QUICK})
    assert cluster.ordered(SendCoded) == []
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))


def test_at_the_deadline_a_group_stays_open_while_no_collage_worker_is_idle() -> None:
    cluster = Virtual(replace(COLLAGE, group_wait=1.0), {(1, 0): None, (5, 0): None}, {1: None}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4, 5, 6)
    cluster.run()
    assert cluster.ordered(SendCoded) == [FULL]
    assert cluster.when(Send(5, 1)) == 0.25


@pytest.mark.parametrize(("members", "sent_at"), [(1, None), (2, 0.0625), (3, 0.0625)])
def test_a_group_closes_by_timer_if_at_least_half_full(members: int, sent_at: float | None) -> None:
    cluster = Virtual(COLLAGE, usual=QUICK)
    cluster.arrive(*range(1, 1 + members))
    cluster.run()
    assert cluster.when(sent(1, {cell: cell + 1 for cell in range(members)})) == sent_at


def test_an_early_answer_from_a_partial_group() -> None:
    cluster = Virtual(COLLAGE, {(3, 0): None}, {1: Seen(0.125)}, usual=QUICK)
    cluster.arrive(1, 2, 3)
    cluster.run()
    assert cluster.ends[3] == ended(0.25, AnswerCoded(3, 1, 2, True))


@pytest.mark.parametrize("first", [Seen(0.09375), Broken(0.09375)])
def test_an_overdue_group_closes_when_the_collage_worker_is_idle_again(first: Seen | Broken) -> None:
    cluster = Virtual(COLLAGE, collages={1: first}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4, 5, 6)
    cluster.run()
    assert cluster.when(sent(2, {0: 5, 1: 6})) == 0.09375


def test_a_group_that_is_not_overdue_stays_open_when_the_collage_worker_is_idle() -> None:
    cluster = Virtual(COLLAGE, collages={1: Seen(0.03125)}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4, 5, 6)
    cluster.run()
    assert cluster.when(sent(2, {0: 5, 1: 6})) == 0.0625


def test_two_coded_workers_take_two_collages() -> None:
    cluster = Virtual(COLLAGE, collages={1: Seen(0.09375)}, usual=QUICK, workers=2)
    cluster.arrive(1, 2, 3, 4, 5, 6)
    cluster.run()
    assert cluster.when(sent(2, {0: 5, 1: 6})) == 0.0625


def test_a_full_group_is_sent_even_if_the_collage_worker_is_busy() -> None:
    cluster = Virtual(COLLAGE, usual=QUICK)
    cluster.arrive(1, 2, 3, 4, 5, 6, 7, 8)
    cluster.run()
    assert cluster.when(sent(2, {0: 5, 1: 6, 2: 7, 3: 8})) == 0


def test_a_group_is_not_closed_early_while_the_budget_does_not_allow_its_collage() -> None:
    replies: Replies = {(5, 0): After(0.5), (6, 0): After(0.5)}
    cluster = Virtual(replace(COLLAGE, extra_load=0.125), replies, {1: Seen(0.03125)}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4)  # 1.5 tokens, and 0.5 after its collage
    cluster.arrive(5, 6, at=0.0625)  # 0.75: stays open at 0.125
    cluster.arrive(7, 8, at=0.1875)  # 1.0
    cluster.run()
    assert cluster.when(sent(2, {0: 5, 1: 6, 2: 7, 3: 8})) == 0.1875


def test_a_request_that_ends_while_its_group_is_open_frees_its_cell() -> None:
    cluster = Virtual(replace(COLLAGE, group_wait=1.0), {(1, 0): After(0.03125)}, {1: Seen(0.0625)}, usual=After(0.5))
    cluster.arrive(1, 2, 3)
    cluster.arrive(4, 5, at=0.0625)
    cluster.run()
    assert cluster.ordered(SendCoded) == [sent(1, {1: 2, 2: 3, 0: 4, 3: 5})]
    assert cluster.ends[4] == ended(0.3125, AnswerCoded(4, 1, 0, True))


def test_a_group_whose_members_all_end_is_gone() -> None:
    cluster = Virtual(COLLAGE, usual=After(0.03125))
    cluster.arrive(1, 2)
    cluster.arrive(3, 4, at=0.046875)  # another group: the timer of the first, at 0.0625, does not close it
    cluster.run()
    assert cluster.ordered(SendCoded) == []
    closing = [timer.id for timer in cluster.ordered(SetTimer) if timer.timer is Timer.CLOSE]
    assert closing == [1, 2]


# Collages


def test_a_collage_is_cancelled_as_soon_as_every_member_has_its_answer_and_not_before() -> None:
    cluster = four(COLLAGE, {(3, 0): After(0.1875)}, Seen(0.5))
    assert cluster.when(CancelCoded(1)) == 0.1875


def test_a_collage_that_is_back_is_not_cancelled() -> None:
    assert four(COLLAGE, {(1, 0): None}, Seen(0.0625)).ordered(CancelCoded) == []


def test_a_cancelled_collage_leaves_its_worker_idle() -> None:
    cluster = Virtual(COLLAGE, usual=QUICK)
    cluster.arrive(1, 2, 3, 4)
    cluster.arrive(5, 6, at=0.125)
    cluster.run()
    assert cluster.when(CancelCoded(1)) == 0.125
    assert cluster.when(sent(2, {0: 5, 1: 6})) == 0.1875


@pytest.mark.parametrize("after", [0.1875, 0.3125])
def test_a_collage_that_fails_leaves_its_stragglers_to_their_replicas(after: float) -> None:
    cluster = four(COLLAGE, {(1, 0): After(0.5), (1, 1): QUICK}, Broken(after))
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))
    assert cluster.ordered(CancelCoded) == []
    assert len(cluster.ordered(Send)) == 5


def test_without_coded_workers_there_are_no_groups() -> None:
    cluster = Virtual(COLLAGE, {(1, 0): None}, usual=QUICK, workers=0, cells=0)
    cluster.arrive(1, 2, 3, 4)
    cluster.run()
    assert cluster.ordered(SendCoded) == []
    assert cluster.when(Send(1, 1)) == 0.25


def test_groups_begin_when_a_collage_worker_appears() -> None:
    cluster = Virtual(COLLAGE, usual=QUICK, workers=0, cells=0)
    cluster.arrive(1, 2)
    cluster.coded_workers(1, collage(4), at=0.0625)
    cluster.arrive(3, 4, 5, 6, at=0.0625)
    cluster.run()
    assert cluster.ordered(SendCoded) == [sent(1, {0: 3, 1: 4, 2: 5, 3: 6})]


@pytest.mark.parametrize("cells", [0, 4])
def test_no_collage_is_sent_once_the_workers_have_disappeared(cells: int) -> None:
    cluster = Virtual(COLLAGE, {(1, 0): After(0.5)}, usual=QUICK)
    cluster.arrive(1, 2, 3)
    cluster.coded_workers(0, collage(cells), at=0.03125)
    cluster.arrive(4, at=0.0625)
    cluster.run()
    assert cluster.ordered(SendCoded) == []
    assert cluster.when(Send(1, 1)) == 0.25


def test_when_the_grid_changes_open_groups_dissolve_and_new_ones_have_the_new_size() -> None:
    cluster = Virtual(COLLAGE, usual=QUICK)
    cluster.arrive(1, 2, 3)
    cluster.coded_workers(1, collage(9), at=0.03125)
    cluster.arrive(*range(11, 20), at=0.046875)
    cluster.run()
    assert cluster.ordered(SendCoded) == [sent(2, {cell: 11 + cell for cell in range(9)}, collage(9))]


def test_when_the_grid_changes_collages_in_flight_still_count() -> None:
    cluster = Virtual(COLLAGE, {(1, 0): None}, {1: Seen(0.1875)}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4)
    cluster.coded_workers(1, collage(9), at=0.0625)
    cluster.run()
    assert cluster.ends[1] == ended(0.25, AnswerCoded(1, 1, 0, True))
