"""Worker choice, pure."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.policy.balance import Balancer
from frontend.policy.choices import SAMPLED, FewestCalls, PowerOfTwo, mean_latency
from frontend.policy.ejection import Ejection
from frontend.policy.shelves import Peer


def balancer(workers: int, ejection: Ejection | None = None) -> Balancer:
    made = Balancer(ejection, seed=1, choice=PowerOfTwo() if ejection else None)  # or the slow are hardly called
    for number in range(workers):
        made.set_ready(f"w{number}", True)
    return made


def test_the_least_loaded_worker_is_picked() -> None:
    workers = balancer(5)
    for expected in (1, 2, 3):
        for _ in range(5):
            name = workers.pick(0.0)
            assert name is not None
            workers.started(name)
            assert workers.outstanding(name) == expected


def test_a_released_worker_is_the_least_loaded() -> None:
    workers = balancer(4)
    for number in range(4):
        workers.started(f"w{number}")
    workers.released("w2")
    assert workers.pick(0.0) == "w2"


def test_of_two_equally_loaded_the_faster_one() -> None:
    workers = balancer(2)
    workers.succeeded("w0", 0.0, 0.2)
    workers.succeeded("w1", 0.0, 0.1)
    assert workers.pick(0.0) == "w1"


def test_the_cost_decides_between_equally_loaded_workers_only() -> None:
    def distance(worker: Peer) -> float:
        return float(worker.name.removeprefix("w"))

    workers = Balancer(seed=1, choice=FewestCalls(distance))
    for number in (0, 1):
        workers.set_ready(f"w{number}", True)
    workers.succeeded("w0", 0.0, 0.2)
    workers.succeeded("w1", 0.0, 0.1)
    assert {workers.pick(0.0) for _ in range(20)} == {"w0"}
    workers.started("w0")
    assert workers.pick(0.0) == "w1"


def test_avoided_and_unready_workers_are_not_picked() -> None:
    workers = balancer(3)
    workers.set_ready("w1", False)
    assert {workers.pick(0.0, avoid=["w0"]) for _ in range(20)} == {"w2"}
    assert workers.pick(0.0, avoid=["w0", "w2"]) is None
    workers.remove("w2")
    workers.remove("w0")
    assert workers.pick(0.0) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("srgxfa"), st.integers(0, 5)), max_size=120))
def test_whatever_happens_a_pick_is_a_ready_worker_with_fewest_calls(steps: list[tuple[str, int]]) -> None:
    workers = Balancer(seed=0)
    calls: dict[str, int] = {}
    ready: set[str] = set()
    for step, number in steps:
        name = f"w{number}"
        if step == "s" and name in calls:
            workers.started(name)
            calls[name] += 1
        elif step == "r" and calls.get(name):
            workers.released(name)
            calls[name] -= 1
        elif step == "g":
            workers.set_ready(name, True)
            calls.setdefault(name, 0)
            ready.add(name)
        elif step == "x" and name in calls:
            workers.set_ready(name, False)
            ready.discard(name)
        elif step == "f":
            workers.remove(name)
            calls.pop(name, None)
            ready.discard(name)
        picked = workers.pick(0.0)
        assert (picked is None) == (not ready)
        if picked is not None:
            assert picked in ready
            assert calls[picked] == min(calls[other] for other in ready)
        for other, count in calls.items():
            assert workers.outstanding(other) == count


@pytest.mark.parametrize("count", [9, 900])
def test_a_pick_costs_the_same_however_many_workers(count: int) -> None:
    """Counted, not timed: a pick compares a few workers, not all of them."""
    looked = 0

    def counted(worker: Peer) -> float:
        nonlocal looked
        looked += 1
        return mean_latency(worker)

    workers = Balancer(seed=1, choice=FewestCalls(counted))
    for number in range(count):
        workers.set_ready(f"w{number}", True)
    for _ in range(100):
        name = workers.pick(0.0)
        assert name is not None
        workers.started(name)
    assert 100 <= looked <= 100 * SAMPLED
