"""Ejected workers: how long, how many, for failures as well, and how they come back. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import pytest

from frontend.policy.balance import Balancer
from frontend.policy.ejection import Ejection
from tests.frontend.ejecting import Fleet
from tests.frontend.test_balance import balancer


class Traffic:
    """One call after another, by a clock of their own."""

    def __init__(self, workers: Balancer, seed: int) -> None:
        self._workers, self._rng, self._at = workers, random.Random(seed), 0.0

    def drive(self, seconds: float, slow: Mapping[str, float] | None = None) -> Counter[str]:
        """Workers take 0.01 s, in 2 % of the calls 0.07 s, or as long as ``slow`` says; how many calls each got."""
        used: Counter[str] = Counter()
        end = self._at + seconds
        while self._at < end:
            name = self._workers.pick(self._at)
            assert name is not None
            self._workers.started(name)
            latency = (slow or {}).get(name, 0.07 if self._rng.random() < 0.02 else self._rng.gauss(0.01, 0.001))
            self._at += min(latency, 0.016)
            self._workers.released(name)
            if latency > 0.016:
                self._workers.cancelled(name, self._at, 0.016)  # the deadline: nobody waits to the end
            else:
                self._workers.succeeded(name, self._at, latency)
            used[name] += 1
        return used


def test_a_slow_worker_is_ejected_although_its_calls_are_cancelled_and_returns_when_well() -> None:
    workers, told = balancer(9, Ejection()), list[tuple[str, str]]()
    workers.changed = lambda name, reason: told.append((name, reason))
    traffic = Traffic(workers, seed=2)
    traffic.drive(40, {"w3": 0.07})
    assert workers.ejected == 1
    assert traffic.drive(4, {"w3": 0.07})["w3"] <= 1
    for _ in range(40):
        traffic.drive(5)
    assert workers.ejected == 0
    assert (told[0], told[-1]) == (("w3", "it is slow"), ("w3", ""))
    assert traffic.drive(20)["w3"] > 20


def test_a_worker_that_stays_slow_is_probed_less_and_less() -> None:
    traffic = Traffic(balancer(9, Ejection()), seed=3)
    traffic.drive(40, {"w3": 0.07})
    assert traffic.drive(300, {"w3": 0.07})["w3"] <= 8


def test_a_worker_that_was_well_for_as_long_as_it_was_out_has_no_past() -> None:
    workers = balancer(9, Ejection(rest=5.0, longest=300.0))

    def out(at: float) -> float:
        """Three failures eject w3; how long until it may be probed."""
        for _ in range(3):
            workers.failed("w3", at)
        others = [f"w{i}" for i in range(9) if i != 3]
        return next(later for later in range(1, 400) if workers.pick(at + later, others) == "w3")

    def probed(at: float) -> float:
        for _ in range(3):
            workers.succeeded("w3", at, 0.1)
        return at

    assert out(0) == 5
    assert out(5) == 10  # a probe failed
    assert out(probed(15) + 1) == 20  # well, but not for long
    assert out(probed(36) + 19) == 40
    assert out(probed(95) + 40) == 5  # well for as long as it was out


def test_a_worker_is_not_judged_by_its_first_calls() -> None:
    fleet = Fleet(9)
    fleet.answer("w0", *[0.1] * 57)
    fleet.answer("w3", *[0.7] * 6)
    assert fleet.out == [], "nothing is known of the fleet before its 64th call"
    fleet.answer("w0", *[0.1] * 400)
    fleet.answer("w3", *[0.7] * 3)
    assert fleet.out == []
    fleet.answer("w3", *[0.7] * 4)
    assert fleet.out == ["w3"]


@pytest.mark.parametrize(("answered", "ejected"), [(True, 0), (False, 1)])
def test_failures_count_if_they_come_in_a_row(answered: bool, ejected: int) -> None:
    workers = balancer(9, Ejection())
    for _ in range(2):
        workers.failed("w3", 0.0)
    if answered:
        workers.succeeded("w3", 0.0, 0.1)
    for _ in range(2):
        workers.failed("w3", 0.0)
    assert workers.ejected == ejected


def fail(workers: Balancer, *names: str) -> None:
    for name in names:
        for _ in range(3):
            workers.failed(name, 0.0)


def test_the_share_is_one_of_the_workers_that_are_ready() -> None:
    workers = balancer(9, Ejection(share=0.34))
    for number in range(3, 9):
        workers.set_ready(f"w{number}", False)
    fail(workers, "w0", "w1", "w2")
    assert workers.ejected == 1


def test_where_only_ejected_workers_are_left_one_of_them_is_picked() -> None:
    workers = balancer(9, Ejection(share=0.34))
    fail(workers, "w0", "w1", "w2")
    for number in range(3, 9):
        workers.set_ready(f"w{number}", False)
    workers.started("w0")
    workers.started("w2")
    assert workers.pick(0.0) == "w1"
    assert workers.shortest_queue == 0
    assert workers.pick(0.0, avoid=["w1"]) is None, "a further copy would not be worth it"
    workers.remove("w1")
    workers.set_ready("w0", False)
    assert workers.pick(0.0) == "w2"
    assert workers.shortest_queue == 1


def test_first_copies_are_offered_to_a_worker_on_probation_first() -> None:
    """Among a hundred idle ones it would hardly ever be sampled twice."""
    rules = Ejection()
    workers = balancer(100, rules)
    workers.succeeded("w7", 0.0, 5.0)
    for _ in range(rules.failures):
        workers.failed("w7", 0.0)
    assert workers.ejected == 1
    at = rules.rest
    assert workers.pick(at, avoid=["w1"]) != "w7", "replicas are no probes"
    for _ in range(rules.probes):
        assert workers.pick(at) == "w7"
        workers.started("w7")
        assert workers.pick(at) != "w7", "one call at a time"
        workers.released("w7")
        workers.succeeded("w7", at, 0.1)
    assert {workers.pick(at) for _ in range(20)} != {"w7"}


def test_slow_probes_do_not_count_though_there_is_no_room_to_eject_again() -> None:
    fleet, told = Fleet(3, Ejection(share=0.34, rest=1.0)), list[str]()
    fleet.workers.changed = lambda name, reason: told.append(f"{name}: {reason}")
    fleet.answer("w2", *[0.1] * 64)
    fail(fleet.workers, "w0")
    assert fleet.workers.pick(1.0) is not None  # w0 is to show that it is well
    fail(fleet.workers, "w1")
    fleet.answer("w0", 9.0, 9.0, 0.1, 0.1)
    assert told == ["w0: it fails", "w1: it fails"]
    fleet.answer("w0", 0.1)
    assert told[2:] == ["w0: "]


def test_a_slow_probe_is_no_relapse_where_slow_calls_are_usual() -> None:
    """A worker that failed for a while, and is as well as the others again."""
    rng, back = random.Random(5), Counter[str]()
    for _ in range(20):
        fleet, told = Fleet(9), list[str]()
        fleet.each(lambda name: rng.expovariate(7.0), 300)
        fail(fleet.workers, "w0")
        fleet.workers.changed = lambda name, reason, told=told: told.append(reason)  # type: ignore[misc]
        assert fleet.workers.pick(1000.0) == "w0"
        while not told:
            fleet.answer("w0", rng.expovariate(7.0))
        back[told[0]] += 1
    assert back[""] >= 18


def test_chance_ejects_nobody() -> None:
    workers, told = balancer(9, Ejection()), list[str]()
    workers.changed = lambda name, reason: told.append(name)
    Traffic(workers, seed=4).drive(400)
    assert told == []


def line(fleet: Fleet, name: str, count: int, waiting: int, seconds: float) -> None:
    """So many calls, one behind the other, with ``waiting`` others in line all the time."""
    for _ in range(waiting + 1):
        fleet.workers.started(name)
    for _ in range(count):
        fleet.clocks[name] += seconds
        fleet.workers.succeeded(name, fleet.clocks[name], (waiting + 1) * seconds)
    fleet.workers.released(name, waiting + 1)


@pytest.mark.parametrize(
    ("waiting", "seconds", "out"), [(1, 0.1, 0), (4, 0.1, 0), (0, 0.7, 1), (1, 0.7, 1), (4, 0.7, 1)]
)
def test_waiting_in_line_is_no_slowness_but_a_slow_worker_with_a_line_is_slow(
    waiting: int, seconds: float, out: int
) -> None:
    """Workers are not ejected for their load: that would be shared by fewer."""
    fleet = Fleet(9)
    fleet.each(lambda name: 0.1, 40)
    line(fleet, "w8", 20, waiting, seconds)
    assert fleet.workers.ejected == out


def test_a_cancelled_call_that_waited_in_line_proves_nothing() -> None:
    fleet = Fleet(9)
    fleet.each(lambda name: 0.1, 40)
    fleet.cancel("w8", *[0.25] * 20, calls=3)
    assert fleet.out == []


def test_a_call_behind_one_that_was_cancelled_starts_when_that_is() -> None:
    fleet = Fleet(9)
    fleet.each(lambda name: 0.1, 40)
    for _ in range(20):
        fleet.cancel("w8", 0.14, calls=2)
        fleet.clocks["w8"] += 0.1
        fleet.workers.succeeded("w8", fleet.clocks["w8"], 0.24)  # it had waited since the other one was sent
    assert fleet.out == []


def test_never_more_than_the_stated_share() -> None:
    workers = balancer(9, Ejection())
    traffic = Traffic(workers, seed=5)
    traffic.drive(5)
    for _ in range(20):
        traffic.drive(5, {f"w{i}": 0.7 for i in range(4)})
        assert workers.ejected <= 3


def test_failures_in_a_row_eject() -> None:
    workers = balancer(9, Ejection())
    for _ in range(3):
        assert workers.ejected == 0
        workers.failed("w1", 0.0)
    assert workers.ejected == 1
    assert workers.pick(1.0) != "w1"


def test_without_rules_nobody_is_ejected() -> None:
    workers = balancer(3)
    Traffic(workers, seed=6).drive(20, {"w1": 0.07})
    for _ in range(10):
        workers.failed("w0", 0.0)
    assert workers.ejected == 0
