"""Adaptive policies and the groups in flight: how long they wait, and when a coded answer is late; in virtual time."""

from dataclasses import replace

import pytest

from frontend.policy.events import (
    Answer,
    AnswerCoded,
    Send,
    SetTimer,
    Timer,
)
from frontend.policy.rules import Rules
from tests.frontend.virtual import (
    COLLAGE,
    QUICK,
    After,
    Broken,
    Collages,
    Replies,
    Seen,
    Virtual,
    ended,
)

GROUPS = 300


def four_a_second(rules: Rules, replies: Replies, collages: Collages) -> Virtual:
    cluster = Virtual(rules, replies, collages, usual=QUICK)
    for group in range(GROUPS):
        cluster.arrive(*range(4 * group, 4 * group + 4), at=float(group))
    return cluster.run()


@pytest.mark.parametrize(
    ("usual", "wait"), [(Seen(0.09375), 0.15625), (Broken(0.015625), 0.21875), (Seen(0.4375), 0.25 - 1.25 * 0.125)]
)
def test_a_group_closes_so_early_that_its_collage_can_be_back_by_the_deadline(
    usual: Seen | Broken, wait: float
) -> None:
    """Three in four collages take the usual time. A failure tells nothing; one cancelled at 0.125 s took longer."""
    rules = replace(COLLAGE, group_wait=0.234375)
    collages = {group: Seen(0.03125) if group % 4 == 0 else usual for group in range(1, GROUPS + 1)}
    cluster = four_a_second(rules, {}, collages)
    waits = [t.at - (t.id - 1) for t in cluster.ordered(SetTimer) if t.timer is Timer.CLOSE]
    assert waits[0] == 0.234375
    assert waits[-1] == pytest.approx(wait, rel=0.05)


@pytest.mark.parametrize(
    ("thrifty", "collage", "replica_at", "end"),
    [
        (False, Seen(0.125), 0.25, ended(0.3125, AnswerCoded(1000, 101, 0, True))),
        (True, Seen(0.125), None, ended(0.3125, AnswerCoded(1000, 101, 0, True))),
        (True, Seen(0.125, {}), 0.3125, ended(0.4375, Answer(1000, 1))),
        (True, Broken(0.09375), 0.28125, ended(0.40625, Answer(1000, 1))),
        (True, None, 0.1875 + 0.125, ended(0.4375, Answer(1000, 1))),
    ],
)
def test_a_thrifty_straggler_waits_for_its_collage_until_that_is_late_itself(
    thrifty: bool, collage: Seen | Broken | None, replica_at: float | None, end: object
) -> None:
    """Collages take 0.125 s; this one is sent 0.0625 s before the deadline of its first member."""
    collages = dict.fromkeys(range(1, 101), Seen(0.125)) | {101: collage}
    rules = replace(COLLAGE, await_coded=thrifty, group_wait=1.0)
    cluster = Virtual(rules, {(1000, 0): None, (1000, 1): QUICK}, collages, usual=After(0.15625))
    for group in range(100):
        cluster.arrive(*range(4 * group, 4 * group + 4), at=float(group))
    cluster.arrive(1000, at=100.0)
    cluster.arrive(1001, 1002, 1003, at=100.1875)
    cluster.run()
    at, kind, what = cluster.ends[1000]
    assert (at - 100, kind, what) == (pytest.approx(end[0], abs=0.005), *end[1:])  # type: ignore[index]
    assert (Send(1000, 1) in cluster.ordered(Send)) == (replica_at is not None)
    if replica_at is not None:
        assert cluster.when(Send(1000, 1)) - 100 == pytest.approx(replica_at, abs=0.005)


@pytest.mark.parametrize(
    ("quick", "last", "takes", "replica_at", "replicas"),
    [(0, 100, 0.3125, 0.3125, 1), (0, 100, 0.375, 0.25, 2), (200, 250, 0.375, 0.25, 2)],
)
def test_no_straggler_waits_for_a_collage_that_usually_takes_longer_than_a_replica_from_now(
    quick: int, last: int, takes: float, replica_at: float, replicas: int
) -> None:
    """s-cnns take 0.125 s: at the deadline, 0.25, a replica would be back at 0.375; else the collage is waited for.

    How long collages take is what the last ones took, however quick others were before. A second replica takes the
    place of one that is of no help.
    """
    collages: Collages = {group: Seen(0.15625 if group <= quick else takes) for group in range(1, last + 1)}
    replies: Replies = {(4 * group, attempt): None for group in range(last) for attempt in (0, 1)}
    rules = replace(COLLAGE, await_coded=True, extra_load=1.0)
    cluster = Virtual(rules, {**replies, (4 * last, 0): None}, {**collages, last + 1: None}, usual=QUICK)
    for group in range(last + 1):
        cluster.arrive(*range(4 * group, 4 * group + 4), at=float(group))
    cluster.run()
    sent = [at - last for at, action in cluster.log if isinstance(action, Send) and action.request == 4 * last]
    assert sent == [0, *(replicas * [pytest.approx(replica_at, abs=0.01)])]


@pytest.mark.parametrize(("thrifty", "replica_at"), [(False, 0.25), (True, 0.125)])
def test_if_the_collage_is_late_first_its_members_straggle_at_once(thrifty: bool, replica_at: float) -> None:
    collages = dict.fromkeys(range(1, 101), Seen(0.125)) | {101: None}
    rules = replace(COLLAGE, late_coded=thrifty)
    cluster = Virtual(rules, {(1000, 0): None, (1000, 1): QUICK}, collages, usual=After(0.15625))
    for group in range(100):
        cluster.arrive(*range(4 * group, 4 * group + 4), at=float(group))
    cluster.arrive(1000, 1001, 1002, 1003, at=100.0)
    cluster.run()
    assert cluster.when(Send(1000, 1)) - 100 == pytest.approx(replica_at, abs=0.005)
    assert not {Send(id, 1) for id in range(400)} & set(cluster.ordered(Send))


@pytest.mark.parametrize("known", [False, True])
def test_a_collage_that_is_never_seen_to_end_is_late_after_two_medians(known: bool) -> None:
    """However long ago the last one came back: all that is known of those of a frozen worker is that they take long."""
    rules = replace(COLLAGE, await_coded=True, group_wait=1.0, extra_load=2.0)
    frozen = 400
    collages: Collages = dict.fromkeys(range(1, 101), Seen(0.125)) if known else {}
    cluster = Virtual(rules, {(id, 0): None for id in range(4 * frozen)}, collages, usual=QUICK)
    for group in range(frozen):
        cluster.arrive(4 * group, at=float(group))
        cluster.arrive(*range(4 * group + 1, 4 * group + 4), at=group + 0.1875)
    cluster.run()
    waits = [cluster.when(Send(4 * group, 1)) - group for group in range(100, frozen)]
    assert max(waits) <= (0.1875 + 0.25 + 0.01 if known else 0.25)
