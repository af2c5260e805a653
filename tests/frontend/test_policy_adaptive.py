"""The rules beyond the paper's, one by one, in virtual time; see test_policy.py for the usual scenario.

Running deadlines, early and unsure coded answers, the model's own threshold, audits, and policies without a replica.
"""

from dataclasses import replace

import numpy as np
import pytest

from frontend.policy.events import (
    Answer,
    AnswerCoded,
    Arrived,
    Audit,
    Cancel,
    CodedWorkers,
    Decoded,
    Due,
    Fail,
    Returned,
    Send,
    SendCoded,
    SetTimer,
    Straggles,
    Timer,
)
from frontend.policy.machine import Policy
from frontend.policy.rules import POLICIES, Rules
from tests.frontend.referee import exact
from tests.frontend.virtual import (
    CAREFUL,
    COLLAGE,
    QUICK,
    After,
    Broken,
    Collages,
    Replies,
    Seen,
    Virtual,
    collage,
    ended,
    four,
    one,
)

EARLY = replace(CAREFUL, early=True)
PATIENT = replace(CAREFUL, patience=2.0)  # until 0.5
AUDITED = replace(COLLAGE, audit=1.0)
GROUPS = 300


def deadlines(cluster: Virtual) -> list[float]:
    """How long after its arrival each request, which arrive one a second, becomes a straggler."""
    return [t.at - t.id for t in cluster.ordered(SetTimer) if t.timer is Timer.DEADLINE]


def one_a_second(rules: Rules, replies: Replies, count: int) -> Virtual:
    cluster = Virtual(rules, replies, usual=QUICK)
    for request in range(count):
        cluster.arrive(request, at=float(request))
    return cluster.run()


# Running deadlines


@pytest.mark.parametrize("policy", ["hedge", "adaptive"])
def test_the_deadline_becomes_the_quantile_of_what_first_copies_take(policy: str) -> None:
    slow: Replies = {(request, 0): After(0.1875) for request in range(0, 400, 10)}
    rules = Rules.named(policy, deadline=1.0, extra_load=1.0)
    assert deadlines(one_a_second(rules, slow, 400))[0] == 1.0
    assert deadlines(one_a_second(rules, slow, 400))[-1] == pytest.approx(0.1875, rel=0.05)
    assert deadlines(one_a_second(replace(rules, quantile=0.8), slow, 400))[-1] == pytest.approx(0.125, rel=0.05)


def test_the_deadline_does_not_drift_down_as_first_copies_are_cancelled() -> None:
    slow: Replies = {(request, 0): After(0.75) for request in range(0, 1000, 10)}
    rules = Rules.named("hedge", deadline=0.25, quantile=0.85, extra_load=1.0)
    cluster = one_a_second(rules, slow, 1000)
    assert deadlines(cluster)[-1] == pytest.approx(0.125, rel=0.05)
    assert len(cluster.ordered(Straggles)) >= 90  # their first copies lose against replicas, and never report
    tail = deadlines(one_a_second(replace(rules, quantile=0.95), slow, 1000))[100:]
    assert min(tail) >= 0.25


@pytest.mark.parametrize("start", [1 / 3, 3.0])
def test_from_far_off_the_deadline_settles_on_the_true_quantile_though_stragglers_are_cancelled(start: float) -> None:
    """Three in ten stragglers lose against a replica, and never report."""
    rng = np.random.default_rng(0)
    takes = 0.125 + rng.exponential(0.03125, 3000)
    true = float(np.quantile(takes, 0.95))
    replies: dict[tuple[int, int], After | None] = {(id, 0): After(seconds) for id, seconds in enumerate(takes)}
    replies |= {(id, 1): After(0.0) for id in np.flatnonzero((takes > true) & (rng.random(3000) < 0.4)).tolist()}
    replies = {(id, 1): None for id in range(3000)} | replies
    cluster = one_a_second(Rules.named("hedge", deadline=start * true, extra_load=1.0), replies, 3000)
    assert deadlines(cluster)[0] == pytest.approx(start * true)
    assert deadlines(cluster)[-1] == pytest.approx(true, rel=0.1)
    assert sum(cancel.attempt == 0 for cancel in cluster.ordered(Cancel)) > 0.25 * 150


def four_a_second(rules: Rules, replies: Replies, collages: Collages) -> Virtual:
    cluster = Virtual(rules, replies, collages, usual=QUICK)
    for group in range(GROUPS):
        cluster.arrive(*range(4 * group, 4 * group + 4), at=float(group))
    return cluster.run()


def test_collages_that_no_member_waits_for_make_no_stragglers() -> None:
    """All s-cnns answer before any collage is back, so that all that is known of these is that they take longer."""
    cluster = four_a_second(Rules.named("adaptive", extra_load=1.0), {}, {})
    assert len(cluster.ordered(SendCoded)) == GROUPS
    assert cluster.ordered(Straggles) == []
    assert [send for send in cluster.ordered(Send) if send.attempt] == []


def last_deadline(cluster: Virtual) -> float:
    return [t.at - t.id // 4 for t in cluster.ordered(SetTimer) if t.timer is Timer.DEADLINE][-1]


def test_the_deadline_does_not_drift_down_as_coded_answers_come_early() -> None:
    rules = replace(EARLY, tracked=True, quantile=0.5)
    early = dict.fromkeys(range(1, GROUPS + 1), Seen(0.0625, {0: 1.0, 1: 1.0, 2: 1.0}))
    assert last_deadline(four_a_second(rules, {}, early)) == pytest.approx(0.125, rel=0.05)


@pytest.mark.parametrize("audit", [0.0, 1.0])
def test_the_deadline_does_not_drift_down_as_the_slow_are_answered_from_the_code(audit: float) -> None:
    slow: Replies = {(request, 0): None for request in range(0, 4 * GROUPS, 4)}
    rules = replace(COLLAGE, tracked=True, quantile=0.95, audit=audit)
    cluster = four_a_second(rules, slow, dict.fromkeys(range(1, GROUPS + 1), Seen(0.0625)))
    assert len(cluster.ordered(AnswerCoded)) == GROUPS
    assert last_deadline(cluster) > 0.25


def test_the_deadline_stays_within_its_limits() -> None:
    rules = Rules.named("hedge", deadline=0.25, shortest=0.1875, longest=0.5)
    assert deadlines(one_a_second(rules, {}, 200))[-1] == 0.1875
    late: Replies = {(request, 0): After(1.0) for request in range(200)}
    assert deadlines(one_a_second(replace(rules, extra_load=0.0), late, 200))[-1] == 0.5


def test_the_deadline_of_adaptive_is_not_that_of_a_slow_minority() -> None:
    slow: Replies = {(request, 0): After(0.75) for request in range(0, 400, 10)}
    rules = Rules.named("adaptive", deadline=1.0, extra_load=0.0)
    assert deadlines(one_a_second(rules, slow, 400))[-1] == pytest.approx(1.6 * 0.125, rel=0.05)


@pytest.mark.parametrize("policy", ["replicate", "collage", "collage-only"])
def test_a_fixed_deadline_stays_where_it_is(policy: str) -> None:
    assert set(deadlines(one_a_second(Rules.named(policy, deadline=0.25), {}, 200))) == {0.25}


# Early answers


def test_a_sure_coded_answer_may_be_given_early() -> None:
    cluster = four(EARLY, {}, Seen(0.0625, {0: 0.75, 1: 0.25, 3: 0.5}))
    assert cluster.ends[1] == ended(0.0625, AnswerCoded(1, 1, 0, True, early=True))
    assert cluster.ends[2] == ended(0.125, Answer(2, 0))
    assert cluster.ends[3] == ended(0.125, Answer(3, 0))
    assert cluster.ends[4] == ended(0.0625, AnswerCoded(4, 1, 3, True, early=True))
    assert cluster.ordered(Straggles) == []
    assert cluster.ordered(Cancel) == [Cancel(1, 0), Cancel(4, 0)]


def test_an_early_answer_loses_against_an_s_cnn_answer_that_comes_with_it() -> None:
    assert four(EARLY, {}, Seen(0.125)).ends[1] == ended(0.125, Answer(1, 0))


# Unsure answers


@pytest.mark.parametrize("back", [0.1875, 0.3125])
def test_when_patience_is_over_an_unsure_answer_is_taken(back: float) -> None:
    cluster = four(PATIENT, {(1, 0): None, (1, 1): None}, Seen(back, {0: 0.25}))
    assert cluster.when(Send(1, 1)) == 0.25
    assert cluster.ends[1] == ended(0.5, AnswerCoded(1, 1, 0, False))
    assert cluster.ordered(Cancel) == [Cancel(1, 0), Cancel(1, 1)]


def test_an_unsure_answer_that_comes_after_that_is_taken_at_once() -> None:
    cluster = four(PATIENT, {(1, 0): None, (1, 1): None}, Seen(0.625, {0: 0.25}))
    assert cluster.ends[1] == ended(0.625, AnswerCoded(1, 1, 0, False))
    assert Timer.UNSURE not in [timer.timer for timer in cluster.ordered(SetTimer)]


def test_until_then_the_replica_may_win() -> None:
    cluster = four(PATIENT, {(1, 0): None, (1, 1): QUICK}, Seen(0.1875, {0: 0.25}))
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))


@pytest.mark.parametrize(("patience", "replicas"), [(1.25, 0), (2.0, 1)])
def test_no_replica_is_sent_that_could_not_be_back_before_patience_is_over(patience: float, replicas: int) -> None:
    """Once it is known that a copy takes 0.125 s; before that, and where nothing is coded, it is sent."""
    stragglers: Replies = {(id, attempt): None for id in (1000, 1001) for attempt in (0, 1)}
    rules = replace(CAREFUL, patience=patience)
    cluster = Virtual(rules, stragglers, {101: Seen(0.125, {0: 0.25})}, usual=QUICK)
    for request in range(100):
        cluster.arrive(request, at=float(request))
    cluster.arrive(1000, 1001, 1002, 1003, at=100.0)
    cluster.run()
    assert cluster.ends[1000] == ended(100 + 0.25 * patience, AnswerCoded(1000, 101, 0, False))
    assert cluster.ordered(Send).count(Send(1000, 1)) == replicas
    assert cluster.when(Send(1001, 1)) == 100.25


def test_an_empty_cell_is_not_an_unsure_answer() -> None:
    cluster = four(PATIENT, {(1, 0): None, (1, 1): After(0.5)}, Seen(0.1875, {}))
    assert cluster.ends[1] == ended(0.75, Answer(1, 1))
    assert Timer.UNSURE not in [timer.timer for timer in cluster.ordered(SetTimer)]


def test_a_failure_does_not_shorten_the_patience() -> None:
    cluster = four(PATIENT, {(1, 0): Broken(0.125), (1, 1): None}, Seen(0.0625, {0: 0.25}))
    assert cluster.when(Send(1, 1)) == 0.125
    assert cluster.ends[1] == ended(0.5, AnswerCoded(1, 1, 0, False))


def test_patience_is_counted_in_deadlines() -> None:
    cluster = four(replace(PATIENT, deadline=0.1875), {(1, 0): None, (1, 1): None}, Seen(0.0625, {0: 0.25}))
    assert cluster.ends[1] == ended(0.375, AnswerCoded(1, 1, 0, False))


# The model's own threshold


@pytest.mark.parametrize(("own", "model", "sure"), [(None, 0.5, True), (None, 0.75, False), (0.5, 0.75, True)])
def test_without_a_threshold_of_its_own_the_policy_takes_the_model_s(
    own: float | None, model: float, sure: bool
) -> None:
    collages = {1: Seen(0.1875, {0: 0.5})}
    cluster = Virtual(replace(COLLAGE, accept=own), {(1, 0): None}, collages, usual=QUICK, accept=model)
    cluster.arrive(1, 2, 3, 4)
    cluster.run()
    assert cluster.ends[1] == (ended(0.25, AnswerCoded(1, 1, 0, True)) if sure else ended(0.375, Answer(1, 1)))


def test_the_threshold_of_a_new_model_counts_from_then_on() -> None:
    policy = Policy(replace(COLLAGE, accept=None, early=True))
    policy.handle([CodedWorkers(0, 1, collage(2), 0.75), *(Arrived(0, request, 4.0) for request in (1, 2))])
    assert exact(policy.handle([Returned(0.0625, 1), Decoded(0.0625, 1, {0: 0.5, 1: 0.5})])) == []
    policy.handle([CodedWorkers(0.125, 1, collage(2), 0.5)])
    assert exact(policy.handle([Due(0.25, Timer.DEADLINE, 1)])) == exact(
        [Straggles(1), AnswerCoded(1, 1, 0, True), Cancel(1, 0)]
    )


# Audits


def test_an_audited_first_copy_is_let_finish_and_changes_nothing() -> None:
    cluster = four(AUDITED, {(1, 0): After(0.5)}, Seen(0.1875))
    assert cluster.ends[1] == ended(0.25, AnswerCoded(1, 1, 0, True))
    assert cluster.when(Audit(1)) == 0.25
    assert cluster.ordered(Cancel) == []


def test_the_replica_of_an_audited_request_is_cancelled() -> None:
    cluster = four(AUDITED, {(1, 0): After(0.75), (1, 1): After(0.5)}, Seen(0.3125))
    assert cluster.when(Audit(1)) == 0.3125
    assert cluster.ordered(Cancel) == [Cancel(1, 1)]


def test_there_is_no_audit_without_a_first_copy_in_flight_or_a_coded_answer() -> None:
    assert four(AUDITED, {(1, 0): Broken(0.125)}, Seen(0.0625)).ordered(Audit) == []
    assert four(AUDITED, {}, Seen(0.25)).ordered(Audit) == []


def test_the_share_of_audits() -> None:
    slow: Replies = {(request, 0): None for request in range(40)}
    cluster = Virtual(replace(AUDITED, audit=0.25), slow, {group: Seen(0.125) for group in range(1, 11)})
    cluster.arrive(*range(40))
    cluster.run()
    assert len(cluster.ordered(AnswerCoded)) == 40
    assert len(cluster.ordered(Audit)) == 10
    assert len(cluster.ordered(Cancel)) == 30


# Other policies


def test_collage_only_sends_no_replica() -> None:
    rules = Rules.named("collage-only", extra_load=1.0, margin=0.125, accept=0.5)
    cluster = four(rules, {(1, 0): After(0.5), (2, 0): After(0.5)}, Seen(0.1875, {0: 1.0, 1: 0.25}))
    assert cluster.ends[1] == ended(0.25, AnswerCoded(1, 1, 0, True))
    assert cluster.ends[2] == ended(0.5, Answer(2, 0))
    assert len(cluster.ordered(Send)) == 4
    failing = four(rules, {(1, 0): Broken(0.0625), (2, 0): Broken(0.0625)}, Seen(0.1875, {0: 0.25}))
    assert failing.ends[1] == ended(0.1875, AnswerCoded(1, 1, 0, False))
    assert failing.ends[2] == ended(0.1875, Fail(2, expired=False))


def test_ejection_alone_waits_like_none() -> None:
    cluster = one(Rules.named("ejection"), {(1, 0): After(3.0)})
    assert cluster.ends[1] == ended(3.0, Answer(1, 0))
    assert cluster.ordered(Send) == [Send(1, 0)]


@pytest.mark.parametrize("policy", POLICIES)
def test_limits_given_by_name_beat_those_of_the_policy(policy: str) -> None:
    rules = Rules.named(policy, accept=0.25, patience=3.0)
    assert (rules.accept, rules.patience) == (0.25, 3.0)


def test_adaptive_uses_everything() -> None:
    rules = Rules.named("adaptive")
    assert all([rules.coded, rules.replica, rules.tracked, rules.early, rules.eject])
    assert rules.accept is None
