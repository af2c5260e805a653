"""Regimes, arrivals and measured latencies from files."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bench.offer.workload import FAMILIES, REGIMES, Regime, load_of, poisson, transfers
from worker.slowdown import Slowdown


def medians(regime: Regime, count: int, at: float = 0.0) -> list[float]:
    workers = [regime.slowdown(index, count, seed=0) for index in range(count)]
    return [float(np.median([worker.draw(f"r{draw}", 0, at) for draw in range(200)])) for worker in workers]


def test_persistent_slowness_stays_with_one_worker_and_mixed_slowness_moves() -> None:
    persistent = medians(REGIMES["persistent"], 10)
    assert [index for index, median in enumerate(persistent) if median > 0.5] == [0]
    slow = [tuple(np.flatnonzero(np.array(medians(REGIMES["mixture"], 10, at)) > 0.5)) for at in range(15, 615, 30)]
    assert all(len(workers) == 1 for workers in slow)
    assert len(set(slow)) > 5
    assert len(np.flatnonzero(np.array(medians(REGIMES["persistent"], 100)) > 0.5)) == 2  # one in 50, as measured


@pytest.mark.parametrize("name", REGIMES)
def test_real_workers_play_the_same_draws(name: str) -> None:
    regime = REGIMES[name]
    flag, specification, seed_flag, seed = regime.flags(3, 10, seed=5)
    assert (flag, seed_flag) == ("--slowdown", "--slowdown-seed")
    real = Slowdown(specification, int(seed))
    simulated = regime.slowdown(3, 10, seed=5)
    assert [real.draw(f"g{i}", 0, i) for i in range(50)] == [simulated.draw(f"g{i}", 0, i) for i in range(50)]


def test_samples_pool_all_workers_and_scales_shrink_draws() -> None:
    for name in ("transient", "persistent"):
        sample = REGIMES[name].sample
        assert float(np.quantile(sample, 0.95)) == pytest.approx(0.215, rel=0.03)
        assert sample.mean() == pytest.approx(0.154, rel=0.02)
    own = Regime("own", latencies=np.array([0.5]))
    assert own.slowdown(0, 1, 0, scale=0.9).draw("r", 0) == 0.45


def test_workers_fail_in_turn_in_one_regime_only() -> None:
    assert list(REGIMES["transient"].outages(10, 0)) == []
    outages = list(itertools.islice(REGIMES["failures"].outages(10, 0), 500))
    assert outages == list(itertools.islice(REGIMES["failures"].outages(10, 0), 500))
    assert np.diff([outage.at for outage in outages]).mean() == pytest.approx(20, rel=0.15)
    assert {outage.index for outage in outages} == set(range(10))
    assert all(outage.until > outage.at for outage in outages)
    assert [outage.frozen for outage in outages] == [False, True] * 250
    for index in range(10):
        mine = [outage for outage in outages if outage.index == index]
        assert all(first.until <= second.at for first, second in itertools.pairwise(mine))


def test_poisson_arrivals() -> None:
    times = poisson(50.0, 20_000, seed=3)
    gaps = np.diff(times)
    assert gaps.mean() == pytest.approx(0.02, rel=0.03)
    assert gaps.std() == pytest.approx(0.02, rel=0.05)
    assert (gaps >= 0).all()


def test_bursts_come_as_often_as_single_requests_on_average() -> None:
    times = poisson(100.0, 50_001, seed=3, together=20)
    assert len(times) == 50_001
    moments, counts = np.unique(times, return_counts=True)
    assert set(counts[:-1]) == {20}
    assert load_of(times, 100.0) == pytest.approx(1.0, rel=0.05)
    assert np.diff(moments).std() == pytest.approx(np.diff(moments).mean(), rel=0.05), "exponential gaps"
    np.testing.assert_array_equal(poisson(5.0, 100, seed=1, together=1), poisson(5.0, 100, seed=1))


def test_every_family_is_a_regime_with_a_mean() -> None:
    assert set(FAMILIES) < set(REGIMES)
    means = {name: float(REGIMES[name].sample.mean()) for name in FAMILIES}
    known = {"uniform": 0.125, "exponential": 0.15, "constant": 0.1, "spikes": 0.1 + 0.005 * 2.9, "pareto-1.6": 0.267}
    for name, mean in known.items():
        assert means[name] == pytest.approx(mean, rel=0.06), name
    assert np.quantile(REGIMES["lognormal-0.8"].sample, 0.5) == pytest.approx(0.14, rel=0.03)


def test_more_pairs_that_move_data_make_more_workers_slow() -> None:
    shares = [float((transfers(share).sample > 0.15).mean()) for share in (0.0, 0.2, 0.5)]
    assert shares[0] == 0
    assert 2 < shares[2] / shares[1] < 3
    assert transfers(0.25).specification.endswith(",0.25#{index}/{count}")
