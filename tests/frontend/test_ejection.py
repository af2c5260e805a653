"""A worker is ejected if it is slower than its fleet, and never for chance, pure."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.policy.ejection import Evidence
from tests.frontend.ejecting import Fleet

FAMILIES: dict[str, Callable[[random.Random], float]] = {
    "uniform": lambda rng: rng.uniform(0.05, 0.2),
    "exponential": lambda rng: rng.expovariate(7.0),
    "lognormal .4": lambda rng: rng.lognormvariate(-2.0, 0.4),
    "lognormal .8": lambda rng: rng.lognormvariate(-2.0, 0.8),
    "pareto": lambda rng: 0.1 * rng.paretovariate(1.6),
    "constant": lambda rng: 0.14,
    "rarely very slow": lambda rng: 3.0 if rng.random() < 0.005 else 0.14,
    "bimodal": lambda rng: 0.7 if rng.random() < 0.02 else rng.gauss(0.14, 0.01),
}


@pytest.mark.parametrize("workers", [3, 9])
@pytest.mark.parametrize("family", FAMILIES)
def test_workers_that_are_alike_are_not_ejected_however_wide_their_latencies_are(family: str, workers: int) -> None:
    fleet, rng = Fleet(workers), random.Random(workers)
    fleet.each(lambda name: FAMILIES[family](rng), 20_000 // workers)
    assert fleet.out == []


@pytest.mark.parametrize("workers", [3, 4, 9, 40])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_worker_that_is_three_times_slower_is_found_within_200_of_its_answers(family: str, workers: int) -> None:
    fleet, rng = Fleet(workers), random.Random(7)
    fleet.each(lambda name: FAMILIES[family](rng), 900 // workers)
    found = fleet.until_out("w1", lambda: 3 * FAMILIES[family](rng), lambda: FAMILIES[family](rng), 200)
    assert found <= 200
    assert fleet.out == ["w1"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.01, 3.0), st.floats(0.2, 3.0), st.integers(3, 12))
def test_calls_that_others_cut_off_are_no_evidence(seed: int, sigma: float, cut: float, workers: int) -> None:
    """Whenever calls are cancelled, a worker that is like the others stays: of a wide or a narrow distribution."""
    fleet, rng = Fleet(workers), random.Random(seed)
    for _ in range(3000 // workers):
        for name in fleet.clocks:
            latency, patience = rng.lognormvariate(-2.0, sigma), cut * rng.lognormvariate(-2.0, 0.2)
            if latency <= patience:
                fleet.answer(name, latency)
            else:
                fleet.cancel(name, patience)
    assert fleet.out == []


def test_what_is_cut_off_counts_in_the_fleets_median() -> None:
    fleet = Fleet(9)
    for _ in range(100):
        fleet.each(lambda name: 0.1, 1)
        for name in fleet.clocks:
            fleet.cancel(name, 0.149, 0.149)
    fleet.cancel("w3", *[0.16] * 20)  # slow only if most calls took 0.1
    assert fleet.out == []


def test_a_worker_all_of_whose_calls_are_cut_off_early_is_not_called_slow() -> None:
    fleet = Fleet(9)
    fleet.each(lambda name: 0.1, 200)
    fleet.cancel("w3", *[0.149] * 500)
    assert fleet.out == []
    fleet.cancel("w3", *[0.16] * 20)
    assert fleet.out == ["w3"]


def test_the_bound_is_of_the_likelihoods_of_slow_calls() -> None:
    """By Wald: the expectation of the likelihood ratio is 1 for the fleet's own share, whatever it is compared with."""
    for usual in (0.02, 0.1, 0.5, 0.9):
        for suspect in (0.15, 0.6, 0.94):
            call = Evidence.of_shares(usual, suspect)
            expected = usual * math.exp(call.slow) + (1 - usual) * math.exp(call.fast)
            assert expected == pytest.approx(1)
            assert call == Evidence() or call.slow > 0 > call.fast


def test_a_few_slow_calls_in_a_row_of_a_fleet_that_has_none_are_no_evidence_yet() -> None:
    fleet = Fleet(9)
    fleet.each(lambda name: 0.1, 400)
    fleet.answer("w3", *[9.0] * 4)
    assert fleet.out == []
    fleet.answer("w3", 9.0)
    assert fleet.out == ["w3"]


def test_one_fast_call_does_not_clear_a_slow_worker() -> None:
    fleet = Fleet(9)
    fleet.each(lambda name: 0.1, 400)
    fleet.answer("w3", *[0.7] * 4, 0.1, *[0.7] * 2)
    assert fleet.out == ["w3"]


def test_a_fleet_that_is_only_just_known_accuses_nobody_of_a_few_slow_calls() -> None:
    """Nine slow calls of 90 may be those of a fleet where more than one call in ten is slow."""
    few, many = Fleet(9), Fleet(9)
    for fleet, times in ((few, 1), (many, 60)):
        for _ in range(times):
            for name in fleet.clocks:
                fleet.answer(name, 0.7, *[0.1] * 9)
    assert few.workers.judge.evidence.slow < many.workers.judge.evidence.slow - 0.4


def test_half_of_a_fleet_on_older_machines_stays() -> None:
    fleet, rng = Fleet(10), random.Random(1)
    fleet.each(lambda name: rng.uniform(0.1, 0.12) * (3 if name < "w5" else 1), 1000)
    assert fleet.out == []
    busy = Fleet(10)
    for _ in range(10_000):
        name = min(busy.clocks, key=lambda name: busy.clocks[name])  # fast ones serve three times as many
        busy.answer(name, rng.uniform(0.1, 0.12) * (3 if name < "w5" else 1))
    assert busy.out == []


def test_when_all_become_slow_at_once_none_is_ejected() -> None:
    fleet, rng = Fleet(9), random.Random(2)
    fleet.each(lambda name: rng.uniform(0.1, 0.12), 400)
    fleet.each(lambda name: rng.uniform(0.3, 0.36), 400)
    assert fleet.out == []


def test_neither_of_two_workers_is_ejected() -> None:
    """Nobody can know whether one is slow or the other is fast, and one is half of all there is."""
    fleet = Fleet(2)
    fleet.each(lambda name: 0.3 if name == "w0" else 0.1, 400)
    assert fleet.out == []


def test_those_that_were_suspected_and_left_do_not_protect_the_others() -> None:
    fleet = Fleet(12)
    fleet.each(lambda name: 0.1, 100)
    for name in ("w0", "w1", "w2", "w3", "w4"):
        fleet.answer(name, *[0.7] * 3)
    fleet.answer("w5", *[0.7] * 20)
    assert fleet.out == []
    for name in ("w0", "w1", "w2"):
        fleet.workers.remove(name)
    fleet.answer("w5", 0.7)
    assert fleet.out == ["w5"]
