"""Codes that need the siblings' answers, and codes with several redundant inputs, in virtual time.

A group of N = 2 with r = 1 (needed 2) stands for parity models, one of N = 4 with r = 2 (needed 4) for two of them.
"""

from dataclasses import replace

import pytest

from encoder.code import GroupShape
from frontend.policy.budget import Budget
from frontend.policy.events import (
    Answer,
    AnswerCoded,
    Answered,
    Arrived,
    Cancel,
    CancelCoded,
    CodedWorkers,
    Decoded,
    Due,
    Fail,
    Failed,
    Gone,
    Returned,
    Send,
    SendCoded,
    Straggles,
    Timer,
)
from frontend.policy.groups import Progress
from frontend.policy.machine import Policy
from frontend.policy.rules import Rules
from tests.frontend.referee import exact
from tests.frontend.virtual import (
    COLLAGE,
    QUICK,
    After,
    Broken,
    Replies,
    Run,
    Seen,
    Virtual,
    collage,
    ended,
    sent,
)

PAIR = GroupShape(2, 1, needed=2, fewest=2)
DOUBLE = GroupShape(4, 2, needed=4, fewest=4)
ONLY = Rules.named("collage-only", extra_load=1.0, margin=0.125)
AWAIT = replace(COLLAGE, await_coded=True, group_wait=1.0)


def pair(rules: Rules, replies: Replies, run: Run, **how: float) -> Virtual:
    """Requests 1 and 2 in one group, whose redundant input is sent at 0."""
    cluster = Virtual(rules, replies, {1: run}, usual=QUICK, shape=PAIR)
    cluster.arrive(1, 2, timeout=4.0)
    for request, at in how.items():
        cluster.hang_up(int(request[1:]), at)
    cluster.run()
    assert cluster.when(sent(1, {0: 1, 1: 2}, PAIR)) == 0
    return cluster


def four(rules: Rules, replies: Replies, runs: tuple[Run, Run]) -> Virtual:
    """Requests 1 to 4 in one group with two redundant inputs, sent at 0."""
    cluster = Virtual(rules, replies, {1: runs}, usual=QUICK, shape=DOUBLE)
    cluster.arrive(1, 2, 3, 4, timeout=4.0)
    return cluster.run()


@pytest.mark.parametrize(
    ("shape", "own", "coded", "decodable"),
    [
        (GroupShape(4, 1, 1, 2), 0, 1, True),
        (GroupShape(4, 1, 1, 2), 3, 0, False),
        (PAIR, 0, 1, False),
        (PAIR, 1, 1, True),
        (PAIR, 2, 0, False),
        (DOUBLE, 2, 2, True),
        (DOUBLE, 3, 1, True),
        (DOUBLE, 2, 1, False),
    ],
)
def test_when_a_group_is_decodable(shape: GroupShape, own: int, coded: int, decodable: bool) -> None:
    assert shape.decodable(own, coded) is decodable


@pytest.mark.parametrize(
    "numbers", [(0, 1, 1, 1), (4, 0, 1, 1), (4, 2, 1, 1), (4, 1, 5, 1), (4, 1, 1, 5), (4, 1, 1, 0)]
)
def test_shapes_that_no_code_has_are_refused(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="no code"):
        GroupShape(*numbers)


def test_progress_becomes_decodable_once() -> None:
    progress = Progress(DOUBLE)
    assert [progress.answered(0), progress.answered(1), progress.answered(1), progress.returned(ok=False)] == [
        False
    ] * 4
    assert (progress.out, progress.back, progress.lacking) == (1, 0, 1)
    assert (progress.reachable(0), progress.reachable(1)) == (False, True)
    assert not progress.returned(ok=True)
    assert progress.answered(2)
    assert not progress.answered(3)
    assert not progress.returned(ok=True), "nothing more is out"
    assert (progress.out, progress.back) == (0, 1)


def test_a_straggler_is_decoded_once_its_sibling_has_answered() -> None:
    cluster = pair(COLLAGE, {(1, 0): None, (2, 0): After(0.1875)}, Seen(0.125))
    assert cluster.ends[1] == ended(0.25, AnswerCoded(1, 1, 0, True))


def test_a_sibling_that_answers_after_the_deadline_makes_the_straggler_decodable() -> None:
    cluster = pair(ONLY, {(1, 0): None, (2, 0): After(0.5)}, Seen(0.125))
    assert cluster.ends[1] == ended(0.5, AnswerCoded(1, 1, 0, True))
    assert cluster.ends[2] == ended(0.5, Answer(2, 0))


def test_the_answer_of_a_siblings_replica_counts_as_its_own() -> None:
    replies: Replies = {(1, 0): None, (1, 1): None, (2, 0): None, (2, 1): QUICK}
    cluster = pair(COLLAGE, replies, Seen(0.125))
    assert cluster.ends[2] == ended(0.375, Answer(2, 1))
    assert cluster.ends[1] == ended(0.375, AnswerCoded(1, 1, 0, True))


def test_two_stragglers_that_cannot_be_decoded_together_are_both_replicated() -> None:
    cluster = pair(AWAIT, {(1, 0): None, (1, 1): QUICK, (2, 0): None, (2, 1): After(0.5)}, Seen(0.125))
    assert cluster.when(Send(1, 1)) == cluster.when(Send(2, 1)) == 0.25
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))
    assert cluster.ends[2] == ended(0.375, AnswerCoded(2, 1, 1, True))


def test_a_straggler_waits_for_a_sibling_that_is_not_late_itself() -> None:
    cluster = Virtual(AWAIT, {(1, 0): None, (2, 0): After(0.1875)}, {1: Seen(0.03125)}, usual=QUICK, shape=PAIR)
    cluster.arrive(1)
    cluster.arrive(2, at=0.1875)
    cluster.run()
    assert cluster.ends[1] == ended(0.375, AnswerCoded(1, 1, 0, True))
    assert Send(1, 1) not in cluster.ordered(Send)


def test_and_is_replicated_at_the_siblings_deadline() -> None:
    cluster = Virtual(AWAIT, {(1, 0): None, (2, 0): None}, {1: Seen(0.03125)}, usual=QUICK, shape=PAIR)
    cluster.arrive(1)
    cluster.arrive(2, at=0.1875)
    cluster.run()
    assert cluster.when(Send(1, 1)) == 0.4375


@pytest.mark.parametrize("run", [Seen(0.125), Broken(0.125), None])
def test_when_all_copies_of_both_have_failed_nobody_waits(run: Run) -> None:
    broken: Replies = {(request, 0): Broken(0.0625, unreachable=False) for request in (1, 2)}
    cluster = pair(ONLY, broken, run)
    assert cluster.ends[1] == ended(0.0625, Fail(1, expired=False))
    assert cluster.ends[2] == ended(0.0625, Fail(2, expired=False))


def test_a_straggler_does_not_wait_for_a_sibling_that_failed_before_its_deadline() -> None:
    replies: Replies = {(1, 0): None, (1, 1): QUICK, (2, 0): Broken(0.03125), (2, 1): QUICK}
    cluster = Virtual(AWAIT, replies, {1: Seen(0.03125)}, usual=QUICK, shape=PAIR)
    cluster.arrive(1)
    cluster.arrive(2, at=0.1875)
    cluster.run()
    assert cluster.when(Send(1, 1)) == 0.25


def test_redundant_runs_that_are_back_are_waited_for_no_more() -> None:
    """However long they usually take: the sibling's deadline decides."""
    silent: Replies = {(10 * group, attempt): None for group in range(1, 102) for attempt in (0, 1)}
    runs = {group: Seen(0.375) for group in range(1, 101)} | {101: Seen(0.03125)}
    cluster = Virtual(replace(AWAIT, extra_load=2.0), {**silent, (1011, 0): None}, runs, usual=QUICK, shape=PAIR)
    for group in range(1, 101):
        cluster.arrive(10 * group, 10 * group + 1, at=float(group))
    cluster.arrive(1010, at=101.0)
    cluster.arrive(1011, at=101.1875)
    cluster.run()
    assert cluster.when(Send(1010, 1)) == 101.4375


def test_and_at_once_when_the_sibling_will_have_no_answer() -> None:
    """The sibling's copies have both failed: it waits for the straggler, which is replicated for the sake of both."""
    replies: Replies = {(1, 0): None, (1, 1): QUICK, (2, 0): Broken(0.09375), (2, 1): Broken(0.03125)}
    cluster = Virtual(replace(AWAIT, attempts=2), replies, {1: Seen(0.03125)}, usual=QUICK, shape=PAIR)
    cluster.arrive(1)
    cluster.arrive(2, at=0.1875)
    cluster.run()
    assert cluster.when(Send(1, 1)) == 0.3125
    assert cluster.ends[2] == ended(0.4375, AnswerCoded(2, 1, 1, True))


def test_one_without_copies_waits_for_the_redundant_run_after_its_siblings_replica_answered() -> None:
    replies: Replies = {(1, 0): Broken(0.0625), (1, 1): Broken(0.0625), (2, 0): None, (2, 1): QUICK}
    cluster = pair(replace(COLLAGE, attempts=2), replies, Seen(0.5))
    assert cluster.ends[2] == ended(0.375, Answer(2, 1))
    assert cluster.ends[1] == ended(0.5, AnswerCoded(1, 1, 0, True))


def test_one_whose_copies_have_failed_waits_for_its_siblings_answer() -> None:
    cluster = pair(ONLY, {(1, 0): Broken(0.0625, unreachable=False), (2, 0): After(0.5)}, Seen(0.125))
    assert cluster.ends[1] == ended(0.5, AnswerCoded(1, 1, 0, True))


@pytest.mark.parametrize(("how", "at"), [({"r2": 0.375}, 0.375), ({}, 0.5)])
def test_and_fails_when_the_sibling_will_have_none(how: dict[str, float], at: float) -> None:
    replies: Replies = {(1, 0): Broken(0.0625, unreachable=False), (2, 0): Broken(0.5, unreachable=False)}
    cluster = pair(ONLY, replies, Seen(0.125), **how)
    assert cluster.ends[1] == ended(at, Fail(1, expired=False))


def test_two_losses_are_decoded_from_two_redundant_outputs() -> None:
    cluster = four(COLLAGE, {(1, 0): None, (3, 0): None}, (Seen(0.125), Seen(0.1875)))
    assert cluster.ends[1] == ended(0.25, AnswerCoded(1, 1, 0, True))
    assert cluster.ends[3] == ended(0.25, AnswerCoded(3, 1, 2, True))


@pytest.mark.parametrize("failed", [0, 1])
def test_one_loss_is_decoded_though_one_of_two_redundant_runs_fails(failed: int) -> None:
    runs: list[Run] = [Seen(0.125), Seen(0.125)]
    runs[failed] = Broken(0.0625)
    cluster = four(COLLAGE, {(1, 0): None}, (runs[0], runs[1]))
    assert cluster.ends[1] == ended(0.25, AnswerCoded(1, 1, 0, True))


def test_two_losses_are_not_decoded_if_one_of_two_redundant_runs_fails() -> None:
    cluster = four(COLLAGE, {(1, 0): None, (1, 1): None, (3, 0): None, (3, 1): QUICK}, (Seen(0.125), Broken(0.125)))
    assert cluster.ends[3] == ended(0.375, Answer(3, 1))
    assert cluster.ends[1] == ended(0.375, AnswerCoded(1, 1, 0, True))


def test_when_a_group_is_decoded_redundant_runs_still_under_way_are_cancelled() -> None:
    cluster = four(COLLAGE, {(1, 0): None}, (Seen(0.1875), None))
    assert cluster.ends[1] == ended(0.25, AnswerCoded(1, 1, 0, True))
    assert cluster.when(CancelCoded(1)) == 0.1875


def test_a_worker_is_idle_again_when_all_redundant_runs_are_back_though_nothing_is_decoded() -> None:
    """A group that waits for siblings holds no redundant worker: the next group may close."""
    rules = replace(ONLY, group_wait=0.0)
    late = GroupShape(2, 1, needed=2, fewest=1)
    cluster = Virtual(rules, {(1, 0): After(1.0), (2, 0): After(1.0)}, {1: Seen(0.125)}, usual=QUICK, shape=late)
    cluster.arrive(1, 2)
    cluster.arrive(3, at=0.0625)
    cluster.run()
    assert cluster.when(sent(2, {0: 3}, late)) == 0.125


def test_a_group_costs_a_token_for_each_redundant_input() -> None:
    rules = replace(ONLY, extra_load=0.25)
    cluster = Virtual(rules, {}, {}, usual=QUICK, shape=DOUBLE)
    for group in range(8):
        cluster.arrive(*range(4 * group, 4 * group + 4), at=float(group))
    cluster.run()
    assert [action.group for action in cluster.ordered(SendCoded)] == [1, 3, 5, 7]


def test_a_group_is_not_closed_early_while_the_budget_does_not_allow_all_its_redundant_inputs() -> None:
    half = GroupShape(4, 2, needed=2, fewest=2)
    cluster = Virtual(replace(ONLY, extra_load=0.25, group_wait=0.0625), {}, {}, usual=After(0.5), shape=half)
    cluster.arrive(1, 2)  # 1.5 tokens: the group stays open at 0.0625
    cluster.arrive(3, 4, at=0.125)
    cluster.run()
    assert cluster.ordered(SendCoded) == [sent(1, {place: place + 1 for place in range(4)}, half)]


def test_runs_that_were_never_sent_cost_nothing() -> None:
    policy = Policy(replace(ONLY, extra_load=0.5))
    policy.handle([CodedWorkers(0.0, 1, DOUBLE), *(Arrived(0.0, request, 4.0) for request in range(4))])
    spent = policy.budget.tokens
    policy.handle([Returned(0.1, 1, ok=False, sent=False), Returned(0.1, 1, ok=False)])
    assert policy.budget.tokens == spent + 1


@pytest.mark.parametrize(("rate", "shape", "scarce"), [(0.5, PAIR, False), (0.47, PAIR, True), (0.5, DOUBLE, False),
                                                       (0.25, DOUBLE, True), (1.0, None, True)])  # fmt: skip
def test_a_budget_is_scarce_where_it_pays_less_than_the_inputs_of_nearly_every_group(
    rate: float, shape: GroupShape | None, scarce: bool
) -> None:
    assert Budget(rate).scarce(shape) is scarce


def test_an_own_answer_beats_a_redundant_run_that_failed_in_the_same_batch() -> None:
    """Else a replica would be sent only to be cancelled."""
    policy = Policy(replace(COLLAGE, extra_load=0.2))
    policy.handle([CodedWorkers(0.0, 1, collage(4)), *(Arrived(0.0, request, 4.0) for request in (1, 2, 3, 4))])
    policy.handle([Answered(0.125, request, 0) for request in (2, 3, 4)])
    assert exact(policy.handle([Due(0.25, Timer.DEADLINE, 1)])) == exact([Straggles(1)]), "there is no token left"
    policy.handle([Arrived(0.2578125, 5, 4.0)])
    told = policy.handle([Returned(0.265625, 1, ok=False), Answered(0.28125, 1, 0)])
    assert exact(told) == exact([Answer(1, 0), CancelCoded(1)])


def test_groups_of_a_code_that_needs_all_members_never_close_early() -> None:
    cluster = Virtual(COLLAGE, {(1, 0): None, (1, 1): QUICK}, shape=DOUBLE, usual=QUICK)
    cluster.arrive(1, 2, 3)
    cluster.run()
    assert cluster.ordered(SendCoded) == []
    assert cluster.ends[1] == ended(0.375, Answer(1, 1))


def test_a_group_that_will_never_be_decodable_is_told_so_by_an_empty_decoding() -> None:
    """As when a sibling's answer is of another version of the base model than the code's."""
    policy = Policy(ONLY)
    policy.handle([CodedWorkers(0.0, 1, PAIR), Arrived(0.0, 1, 4.0), Arrived(0.0, 2, 4.0)])
    policy.handle([Failed(0.0625, 1, 0, unreachable=False), Returned(0.125, 1)])
    assert exact(policy.handle([Answered(0.25, 2, 0)])) == exact([Answer(2, 0)])
    assert exact(policy.handle([Decoded(0.25, 1, {})])) == exact([Fail(1, expired=False)])
    assert policy.open_requests == 0


def test_a_sibling_that_hangs_up_is_no_answer() -> None:
    policy = Policy(ONLY)
    policy.handle([CodedWorkers(0.0, 1, PAIR), Arrived(0.0, 1, 4.0), Arrived(0.0, 2, 4.0)])
    policy.handle([Returned(0.125, 1), Due(0.25, Timer.DEADLINE, 1)])
    assert exact(policy.handle([Gone(0.5, 2)])) == exact([Cancel(2, 0)])
    assert exact(policy.handle([Failed(0.75, 1, 0, unreachable=False)])) == exact([Fail(1, expired=False)])


def test_a_sure_coded_answer_is_given_early_when_the_last_sibling_answers() -> None:
    policy = Policy(replace(COLLAGE, early=True, accept=0.5))
    policy.handle([CodedWorkers(0.0, 1, PAIR), Arrived(0.0, 1, 4.0), Arrived(0.0, 2, 4.0)])
    policy.handle([Returned(0.0625, 1)])
    policy.handle([Answered(0.125, 2, 0)])
    told = policy.handle([Decoded(0.125, 1, {0: 0.5})])
    assert exact(told) == exact([AnswerCoded(1, 1, 0, True, early=True), Cancel(1, 0)])


def test_a_redundant_run_that_is_late_makes_stragglers_but_a_sibling_does_not() -> None:
    rules = replace(COLLAGE, late_coded=True)
    usual = {group: Seen(0.0625) for group in range(1, 101)}
    cluster = Virtual(rules, {(200, 0): None, (202, 0): None}, {**usual, 101: None, 102: Seen(0.0625)},
                      usual=QUICK, shape=PAIR, workers=2)  # fmt: skip
    for group in range(100):
        cluster.arrive(2 * group, 2 * group + 1, at=float(group))
    cluster.arrive(200, 201, at=100.0)
    cluster.arrive(202, 203, at=101.0)
    cluster.run()
    straggles = {action.request: at for at, action in cluster.log if isinstance(action, Straggles)}
    assert straggles[200] - 100 == pytest.approx(0.0625, abs=0.01)
    assert straggles[202] - 101 == pytest.approx(0.25, abs=0.01)
