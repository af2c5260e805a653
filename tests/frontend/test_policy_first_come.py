"""ParM's policy: whichever answer is there first, late or not, in virtual time."""

from encoder.code import GroupShape
from frontend.policy.events import Answer, AnswerCoded, Send
from frontend.policy.rules import Rules
from tests.frontend.virtual import After, Broken, Replies, Run, Seen, Virtual, ended

PAIR = GroupShape(2, 1, needed=2, fewest=2)
FIRST = Rules.named("first-come", extra_load=1.0, margin=0.125)


def pair(replies: Replies, run: Run) -> Virtual:
    """Requests 1 and 2 in one group, whose redundant input is sent at 0."""
    cluster = Virtual(FIRST, replies, {1: run}, shape=PAIR)
    cluster.arrive(1, 2, timeout=4.0)
    return cluster.run()


def test_first_come_takes_whichever_answer_is_there_first_before_any_deadline() -> None:
    cluster = pair({(1, 0): After(0.0625), (2, 0): After(0.1875)}, Seen(0.125, {1: 0.0}))
    assert cluster.ends[1] == ended(0.0625, Answer(1, 0))
    assert cluster.ends[2] == ended(0.125, AnswerCoded(2, 1, 1, True, early=True))


def test_first_come_decodes_when_the_siblings_answer_comes_after_the_redundant_one() -> None:
    cluster = pair({(1, 0): After(0.125), (2, 0): After(0.1875)}, Seen(0.0625))
    assert cluster.ends[1] == ended(0.125, Answer(1, 0))
    assert cluster.ends[2] == ended(0.125, AnswerCoded(2, 1, 1, True, early=True))


def test_first_come_waits_for_the_own_answer_where_the_redundant_one_never_comes() -> None:
    for run in (None, Broken(0.0625)):
        cluster = pair({(1, 0): After(0.5), (2, 0): After(0.125)}, run)
        assert cluster.ends[1] == ended(0.5, Answer(1, 0))
        assert [action for action in cluster.ordered(Send) if action.attempt] == []
