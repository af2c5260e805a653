"""A scarce budget buys a shorter tail by deferred groups than by hedges, at any size of the cluster."""

from __future__ import annotations

import numpy as np
import pytest

from bench.measured import NOBODY, Run
from bench.offer import REGIMES
from bench.simulator.replay import run
from bench.simulator.simulate import Setup
from encoder.code import GroupShape

FOUR, NINE = GroupShape(4, 1, 1, 2), GroupShape(9, 1, 1, 5)


def simulated(setup: Setup, policy: str, budget: float, regime: str = "transient") -> Run:
    """8,000 requests at half load, after 3,000 that do not count."""
    warm_up = 3000 // setup.n
    limits = {"extra_load": budget}
    return run(setup, policy, REGIMES[regime], 11, 8000 // setup.n + warm_up, 0.5, warm_up=warm_up, limits=limits)


def p99(of: Run) -> float:
    return float(np.quantile(of.latency_s, 0.99))


def load(of: Run) -> float:
    return (of.collages + of.replicas) / len(of.latency_s)


@pytest.mark.parametrize(
    ("setup", "budget", "most"),
    [
        (Setup(900, 100, code=NINE), 0.008, 0.40),
        (Setup(900, 100, code=NINE), 0.025, 0.33),
        (Setup(90, 10, code=FOUR), 0.03, 0.36),
        (Setup(36, 4, code=FOUR), 0.034, 0.36),
    ],
)
def test_a_small_budget_halves_the_tail(setup: Setup, budget: float, most: float) -> None:
    """Without help it is .70; a hedge needs 4.8 % for .355."""
    found = simulated(setup, "adaptive", budget)
    assert p99(found) < most
    assert load(found) < budget + 20 / len(found.latency_s)
    assert not (found.source == NOBODY).any()


@pytest.mark.parametrize("regime", ["persistent", "mixture", "failures"])
def test_deferral_is_no_worse_than_a_hedge_where_workers_are_slow_or_fail(regime: str) -> None:
    setup = Setup(36, 4, code=FOUR)
    assert p99(simulated(setup, "adaptive", 0.034, regime)) < 1.01 * p99(simulated(setup, "hedge", 0.034, regime))


def test_a_code_that_needs_siblings_is_deferred_too() -> None:
    setup = Setup(36, 18, code=GroupShape(2, 1, 2, 2))
    deferred, hedged = simulated(setup, "adaptive", 0.1), simulated(setup, "hedge", 0.1)
    assert p99(deferred) < 0.92 * p99(hedged)
    assert load(deferred) < 0.1 + 20 / len(deferred.latency_s)
