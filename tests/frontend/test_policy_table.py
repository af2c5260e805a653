"""The decision table of docs/policy.md, row by row, against the policy."""

from dataclasses import replace
from pathlib import Path

import pytest

from frontend.policy.events import AnswerCoded, Fail, Send, Straggles
from frontend.policy.rules import Rules
from tests.frontend.virtual import QUICK, Broken, Collages, Replies, Run, Seen, Virtual

DOCUMENT = Path(__file__).parents[2] / "docs" / "policy.md"
POLICIES = ("replicate", "hedge", "collage-only", "first-come", "collage", "adaptive")
WARM_UP, LATE = 100, 0.21875
"""Groups before the one that is looked at; when its last members arrive if its code is not to be late."""
IN_TIME = ("under way", "unsure", "unsure, patience over")
RUNS: dict[str, Run] = {
    "none": None,
    "under way": None,
    "late": None,
    "slower than a replica": None,
    "lost": Broken(0.1875),
    "sure": Seen(0.1875, {0: 1.0}),
    "unsure": Seen(0.015625, {0: 0.25}),
    "unsure, patience over": Seen(0.3125 - LATE, {0: 0.25}),
}


def table() -> list[tuple[str, ...]]:
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith(("| under way", "| none left"))]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


ROWS = [
    (*row[:3], policy, row[column])
    for row in table()
    for policy, column in zip(POLICIES, (3, 3, 4, 4, 5, 6), strict=True)
]


def test_the_table_has_every_state_of_the_code_and_no_other() -> None:
    assert {row[1] for row in ROWS} == RUNS.keys()
    assert len(ROWS) == 15 * len(POLICIES)


@pytest.mark.parametrize(("copies", "coded", "budget", "policy", "decision"), ROWS)
def test_a_straggler_gets_what_the_table_says(copies: str, coded: str, budget: str, policy: str, decision: str) -> None:
    """s-cnns take .125 s, deadlines are .25 s, collages usually .0625 s (or .375 s, where they are slow)."""
    rules = Rules.named(policy, deadline=0.25, margin=0.125, accept=0.5, extra_load=1.0 if budget == "left" else 0.0)
    rules = replace(rules, shortest=0.25, longest=0.25)
    slow = coded == "slower than a replica"
    usual: Collages = dict.fromkeys(range(1, WARM_UP + 1), Seen(0.375) if slow else Seen(0.0625, {}))
    silent: Replies = {(4 * group, attempt): None for group in range(WARM_UP if slow else 0) for attempt in range(3)}
    straggler, at = 4 * WARM_UP, float(WARM_UP)
    fate = Broken(0.25, unreachable=False) if copies == "none left" else None
    cluster = Virtual(
        rules,
        {**silent, (straggler, 0): fate, **{(straggler, attempt): None for attempt in (1, 2)}},
        {**usual, WARM_UP + 1: RUNS[coded]},
        usual=QUICK,
        accept=0.5,
    )
    for group in range(WARM_UP):
        cluster.arrive(*range(4 * group, 4 * group + 4), at=float(group))
    cluster.arrive(straggler, at=at)
    if coded != "none":
        joined_at = at + LATE if coded in IN_TIME else at
        cluster.arrive(straggler + 1, straggler + 2, straggler + 3, at=joined_at)
    cluster.run()
    assert made(cluster, straggler, at, by=at + (0.3125 if "over" in coded else 0.26)) == decision


def made(cluster: Virtual, straggler: int, at: float, by: float) -> str:
    """What was decided about the straggler by some time."""
    log = [action for when, action in cluster.log if at < when <= by and getattr(action, "request", None) == straggler]
    if any(isinstance(action, AnswerCoded) for action in log):
        return "coded"
    assert any(isinstance(action, Straggles) for action in log)
    if any(isinstance(action, Fail) for action in log):
        return "fail"
    replicas = sum(isinstance(action, Send) for action in log)
    return {0: "wait", 1: "replica", 2: "2 replicas"}[replicas]
