"""Ways of choosing a worker, pure: whom each takes, and what it learns."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from frontend.policy.balance import Balancer
from frontend.policy.choices import CHOICES, SAMPLED, Choice, FewestCalls, PeakEwma, PowerOfTwo
from frontend.policy.shelves import Peer, Shelves


def shelves(*calls: int) -> Shelves:
    """Workers w0, w1, ... that have as many calls."""
    made = Shelves(seed=1)
    for number, outstanding in enumerate(calls):
        made.put(Peer(f"w{number}", ready=True, outstanding=outstanding))
    return made


def name(worker: Peer | None) -> str | None:
    return worker and worker.name


def test_shelves_rise_and_workers_move_between_them() -> None:
    workers = shelves(2, 0, 2, 5)
    assert [[each.name for each in shelf] for shelf in workers.rising() if shelf] == [["w1"], ["w0", "w2"], ["w3"]]
    first = next(workers.rising())[0]
    workers.take(first)
    assert [each.name for each in next(workers.rising())] == ["w0", "w2"]
    first.outstanding = 1
    workers.put(first)
    assert [each.name for each in next(workers.rising())] == ["w1"]
    assert len(workers) == 4


def test_some_are_different_workers_with_equal_chances() -> None:
    workers = shelves(0, 3, 1, 1, 7)
    assert sorted(each.name for each in workers.some(9)) == ["w0", "w1", "w2", "w3", "w4"]
    found = Counter(each.name for _ in range(2000) for each in workers.some(2))
    assert all(count == pytest.approx(800, rel=0.15) for count in found.values())
    assert all(len({each.name for each in workers.some(2)}) == 2 for _ in range(50))


@pytest.mark.parametrize("choice", [made() for made in CHOICES.values()], ids=list(CHOICES))
def test_every_choice_avoids_workers_and_says_when_there_is_no_other(choice: Choice) -> None:
    workers = shelves(0, 1, 0)
    assert {name(choice.choose(workers, 0.0, ["w0", "w1"])) for _ in range(20)} == {"w2"}
    assert choice.choose(workers, 0.0, ["w0", "w1", "w2"]) is None
    assert choice.choose(shelves(), 0.0, []) is None


def test_power_of_two_takes_the_one_with_fewer_calls_of_two_that_it_sees() -> None:
    assert {name(PowerOfTwo().choose(shelves(2, 1), 0.0, [])) for _ in range(20)} == {"w1"}
    workers = shelves(0, 1, 2)  # the idle one is among two of three in two cases of three
    found = Counter(name(PowerOfTwo().choose(workers, 0.0, [])) for _ in range(3000))
    assert found["w0"] == pytest.approx(2000, rel=0.05)
    assert found["w1"] == pytest.approx(1000, rel=0.1)
    assert found["w2"] == 0
    assert {name(PowerOfTwo().choose(workers, 0.0, ["w0"])) for _ in range(20)} == {"w1"}


def test_peak_ewma_jumps_to_a_longer_latency_and_forgets_it_with_time() -> None:
    choice, worker = PeakEwma(decay=10.0), Peer("w")
    choice.ended(worker, 1.0, 0.2)
    assert worker.estimate == 0.2
    choice.ended(worker, 2.0, 0.5)
    assert worker.estimate == 0.5
    choice.ended(worker, 7.0, 0.1)
    kept = math.exp(-0.5)
    assert worker.estimate == pytest.approx(0.5 * kept + 0.1 * (1 - kept))


def test_peak_ewma_takes_the_lower_latency_times_calls() -> None:
    choice, workers = PeakEwma(decay=10.0), shelves(0, 1)
    idle, busy = (shelf[0] for shelf in workers.rising())
    choice.ended(idle, 0.0, 0.5)
    choice.ended(busy, 0.0, 0.2)
    assert name(choice.choose(workers, 0.0, [])) == "w1"  # .5 x 1 against .2 x 2
    choice.ended(busy, 0.0, 0.3)
    assert name(choice.choose(workers, 0.0, [])) == "w0"  # .3 x 2
    choice.ended(busy, 6.0, 0.3)
    assert name(choice.choose(workers, 6.0, [])) == "w0"
    idle.estimated_at = 6.0
    choice.ended(busy, 6.0, 0.24)
    busy.estimate = 0.24
    assert name(choice.choose(workers, 6.0, [])) == "w1"
    idle.estimated_at = 5.0  # .5 of a second ago counts as .45
    assert name(choice.choose(workers, 6.0, [])) == "w0"


def test_peak_ewma_tries_unknown_workers_once_at_first() -> None:
    choice, workers = PeakEwma(), shelves(0, 0)
    known = next(workers.rising())[0]
    choice.ended(known, 0.0, 0.001)
    assert name(choice.choose(workers, 0.0, [])) == "w1"
    busy = shelves(1, 0)
    known = next(busy.rising())[0]
    choice.ended(known, 0.0, 9.0)
    assert name(choice.choose(busy, 0.0, [])) == "w1"  # the other has a call and no answer


def test_a_pool_tells_its_choice_of_answers_and_of_cancelled_calls() -> None:
    class Listening(FewestCalls):
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[tuple[str, float, float]] = []

        def ended(self, worker: Peer, at: float, seconds: float) -> None:
            self.heard.append((worker.name, at, seconds))

    choice = Listening()
    workers = Balancer(seed=1, choice=choice)
    workers.set_ready("w", True)
    workers.succeeded("w", 3.0, 0.5)
    workers.cancelled("w", 4.0, 0.25)
    workers.failed("w", 5.0)
    assert choice.heard == [("w", 3.0, 0.5), ("w", 4.0, 0.25)]


def test_the_fastest_of_eight_that_have_fewest_calls() -> None:
    assert SAMPLED == 8
    few, many = shelves(*[1] * 8), shelves(*[1] * 16)
    for workers in (few, many):
        for number, worker in enumerate(next(workers.rising())):
            worker.latency = 0.2 + number
    assert {name(FewestCalls().choose(few, 0.0, [])) for _ in range(20)} == {"w0"}
    found = Counter(name(FewestCalls().choose(many, 0.0, [])) for _ in range(3000))
    assert found["w0"] / 3000 == pytest.approx(1 - (15 / 16) ** 8, abs=0.03)
    idle = Peer("idle", ready=True, latency=99.0)
    few.put(idle)
    assert name(FewestCalls().choose(few, 0.0, [])) == "idle"
