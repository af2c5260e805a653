"""The rules of the policy, one by one, in virtual time.

Unless a test says otherwise: the deadline is at 0.25 s, collages have 2 x 2 cells, requests 1 to 4 arrive at 0 and so
fill group 1 (request i in cell i - 1), the first copies of 2, 3 and 4 answer at 0.125, and the budget is ample.
"""

from dataclasses import replace

import pytest

from frontend.policy import (
    Answer,
    AnswerCoded,
    Answered,
    Arrived,
    Budget,
    Cancel,
    CancelCollage,
    CollageFailed,
    CollageWorkers,
    Decoded,
    Due,
    Event,
    Fail,
    Failed,
    Gone,
    Policy,
    Rules,
    Send,
    SendCollage,
    SetTimer,
    Straggles,
    Timer,
)
from tests.frontend.virtual import Broken, Cluster, Reply, Seen, ended, exact

NONE = Rules.named("none", margin=0.125)
REPLICATE = Rules.named("replicate", extra_load=1.0, margin=0.125)
COLLAGE = Rules.named("collage", extra_load=1.0, margin=0.125, group_wait=0.0625)
CAREFUL = replace(COLLAGE, accept=0.5)

Replies = dict[tuple[int, int], Reply | Broken | None]
FULL = SendCollage(1, {0: 1, 1: 2, 2: 3, 3: 4})
QUICK = Reply(0.125)


def one(rules: Rules, replies: Replies, *, timeout: float = 4.0) -> Cluster:
    """One request, in no group that could help it."""
    cluster = Cluster(rules, replies)
    cluster.arrive(1, timeout=timeout)
    return cluster.run()


def four(
    rules: Rules, replies: Replies, collage: Seen | Broken | None, *, timeout: float = 4.0, hang_up: float | None = None
) -> Cluster:
    """A full group, whose collage is sent at 0."""
    cluster = Cluster(rules, replies, {1: collage}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4, timeout=timeout)
    if hang_up is not None:
        cluster.hang_up(1, hang_up)
    cluster.run()
    assert cluster.when(FULL) == 0
    return cluster


# The deadline


@pytest.mark.parametrize("rules", [REPLICATE, COLLAGE])
@pytest.mark.parametrize("after", [0.2, 0.25])
def test_an_s_cnn_answer_by_the_deadline_is_taken_and_nothing_else_happens(rules: Rules, after: float) -> None:
    cluster = one(rules, {(1, 0): Reply(after)})
    assert cluster.ends[1] == ended(after, Answer(1, 0))
    assert exact(cluster.ordered(Send, Straggles, Cancel, SendCollage)) == exact([Send(1, 0)])


@pytest.mark.parametrize("rules", [REPLICATE, COLLAGE])
def test_at_the_deadline_a_request_is_replicated_and_its_own_answer_may_still_win(rules: Rules) -> None:
    cluster = one(rules, {(1, 0): Reply(0.5), (1, 1): Reply(0.375)})
    assert cluster.when(Straggles(1)) == 0.25
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.ends[1] == ended(0.5, Answer(1, 0))
    assert cluster.when(Cancel(1, 1)) == 0.5


def test_the_replica_may_win_and_the_first_copy_is_cancelled() -> None:
    cluster = one(REPLICATE, {(1, 0): Reply(0.5), (1, 1): QUICK})
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))
    assert cluster.when(Cancel(1, 0)) == 0.375


def test_policy_none_waits() -> None:
    cluster = one(NONE, {(1, 0): Reply(3.0)})
    assert cluster.ends[1] == ended(3.0, Answer(1, 0))
    assert exact(cluster.ordered(Send, Straggles)) == exact([Send(1, 0)])
    assert cluster.ordered(SetTimer) == [SetTimer(3.875, Timer.EXPIRY, 1)]


# Coded answers


def test_at_the_deadline_a_coded_answer_that_is_there_is_taken() -> None:
    cluster = four(COLLAGE, {(1, 0): Reply(0.5)}, Seen(0.1875))
    assert cluster.ends[1] == ended(0.25, AnswerCoded(1, 1, 0))
    assert cluster.when(Cancel(1, 0)) == 0.25
    assert Send(1, 1) not in cluster.ordered(Send)


def test_a_coded_answer_waits_for_the_deadline() -> None:
    assert four(COLLAGE, {(1, 0): Reply(0.2421875)}, Seen(0.0625)).ends[1] == ended(0.2421875, Answer(1, 0))


def test_a_coded_answer_that_comes_with_the_deadline_is_taken() -> None:
    cluster = four(COLLAGE, {(1, 0): Reply(0.5)}, Seen(0.25))
    assert cluster.ends[1] == ended(0.25, AnswerCoded(1, 1, 0))
    assert Send(1, 1) not in cluster.ordered(Send)


def straggling() -> Policy:
    """Requests 1 to 4 in group 1, all in flight; 2, 3 and 4 have their answers."""
    policy = Policy(COLLAGE)
    policy.handle([CollageWorkers(0, 1, 4), *(Arrived(0, request, 4.0) for request in (1, 2, 3, 4))])
    policy.handle([Answered(0.125, request, 0) for request in (2, 3, 4)])
    return policy


def test_a_coded_answer_in_hand_is_better_than_a_replica_however_late_the_batch() -> None:
    actions = straggling().handle([Due(0.25, Timer.DEADLINE, 1), Decoded(0.251, 1, {0: 1.0})])
    assert exact(actions) == exact([Straggles(1), AnswerCoded(1, 1, 0), Cancel(1, 0)])


@pytest.mark.parametrize("turn", [1, -1])
def test_an_s_cnn_answer_in_the_same_batch_beats_everything(turn: int) -> None:
    events: list[Event] = [
        Due(0.25, Timer.DEADLINE, 1),
        Decoded(0.25, 1, {0: 1.0}),
        Gone(0.25, 1),
        Due(0.25, Timer.EXPIRY, 1),
        Answered(0.26, 1, 0),
    ]
    assert exact(straggling().handle(events[::turn])) == exact([Answer(1, 0), CancelCollage(1)])


@pytest.mark.parametrize("turn", [1, -1])
def test_of_two_s_cnn_answers_in_one_batch_the_earlier_wins(turn: int) -> None:
    policy = straggling()
    assert Send(1, 1) in policy.handle([Due(0.25, Timer.DEADLINE, 1)])
    actions = policy.handle([Answered(0.5, 1, 0), Answered(0.375, 1, 1)][::turn])
    assert exact(actions) == exact([Answer(1, 1), Cancel(1, 0), CancelCollage(1)])


def test_with_both_at_once_after_the_deadline_the_s_cnn_answer_wins() -> None:
    assert four(COLLAGE, {(1, 0): Reply(0.5), (1, 1): None}, Seen(0.5)).ends[1] == ended(0.5, Answer(1, 0))


def test_collage_in_flight_at_the_deadline_the_coded_answer_may_win() -> None:
    cluster = four(COLLAGE, {(1, 0): Reply(0.5), (1, 1): QUICK}, Seen(0.3125))
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.ends[1] == ended(0.3125, AnswerCoded(1, 1, 0))
    assert cluster.ordered(Cancel) == [Cancel(1, 0), Cancel(1, 1)]


def test_collage_in_flight_at_the_deadline_the_replica_may_win() -> None:
    cluster = four(COLLAGE, {(1, 0): Reply(0.5), (1, 1): QUICK}, Seen(0.4375))
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))
    assert exact(cluster.ordered(Cancel, CancelCollage)) == exact([Cancel(1, 0), CancelCollage(1)])


def test_several_members_may_straggle_and_each_gets_its_own_cell() -> None:
    cluster = four(COLLAGE, {(2, 0): Reply(0.5), (4, 0): Reply(0.5)}, Seen(0.1875))
    assert cluster.ends[2] == ended(0.25, AnswerCoded(2, 1, 1))
    assert cluster.ends[4] == ended(0.25, AnswerCoded(4, 1, 3))


@pytest.mark.parametrize("back", [0.1875, 0.3125])
def test_an_empty_cell_is_replicated_once(back: float) -> None:
    cluster = four(COLLAGE, {(1, 0): Reply(0.5), (1, 1): QUICK}, Seen(back, {1: 1.0, 2: 1.0, 3: 1.0}))
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))
    assert len(cluster.ordered(Send)) == 5


@pytest.mark.parametrize("back", [0.1875, 0.3125])
def test_an_unsure_coded_answer_is_replicated_once(back: float) -> None:
    cluster = four(CAREFUL, {(1, 0): Reply(0.5), (1, 1): QUICK}, Seen(back, {0: 0.25}))
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))
    assert len(cluster.ordered(Send)) == 5


def test_an_unsure_coded_answer_is_kept_for_the_moment_when_time_runs_out() -> None:
    cluster = four(CAREFUL, {(1, 0): None, (1, 1): None}, Seen(0.1875, {0: 0.25}), timeout=1.0)
    assert cluster.ends[1] == ended(0.875, AnswerCoded(1, 1, 0))
    assert cluster.ordered(Cancel) == [Cancel(1, 0), Cancel(1, 1)]


def test_a_coded_answer_at_the_threshold_is_sure() -> None:
    assert four(CAREFUL, {(1, 0): None}, Seen(0.1875, {0: 0.5})).ends[1] == ended(0.25, AnswerCoded(1, 1, 0))


# Groups


def test_a_group_still_open_at_the_deadline_is_closed_and_the_straggler_replicated() -> None:
    rules = replace(COLLAGE, group_wait=1.0)
    cluster = Cluster(rules, {(1, 0): None, (1, 1): Reply(0.5), (2, 0): QUICK}, {1: Seen(0.125)})
    cluster.arrive(1)
    cluster.arrive(2, at=0.1875)
    cluster.run()
    assert cluster.when(SendCollage(1, {0: 1, 1: 2})) == 0.25
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.ends[1] == ended(0.375, AnswerCoded(1, 1, 0))


def test_a_nearly_empty_group_is_not_worth_a_collage() -> None:
    cluster = one(COLLAGE, {(1, 0): None, (1, 1): QUICK})
    assert cluster.ordered(SendCollage) == []
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))


def test_at_the_deadline_a_group_stays_open_while_no_collage_worker_is_idle() -> None:
    cluster = Cluster(replace(COLLAGE, group_wait=1.0), {(1, 0): None, (5, 0): None}, {1: None}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4, 5, 6)
    cluster.run()
    assert cluster.ordered(SendCollage) == [FULL]
    assert cluster.when(Send(5, 1)) == 0.25


@pytest.mark.parametrize(("members", "sent_at"), [(1, None), (2, 0.0625), (3, 0.0625)])
def test_a_group_closes_by_timer_if_at_least_half_full(members: int, sent_at: float | None) -> None:
    cluster = Cluster(COLLAGE, usual=QUICK)
    cluster.arrive(*range(1, 1 + members))
    cluster.run()
    assert cluster.when(SendCollage(1, {cell: cell + 1 for cell in range(members)})) == sent_at


def test_an_early_answer_from_a_partial_group() -> None:
    cluster = Cluster(COLLAGE, {(3, 0): None}, {1: Seen(0.125)}, usual=QUICK)
    cluster.arrive(1, 2, 3)
    cluster.run()
    assert cluster.ends[3] == ended(0.25, AnswerCoded(3, 1, 2))


@pytest.mark.parametrize("first", [Seen(0.09375), Broken(0.09375)])
def test_an_overdue_group_closes_when_the_collage_worker_is_idle_again(first: Seen | Broken) -> None:
    cluster = Cluster(COLLAGE, collages={1: first}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4, 5, 6)
    cluster.run()
    assert cluster.when(SendCollage(2, {0: 5, 1: 6})) == 0.09375


def test_a_group_that_is_not_overdue_stays_open_when_the_collage_worker_is_idle() -> None:
    cluster = Cluster(COLLAGE, collages={1: Seen(0.03125)}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4, 5, 6)
    cluster.run()
    assert cluster.when(SendCollage(2, {0: 5, 1: 6})) == 0.0625


def test_two_collage_workers_take_two_collages() -> None:
    cluster = Cluster(COLLAGE, collages={1: Seen(0.09375)}, usual=QUICK, workers=2)
    cluster.arrive(1, 2, 3, 4, 5, 6)
    cluster.run()
    assert cluster.when(SendCollage(2, {0: 5, 1: 6})) == 0.0625


def test_a_full_group_is_sent_even_if_the_collage_worker_is_busy() -> None:
    cluster = Cluster(COLLAGE, usual=QUICK)
    cluster.arrive(1, 2, 3, 4, 5, 6, 7, 8)
    cluster.run()
    assert cluster.when(SendCollage(2, {0: 5, 1: 6, 2: 7, 3: 8})) == 0


def test_a_group_is_not_closed_early_while_the_budget_does_not_allow_its_collage() -> None:
    cluster = Cluster(replace(COLLAGE, extra_load=0.125), {(1, 0): None, (2, 0): None}, usual=QUICK)
    cluster.arrive(1, 2, at=0.0)  # 1.25 tokens
    cluster.arrive(3, 4, at=0.0625)  # no longer a group: 1 and 2 took the one token for theirs
    cluster.arrive(5, 6, at=0.125)
    cluster.run()
    assert cluster.ordered(SendCollage) == [SendCollage(1, {0: 1, 1: 2})]
    rules = replace(COLLAGE, extra_load=0.4, group_wait=0.0625)
    cluster = Cluster(rules, {(1, 0): Broken(0.03125), (1, 1): Reply(0.5), (2, 0): Reply(0.5)}, usual=Reply(0.5))
    cluster.arrive(1, 2)  # 1.8 tokens; the failure takes one, so at 0.0625 there is none for a collage
    cluster.arrive(3, 4, at=0.125)  # 1.6 tokens
    cluster.run()
    assert cluster.when(FULL) == 0.125


def test_a_request_that_ends_while_its_group_is_open_frees_its_cell() -> None:
    cluster = Cluster(replace(COLLAGE, group_wait=1.0), {(1, 0): Reply(0.03125)}, {1: Seen(0.0625)}, usual=Reply(0.5))
    cluster.arrive(1, 2, 3)
    cluster.arrive(4, 5, at=0.0625)
    cluster.run()
    assert cluster.ordered(SendCollage) == [SendCollage(1, {1: 2, 2: 3, 0: 4, 3: 5})]
    assert cluster.ends[4] == ended(0.3125, AnswerCoded(4, 1, 0))


def test_a_group_whose_members_all_end_is_gone() -> None:
    cluster = Cluster(COLLAGE, usual=Reply(0.03125))
    cluster.arrive(1, 2)
    cluster.arrive(3, 4, at=0.046875)  # another group: the timer of the first, at 0.0625, does not close it
    cluster.run()
    assert cluster.ordered(SendCollage) == []
    assert len([timer for timer in cluster.ordered(SetTimer) if timer.timer is Timer.CLOSE]) == 2  # type: ignore[union-attr]


# Collages


def test_a_collage_is_cancelled_as_soon_as_every_member_has_its_answer_and_not_before() -> None:
    cluster = four(COLLAGE, {(3, 0): Reply(0.1875)}, Seen(0.5))
    assert cluster.when(CancelCollage(1)) == 0.1875


def test_a_collage_that_is_back_is_not_cancelled() -> None:
    assert four(COLLAGE, {(1, 0): None}, Seen(0.0625)).ordered(CancelCollage) == []


def test_a_cancelled_collage_leaves_its_worker_idle() -> None:
    cluster = Cluster(COLLAGE, usual=QUICK)
    cluster.arrive(1, 2, 3, 4)
    cluster.arrive(5, 6, at=0.125)
    cluster.run()
    assert cluster.when(CancelCollage(1)) == 0.125
    assert cluster.when(SendCollage(2, {0: 5, 1: 6})) == 0.1875


@pytest.mark.parametrize("after", [0.1875, 0.3125])
def test_a_collage_that_fails_leaves_its_stragglers_to_their_replicas(after: float) -> None:
    cluster = four(COLLAGE, {(1, 0): Reply(0.5), (1, 1): QUICK}, Broken(after))
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))
    assert cluster.ordered(CancelCollage) == []
    assert len(cluster.ordered(Send)) == 5


def test_without_collage_workers_there_are_no_groups() -> None:
    cluster = Cluster(COLLAGE, {(1, 0): None}, usual=QUICK, workers=0, cells=0)
    cluster.arrive(1, 2, 3, 4)
    cluster.run()
    assert cluster.ordered(SendCollage) == []
    assert cluster.when(Send(1, 1)) == 0.25


def test_groups_begin_when_a_collage_worker_appears() -> None:
    cluster = Cluster(COLLAGE, usual=QUICK, workers=0, cells=0)
    cluster.arrive(1, 2)
    cluster.collage_workers(1, 4, at=0.0625)
    cluster.arrive(3, 4, 5, 6, at=0.0625)
    cluster.run()
    assert cluster.ordered(SendCollage) == [SendCollage(1, {0: 3, 1: 4, 2: 5, 3: 6})]


@pytest.mark.parametrize("cells", [0, 4])
def test_no_collage_is_sent_once_the_workers_have_disappeared(cells: int) -> None:
    cluster = Cluster(COLLAGE, {(1, 0): Reply(0.5)}, usual=QUICK)
    cluster.arrive(1, 2, 3)
    cluster.collage_workers(0, cells, at=0.03125)
    cluster.arrive(4, at=0.0625)
    cluster.run()
    assert cluster.ordered(SendCollage) == []
    assert cluster.when(Send(1, 1)) == 0.25


def test_when_the_grid_changes_open_groups_dissolve_and_new_ones_have_the_new_size() -> None:
    cluster = Cluster(COLLAGE, usual=QUICK)
    cluster.arrive(1, 2, 3)
    cluster.collage_workers(1, 9, at=0.03125)
    cluster.arrive(*range(11, 20), at=0.046875)
    cluster.run()
    assert cluster.ordered(SendCollage) == [SendCollage(2, {cell: 11 + cell for cell in range(9)})]


def test_when_the_grid_changes_collages_in_flight_still_count() -> None:
    cluster = Cluster(COLLAGE, {(1, 0): None}, {1: Seen(0.1875)}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4)
    cluster.collage_workers(1, 9, at=0.0625)
    cluster.run()
    assert cluster.ends[1] == ended(0.25, AnswerCoded(1, 1, 0))


# Failures


@pytest.mark.parametrize("unreachable", [True, False])
@pytest.mark.parametrize("rules", [REPLICATE, COLLAGE, replace(REPLICATE, extra_load=0.0)])
def test_a_failure_is_a_straggler_whose_deadline_is_now(rules: Rules, unreachable: bool) -> None:
    cluster = one(rules, {(1, 0): Broken(0.0625, unreachable), (1, 1): Reply(0.5)})
    assert cluster.when(Straggles(1)) == 0.0625
    assert cluster.when(Send(1, 1)) == 0.0625
    assert cluster.ends[1] == ended(0.5625, Answer(1, 1))
    assert len(cluster.ordered(Send)) == 2
    assert cluster.ordered(Cancel) == []


def test_a_failure_takes_the_coded_answer_that_is_there() -> None:
    cluster = four(COLLAGE, {(1, 0): Broken(0.125)}, Seen(0.0625))
    assert cluster.ends[1] == ended(0.125, AnswerCoded(1, 1, 0))
    assert len(cluster.ordered(Send)) == 4


def test_a_failure_closes_the_open_group() -> None:
    cluster = Cluster(replace(COLLAGE, group_wait=1.0), {(1, 0): Broken(0.0625)}, {1: Seen(0.0625)})
    cluster.arrive(1, 2)
    cluster.run()
    assert cluster.when(SendCollage(1, {0: 1, 1: 2})) == 0.0625
    assert cluster.ends[1] == ended(0.125, AnswerCoded(1, 1, 0))


def test_a_replica_that_fails_leaves_the_first_copy_running() -> None:
    cluster = one(REPLICATE, {(1, 0): Reply(0.5), (1, 1): Broken(0.0625)})
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
    assert cluster.ends[1] == ended(0.5, AnswerCoded(1, 1, 0))


@pytest.mark.parametrize("collage", [Seen(0.5, {1: 1.0}), Broken(0.5)])
def test_when_the_collage_is_no_use_either_the_request_fails(collage: Seen | Broken) -> None:
    assert four(CAREFUL, ALL_BROKEN, collage).ends[1] == ended(0.5, Fail(1, expired=False))


def test_when_every_attempt_has_failed_an_unsure_coded_answer_is_taken() -> None:
    assert four(CAREFUL, ALL_BROKEN, Seen(0.125, {0: 0.25})).ends[1] == ended(0.1875, AnswerCoded(1, 1, 0))


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
    cluster = Cluster(replace(COLLAGE, extra_load=0.25), {(1, 0): None, (2, 0): Reply(0.5)}, {1: None}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4)  # two tokens: one for the collage, one for the first replica
    cluster.run()
    assert cluster.when(FULL) == 0
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.when(Send(2, 1)) is None
    assert cluster.ends[2] == ended(0.5, Answer(2, 0))


def test_a_full_group_without_a_budget_gets_no_collage_and_its_members_are_replicated_as_it_recovers() -> None:
    cluster = Cluster(replace(COLLAGE, extra_load=0.125), {(5, 0): None}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4)  # 1.5 tokens
    cluster.arrive(5, 6, 7, 8)  # 1.0 token
    cluster.arrive(9, 10, 11, 12, at=0.0625)
    cluster.run()
    assert cluster.when(SendCollage(2, {0: 5, 1: 6, 2: 7, 3: 8})) == 0
    cluster = Cluster(replace(COLLAGE, extra_load=0.0625), {(5, 0): None, (5, 1): QUICK}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4)  # 1.25 tokens
    cluster.arrive(5, 6, 7, 8)  # 0.5 tokens: no collage
    cluster.arrive(*range(9, 17), at=0.125)  # 1.0 token, which 9 to 12 lack by then
    cluster.run()
    assert FULL in cluster.ordered(SendCollage)
    assert not [a for a in cluster.ordered(SendCollage) if 5 in a.members.values()]  # type: ignore[union-attr]


def test_a_collage_back_without_a_sure_answer_tries_again_for_a_replica_that_had_no_budget() -> None:
    cluster = Cluster(replace(COLLAGE, extra_load=0.125), {(1, 0): None, (1, 1): QUICK}, {1: Broken(0.375)}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4)  # 1.5 tokens: the collage
    cluster.arrive(5, 6, 7, at=0.25)  # 0.875: no replica at the deadline
    cluster.arrive(8, at=0.3125)  # 1.0, and no collage of 5 to 8 for it, as they have their answers
    cluster.policy.groups.cells = 4
    cluster.run()
    assert cluster.when(Send(1, 1)) is not None


def test_without_a_budget_nothing_is_redundant_but_failures_are_sent_again() -> None:
    rules = replace(COLLAGE, extra_load=0.0)
    cluster = Cluster(rules, {(1, 0): Reply(0.5), (2, 0): Broken(0.0625)}, usual=QUICK)
    cluster.arrive(1, 2, 3, 4)
    cluster.run()
    assert cluster.ordered(SendCollage) == []
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


# The end


@pytest.mark.parametrize("rules", [NONE, REPLICATE, COLLAGE])
def test_out_of_time_without_a_prediction_is_a_failure(rules: Rules) -> None:
    cluster = one(rules, {}, timeout=1.0)
    assert cluster.ends[1] == ended(0.875, Fail(1, expired=True))
    assert len(cluster.ordered(Cancel)) == len(cluster.ordered(Send))


def test_out_of_time_with_a_collage_in_flight_cancels_it() -> None:
    cluster = four(COLLAGE, {(1, 0): None}, Seen(2.0), timeout=1.0)
    assert cluster.ends[1] == ended(0.875, Fail(1, expired=True))
    assert cluster.when(CancelCollage(1)) == 0.875


def test_out_of_time_before_the_deadline_takes_even_an_unsure_coded_answer() -> None:
    cluster = four(CAREFUL, {(1, 0): None}, Seen(0.0625, {0: 0.25}), timeout=0.3125)
    assert cluster.ends[1] == ended(0.1875, AnswerCoded(1, 1, 0))
    assert cluster.ordered(Straggles) == []


def test_an_answer_in_the_nick_of_time_is_taken() -> None:
    assert one(NONE, {(1, 0): Reply(0.875)}, timeout=1.0).ends[1] == ended(0.875, Answer(1, 0))


def test_a_caller_that_hangs_up_gets_nothing_and_its_attempts_are_cancelled() -> None:
    cluster = four(COLLAGE, {(1, 0): None}, Seen(0.5), hang_up=0.3125)
    assert cluster.ends[1] == ended(0.3125, Gone(0.3125, 1))
    assert exact(cluster.ordered(Cancel, CancelCollage)) == exact([Cancel(1, 0), Cancel(1, 1), CancelCollage(1)])


def test_a_caller_that_hangs_up_while_its_group_is_open_frees_its_cell() -> None:
    cluster = Cluster(COLLAGE, usual=QUICK)
    cluster.arrive(1, 2, 3)
    cluster.hang_up(2, at=0.03125)
    cluster.arrive(4, 5, at=0.03125)
    cluster.run()
    assert cluster.ordered(SendCollage) == [SendCollage(1, {0: 1, 1: 4, 2: 3, 3: 5})]


def stale(request: int, attempt: int, group: int) -> list[Event]:
    return [
        Answered(1.0, request, attempt),
        Failed(1.0, request, attempt),
        Decoded(1.0, group, {0: 1.0}),
        CollageFailed(1.0, group),
        Gone(1.0, request),
        *(Due(1.0, timer, request) for timer in (Timer.DEADLINE, Timer.EXPIRY)),
        Due(1.0, Timer.CLOSE, group),
    ]


@pytest.mark.parametrize("event", stale(99, 0, 99) + stale(1, 0, 1))
def test_late_duplicate_and_unknown_events_are_ignored(event: Event) -> None:
    policy = straggling()
    policy.handle([Answered(0.25, 1, 0)])
    assert exact(policy.handle([event])) == exact([])
    assert policy.open_requests == 0


@pytest.mark.parametrize("event", [Answered(0.2, 1, 7), Failed(0.2, 1, 7), *stale(2, 0, 99)])
def test_news_of_others_does_not_touch_an_open_request(event: Event) -> None:
    policy = straggling()
    assert exact(policy.handle([event])) == exact([])
    assert exact(policy.handle([Answered(0.25, 1, 0)])) == exact([Answer(1, 0), CancelCollage(1)])


def test_news_that_comes_twice_counts_once() -> None:
    policy = straggling()
    assert Send(1, 1) in policy.handle([Failed(0.1875, 1, 0)])
    for event in (Failed(0.2, 1, 0), Answered(0.2, 1, 0), Due(0.25, Timer.DEADLINE, 1)):
        assert exact(policy.handle([event])) == exact([])
    assert exact(policy.handle([Decoded(0.3, 1, {})])) == exact([])
    for again in (Decoded(0.3125, 1, {0: 1.0}), CollageFailed(0.3125, 1)):
        assert exact(policy.handle([again])) == exact([])
    assert exact(policy.handle([Due(3.875, Timer.EXPIRY, 1)])) == exact([Fail(1, expired=True), Cancel(1, 1)])


def test_policies_by_name() -> None:
    means = {name: Rules.named(name) for name in ("none", "replicate", "collage")}
    assert {name: (rules.collage, rules.replica) for name, rules in means.items()} == {
        "none": (False, False),
        "replicate": (False, True),
        "collage": (True, True),
    }
    assert Rules.named("replicate", deadline=0.5).deadline == 0.5
    with pytest.raises(KeyError):
        Rules.named("luck")
