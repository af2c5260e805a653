"""What holds whatever happens: random traffic, workers, failures and hang-ups, delivered in random batches.

The referee in virtual.py checks every batch; here are only the scenarios. Times are multiples of 1/64 s, so that things
often happen at once.
"""

import math
from collections import Counter
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.code import GroupShape
from frontend.policy.accuracy import ErrorStep
from frontend.policy.budget import Budget
from frontend.policy.events import Send, SendCoded
from frontend.policy.rules import POLICIES, Rules
from tests.frontend.virtual import After, Broken, Collages, Replies, Run, Seen, Virtual, Window, collage


@dataclass(frozen=True)
class PlannedRequest:
    gap: float  # since the one before
    timeout: float
    hangs_up: float | None  # so long after its arrival
    attempts: tuple[After | Broken | None, ...]


def ticks(least: int, most: int) -> st.SearchStrategy[float]:
    return st.integers(least, most).map(lambda tick: tick / 64)


def attempts() -> st.SearchStrategy[After | Broken | None]:
    return st.one_of(
        ticks(1, 14).map(After), ticks(1, 64).map(After), st.builds(Broken, ticks(0, 32), st.booleans()), st.none()
    )


requests = st.builds(
    PlannedRequest,
    gap=st.one_of(st.just(0.0), ticks(0, 8)),
    timeout=st.one_of(st.just(4.0), ticks(0, 96)),
    hangs_up=st.one_of(st.none(), st.none(), ticks(1, 64)),
    attempts=st.tuples(attempts(), attempts(), attempts(), attempts()),
)
runs = st.one_of(
    ticks(1, 24).map(Seen),
    st.builds(Seen, ticks(1, 64), st.dictionaries(st.integers(0, 8), st.sampled_from([0.2, 0.5, 0.9]))),
    st.builds(Broken, ticks(0, 32)),
    st.none(),
)
rules = st.builds(
    Rules.named,
    st.sampled_from([*POLICIES, "collage", "adaptive"]),
    deadline=ticks(8, 20),
    group_wait=ticks(0, 20),
    accept=st.sampled_from([0.0, 0.5, None]),
    patience=st.sampled_from([1.0, 1.5, math.inf]),
    audit=st.sampled_from([0.0, 0.3, 1.0]),
    extra_load=st.sampled_from([0.0, 0.125, 0.25, 2.0]),
    attempts=st.integers(2, 4),
    margin=ticks(0, 2),
    accuracy=st.sampled_from([None, None, 0.0, 0.01, 0.25]),
)
TABLE = (ErrorStep(0.0, 0.25, 0.125, 0.5), ErrorStep(0.5, 0.125, 0.0625, 0.25), ErrorStep(0.75, 0.0, 0.03125, 0.0625))
windows = st.lists(st.builds(Window, ticks(0, 8), st.booleans()), max_size=60)
collages = st.one_of(runs, st.tuples(runs, runs))
SHAPES = [collage(4), collage(9), GroupShape(2, 1, 2, 2), GroupShape(3, 2, 3, 3), GroupShape(4, 2, 4, 4)]
coded_workers = st.tuples(st.sampled_from([0, 1, 1, 2]), st.sampled_from(SHAPES))


@settings(max_examples=200, deadline=None)
@given(
    rules=rules,
    traffic=st.lists(requests, min_size=1, max_size=40),
    collages=st.lists(collages, max_size=12),
    usual=st.sampled_from([None, After(0.125)]),
    first=coded_workers,
    changes=st.lists(st.tuples(ticks(0, 96), coded_workers), max_size=3),
    windows=windows,
    deaf=st.booleans(),
)
def test_every_request_ends_once_and_leaves_nothing_behind(
    rules: Rules,
    traffic: list[PlannedRequest],
    collages: list[Run | tuple[Run, ...]],
    usual: After | None,
    first: tuple[int, GroupShape],
    changes: list[tuple[float, tuple[int, GroupShape]]],
    windows: list[Window],
    deaf: bool,
) -> None:
    cluster = Virtual(
        rules,
        {(id, attempt): reply for id, request in enumerate(traffic) for attempt, reply in enumerate(request.attempts)},
        dict(enumerate(collages, start=1)),
        usual=usual,
        workers=first[0],
        shape=first[1],
        errors=TABLE,
        windows=windows,
        deaf=deaf,
    )
    at = 0.0
    for id, request in enumerate(traffic):
        at += request.gap
        cluster.arrive(id, at=at, timeout=request.timeout)
        if request.hangs_up is not None:
            cluster.hang_up(id, at + request.hangs_up)
    for when, (workers, shape) in changes:
        cluster.coded_workers(workers, shape, at=when)
    cluster.run()
    assert cluster.ends.keys() == set(range(len(traffic)))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("policy", ["collage", "adaptive"])
@pytest.mark.parametrize(("per_second", "workers", "cells"), [(8, 1, 9), (150, 3, 9), (400, 25, 4)])
def test_long_runs_of_likely_traffic(seed: int, policy: str, per_second: float, workers: int, cells: int) -> None:
    random = np.random.default_rng(seed)
    count = 1500
    rules = Rules.named(policy, accept=0.5)
    slow = random.random((count, 4)) < 0.05
    broken = random.random((count, 4)) < 0.02
    service = np.where(slow, random.normal(0.7, 0.05, (count, 4)), random.normal(0.14, 0.01, (count, 4)))
    replies: Replies = {
        (id, attempt): Broken(0.01) if broken[id, attempt] else After(float(service[id, attempt]))
        for id in range(count)
        for attempt in range(4)
    }
    seen: Collages = {
        group: Seen(
            float(random.normal(0.13, 0.01)), {c: float(random.random()) for c in range(cells) if c != group % 20}
        )
        for group in range(1, count)
        if group % 50
    }
    cluster = Virtual(
        rules, replies, seen, workers=workers, cells=cells, windows=[Window(w) for w in random.exponential(0.001, 5000)]
    )
    for id, at in enumerate(np.cumsum(random.exponential(1 / per_second, count))):
        cluster.arrive(id, at=float(at))
        if id % 100 == 0:
            cluster.hang_up(id, float(at) + 0.1)
    cluster.run()
    ends = Counter(kind for _, kind, _ in cluster.ends.values())
    assert sum(ends.values()) == count
    assert ends["Fail"] == 0
    assert ends["Gone"] <= count // 100
    replicas, collages = len(cluster.ordered(Send)) - count, len(cluster.ordered(SendCoded))
    assert replicas + collages <= 1 + rules.extra_load * count + broken.sum()
    if per_second < 10:
        assert replicas > 5 * collages  # at low traffic the budget buys replicas, at high traffic collages
    else:
        assert collages > count / cells / 2
        assert ends["AnswerCoded"] > 20


def test_after_an_outage_the_code_protects_again_at_once() -> None:
    rules = Rules.named("collage", extra_load=0.5)
    outage: dict[tuple[int, int], After | Broken | None] = {
        (id, attempt): Broken(0.001) for id in range(1000) for attempt in range(3)
    }
    cluster = Virtual(rules, outage | {(1040, 0): None}, dict.fromkeys(range(2000), Seen(0.1)), usual=After(0.125))
    for id in range(1044):
        cluster.arrive(id, at=id / 64 if id < 1000 else 20.0)
    cluster.run()
    assert cluster.ends[999][1] == "Fail"
    assert cluster.ends[1040][1] == "AnswerCoded"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=200), st.floats(0, 2))
def test_redundancy_never_comes_in_a_larger_burst_than_ten(gaps: list[int], rate: float) -> None:
    """However long the quiet time before, and whatever is asked for."""
    budget = Budget(rate)
    spent: list[tuple[int, int]] = []  # how many ordinary requests there had been, and which redundant one this is
    ordinary = 0
    for gap in gaps:
        for _ in range(gap):
            budget.earn()
        ordinary += gap
        if budget.spend():
            spent.append((ordinary, len(spent)))
    for (earlier, first), (later, last) in combinations(spent, 2):
        assert last - first + 1 <= 10 + rate * (later - earlier) + 1e-6
