"""Ejection by the simulator: nobody whose latencies are those of all, and every worker that stays slow."""

from dataclasses import dataclass

import numpy as np
import pytest

from bench.offer import REGIMES, Regime
from bench.simulator.replay import run
from bench.simulator.simulate import Setup, Simulation
from frontend.policy.rules import Rules
from worker.slowdown import Slowdown

SHARES = (np.arange(2000) + 0.5) / 2000
UNIFORM = Regime("uniform", latencies=0.05 + 0.15 * SHARES)
CONSTANT = Regime("constant", latencies=np.full(10, 0.14))
EXPONENTIAL = Regime("exponential", latencies=-0.14 * np.log(1 - SHARES))
ALIKE = (
    UNIFORM,
    EXPONENTIAL,
    Regime("pareto", latencies=0.1 * (1 - SHARES) ** (-1 / 1.6)),
    Regime("rarely very slow", latencies=np.where(SHARES < 0.995, 0.14, 3.0)),
    REGIMES["transient"],
)


@dataclass(frozen=True)
class OneSlower(Regime):
    """Worker 0 takes three times as long."""

    def slowdown(self, index: int, count: int, seed: int, scale: float = 1.0) -> Slowdown:
        return super().slowdown(index, count, seed, scale * (1 if index else 3))


def ejected(setup: Setup, regime: Regime, groups: int, rate: float | None = None) -> list[str]:
    """Workers of the base model in the order of their ejections by ``adaptive``, ``rate`` in requests per second."""
    simulation = Simulation(setup, Rules.named("adaptive", deadline=0.3), regime, seed=1)
    told: list[str] = []
    for frontend in simulation.frontends:
        frontend.s_cnn.changed = lambda name, reason: told.append(name) if reason else None
    if rate is None:
        simulation.closed(groups)
    else:
        simulation.open(np.random.default_rng(1).exponential(1 / rate, groups * setup.n).cumsum())
    return told


@pytest.mark.parametrize("regime", ALIKE, ids=lambda regime: regime.name)
def test_nobody_is_ejected_whose_latencies_are_those_of_all(regime: Regime) -> None:
    assert ejected(Setup(9, 1), regime, 300) == []


@pytest.mark.parametrize("frontends", [1, 3])
def test_nor_under_a_load_that_makes_calls_wait_for_those_of_other_frontends(frontends: int) -> None:
    assert ejected(Setup(9, 1, frontends=frontends), EXPONENTIAL, 300, rate=0.8 * 9 / 0.14) == []


@pytest.mark.parametrize("rate", [None, 0.5 * 9 / 0.14])
def test_a_slower_worker_is_found(rate: float | None) -> None:
    """Though its calls are cancelled as soon as others have answered."""
    slower = OneSlower("one slower", latencies=UNIFORM.latencies)
    found = ejected(Setup(9, 1), slower, 100, rate)
    assert found
    assert set(found) == {"0"}


@pytest.mark.parametrize("regime", [UNIFORM, CONSTANT], ids=lambda regime: regime.name)
def test_where_no_policy_can_help_adaptive_does_no_harm(regime: Regime) -> None:
    p99 = [np.quantile(run(Setup(9, 1), policy, regime, 0, 400).groups_s, 0.99) for policy in ("none", "adaptive")]
    assert p99[1] <= 1.01 * p99[0]
