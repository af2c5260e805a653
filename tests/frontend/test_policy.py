"""Which answer a request ends with, rule by rule, in virtual time.

Unless a test says otherwise: the deadline is at 0.25 s, collages have 2 x 2 cells, requests 1 to 4 arrive at 0 and so
fill group 1 (request i in cell i - 1), the first copies of 2, 3 and 4 answer at 0.125, and the budget is ample.
"""

import pytest

from frontend.policy.events import (
    Answer,
    AnswerCoded,
    Answered,
    Cancel,
    CancelCoded,
    Decoded,
    Due,
    Event,
    Fail,
    Failed,
    Gone,
    Returned,
    Send,
    SendCoded,
    SetTimer,
    Straggles,
    Timer,
)
from frontend.policy.rules import Rules
from tests.frontend.referee import exact
from tests.frontend.virtual import (
    CAREFUL,
    COLLAGE,
    NONE,
    QUICK,
    REPLICATE,
    After,
    Seen,
    Virtual,
    ended,
    four,
    one,
    sent,
    straggling,
)

# The deadline


@pytest.mark.parametrize("rules", [REPLICATE, COLLAGE])
@pytest.mark.parametrize("after", [0.2, 0.25])
def test_an_s_cnn_answer_by_the_deadline_is_taken_and_nothing_else_happens(rules: Rules, after: float) -> None:
    cluster = one(rules, {(1, 0): After(after)})
    assert cluster.ends[1] == ended(after, Answer(1, 0))
    assert exact(cluster.ordered(Send, Straggles, Cancel, SendCoded)) == exact([Send(1, 0)])


@pytest.mark.parametrize("rules", [REPLICATE, COLLAGE])
def test_at_the_deadline_a_request_is_replicated_and_its_own_answer_may_still_win(rules: Rules) -> None:
    cluster = one(rules, {(1, 0): After(0.5), (1, 1): After(0.375)})
    assert cluster.when(Straggles(1)) == 0.25
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.ends[1] == ended(0.5, Answer(1, 0))
    assert cluster.when(Cancel(1, 1)) == 0.5


def test_the_replica_may_win_and_the_first_copy_is_cancelled() -> None:
    cluster = one(REPLICATE, {(1, 0): After(0.5), (1, 1): QUICK})
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))
    assert cluster.when(Cancel(1, 0)) == 0.375


def test_policy_none_waits() -> None:
    cluster = one(NONE, {(1, 0): After(3.0)})
    assert cluster.ends[1] == ended(3.0, Answer(1, 0))
    assert exact(cluster.ordered(Send, Straggles)) == exact([Send(1, 0)])
    assert cluster.ordered(SetTimer) == [SetTimer(3.875, Timer.EXPIRY, 1)]


# Coded answers


def test_at_the_deadline_a_coded_answer_that_is_there_is_taken() -> None:
    cluster = four(COLLAGE, {(1, 0): After(0.5)}, Seen(0.1875))
    assert cluster.ends[1] == ended(0.25, AnswerCoded(1, 1, 0, True))
    assert cluster.when(Cancel(1, 0)) == 0.25
    assert Send(1, 1) not in cluster.ordered(Send)


def test_a_coded_answer_waits_for_the_deadline() -> None:
    assert four(COLLAGE, {(1, 0): After(0.2421875)}, Seen(0.0625)).ends[1] == ended(0.2421875, Answer(1, 0))


def test_a_coded_answer_that_comes_with_the_deadline_is_taken() -> None:
    cluster = four(COLLAGE, {(1, 0): After(0.5)}, Seen(0.25))
    assert cluster.ends[1] == ended(0.25, AnswerCoded(1, 1, 0, True))
    assert Send(1, 1) not in cluster.ordered(Send)


def test_a_coded_answer_in_hand_is_better_than_a_replica_however_late_the_batch() -> None:
    actions = straggling().handle([Due(0.25, Timer.DEADLINE, 1), Returned(0.251, 1), Decoded(0.251, 1, {0: 1.0})])
    assert exact(actions) == exact([Straggles(1), AnswerCoded(1, 1, 0, True), Cancel(1, 0)])


@pytest.mark.parametrize("turn", [1, -1])
def test_an_s_cnn_answer_in_the_same_batch_beats_everything(turn: int) -> None:
    events: list[Event] = [
        Due(0.25, Timer.DEADLINE, 1),
        Decoded(0.25, 1, {0: 1.0}),
        Gone(0.25, 1),
        Due(0.25, Timer.EXPIRY, 1),
        Answered(0.26, 1, 0),
    ]
    assert exact(straggling().handle(events[::turn])) == exact([Answer(1, 0), CancelCoded(1)])


@pytest.mark.parametrize("turn", [1, -1])
def test_of_two_s_cnn_answers_in_one_batch_the_earlier_wins(turn: int) -> None:
    policy = straggling()
    assert exact(policy.handle([Due(0.25, Timer.DEADLINE, 1)])) == exact([Straggles(1), Send(1, 1)])
    actions = policy.handle([Answered(0.5, 1, 0), Answered(0.375, 1, 1)][::turn])
    assert exact(actions) == exact([Answer(1, 1), Cancel(1, 0), CancelCoded(1)])


def test_with_both_at_once_after_the_deadline_the_s_cnn_answer_wins() -> None:
    assert four(COLLAGE, {(1, 0): After(0.5), (1, 1): None}, Seen(0.5)).ends[1] == ended(0.5, Answer(1, 0))


def test_collage_in_flight_at_the_deadline_the_coded_answer_may_win() -> None:
    cluster = four(COLLAGE, {(1, 0): After(0.5), (1, 1): QUICK}, Seen(0.3125))
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.ends[1] == ended(0.3125, AnswerCoded(1, 1, 0, True))
    assert cluster.ordered(Cancel) == [Cancel(1, 0), Cancel(1, 1)]


def test_collage_in_flight_at_the_deadline_the_replica_may_win() -> None:
    cluster = four(COLLAGE, {(1, 0): After(0.5), (1, 1): QUICK}, Seen(0.4375))
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))
    assert exact(cluster.ordered(Cancel, CancelCoded)) == exact([Cancel(1, 0), CancelCoded(1)])


def test_several_members_may_straggle_and_each_gets_its_own_cell() -> None:
    cluster = four(COLLAGE, {(2, 0): After(0.5), (4, 0): After(0.5)}, Seen(0.1875))
    assert cluster.ends[2] == ended(0.25, AnswerCoded(2, 1, 1, True))
    assert cluster.ends[4] == ended(0.25, AnswerCoded(4, 1, 3, True))


@pytest.mark.parametrize("back", [0.1875, 0.3125])
def test_an_empty_cell_is_replicated_once(back: float) -> None:
    cluster = four(COLLAGE, {(1, 0): After(0.5), (1, 1): QUICK}, Seen(back, {1: 1.0, 2: 1.0, 3: 1.0}))
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))
    assert len(cluster.ordered(Send)) == 5


@pytest.mark.parametrize("back", [0.1875, 0.3125])
def test_an_unsure_coded_answer_is_replicated_once(back: float) -> None:
    cluster = four(CAREFUL, {(1, 0): After(0.5), (1, 1): QUICK}, Seen(back, {0: 0.25}))
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))
    assert len(cluster.ordered(Send)) == 5


def test_an_unsure_coded_answer_is_kept_for_the_moment_when_time_runs_out() -> None:
    cluster = four(CAREFUL, {(1, 0): None, (1, 1): None}, Seen(0.1875, {0: 0.25}), timeout=1.0)
    assert cluster.ends[1] == ended(0.875, AnswerCoded(1, 1, 0, False))
    assert cluster.ordered(Cancel) == [Cancel(1, 0), Cancel(1, 1)]


def test_a_coded_answer_at_the_threshold_is_sure() -> None:
    assert four(CAREFUL, {(1, 0): None}, Seen(0.1875, {0: 0.5})).ends[1] == ended(0.25, AnswerCoded(1, 1, 0, True))


# The end


@pytest.mark.parametrize("rules", [NONE, REPLICATE, COLLAGE])
def test_out_of_time_without_a_prediction_is_a_failure(rules: Rules) -> None:
    cluster = one(rules, {}, timeout=1.0)
    assert cluster.ends[1] == ended(0.875, Fail(1, expired=True))
    assert len(cluster.ordered(Cancel)) == len(cluster.ordered(Send))


def test_out_of_time_with_a_collage_in_flight_cancels_it() -> None:
    cluster = four(COLLAGE, {(1, 0): None, (1, 1): None}, Seen(2.0), timeout=1.0)
    assert cluster.ends[1] == ended(0.875, Fail(1, expired=True))
    assert cluster.when(CancelCoded(1)) == 0.875


def test_out_of_time_before_the_deadline_takes_even_an_unsure_coded_answer() -> None:
    cluster = four(CAREFUL, {(1, 0): None}, Seen(0.0625, {0: 0.25}), timeout=0.3125)
    assert cluster.ends[1] == ended(0.234375, AnswerCoded(1, 1, 0, False))
    assert cluster.ordered(Straggles) == []


def test_an_answer_in_the_nick_of_time_is_taken() -> None:
    assert one(NONE, {(1, 0): After(0.875)}, timeout=1.0).ends[1] == ended(0.875, Answer(1, 0))


def test_a_caller_that_hangs_up_gets_nothing_and_its_attempts_are_cancelled() -> None:
    cluster = four(COLLAGE, {(1, 0): None}, Seen(0.5), hang_up=0.3125)
    assert cluster.ends[1] == ended(0.3125, Gone(0.3125, 1))
    assert exact(cluster.ordered(Cancel, CancelCoded)) == exact([Cancel(1, 0), Cancel(1, 1), CancelCoded(1)])


def test_a_caller_that_hangs_up_while_its_group_is_open_frees_its_cell() -> None:
    cluster = Virtual(COLLAGE, usual=QUICK)
    cluster.arrive(1, 2, 3)
    cluster.hang_up(2, at=0.03125)
    cluster.arrive(4, 5, at=0.03125)
    cluster.run()
    assert cluster.ordered(SendCoded) == [sent(1, {0: 1, 1: 4, 2: 3, 3: 5})]


def stale(request: int, attempt: int, group: int) -> list[Event]:
    return [
        Answered(1.0, request, attempt),
        Failed(1.0, request, attempt),
        Decoded(1.0, group, {0: 1.0}),
        Returned(1.0, group, ok=False),
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
    assert exact(policy.handle([Answered(0.25, 1, 0)])) == exact([Answer(1, 0), CancelCoded(1)])


def test_news_that_comes_twice_counts_once() -> None:
    policy = straggling()
    assert exact(policy.handle([Failed(0.1875, 1, 0)])) == exact([Straggles(1), Send(1, 1)])
    for event in (Failed(0.2, 1, 0), Answered(0.2, 1, 0), Due(0.25, Timer.DEADLINE, 1)):
        assert exact(policy.handle([event])) == exact([])
    assert exact(policy.handle([Returned(0.3, 1), Decoded(0.3, 1, {})])) == exact([])
    for again in (Decoded(0.3125, 1, {0: 1.0}), Returned(0.3125, 1, ok=False)):
        assert exact(policy.handle([again])) == exact([])
    assert exact(policy.handle([Due(3.875, Timer.EXPIRY, 1)])) == exact([Fail(1, expired=True), Cancel(1, 1)])


def test_policies_by_name() -> None:
    means = {name: Rules.named(name) for name in ("none", "replicate", "collage")}
    assert {name: (rules.coded, rules.replica) for name, rules in means.items()} == {
        "none": (False, False),
        "replicate": (False, True),
        "collage": (True, True),
    }
    assert Rules.named("replicate", deadline=0.5).deadline == 0.5
    with pytest.raises(KeyError):
        Rules.named("luck")
