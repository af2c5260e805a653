import numpy as np
import pytest

from frontend.policy.quantile import RunningQuantile

RNG = np.random.default_rng


def bimodal(rng: np.random.Generator, count: int) -> np.ndarray:
    """Like the paper's figure 2: 2 % of latencies are far out, 5 % beyond 0.2 s."""
    usual = rng.gamma(60, 0.14 / 60, count)
    return np.where(rng.random(count) < 0.02, rng.normal(0.7, 0.03, count), usual)


@pytest.mark.parametrize("start", [1 / 3, 1.0, 3.0])
@pytest.mark.parametrize("share", [0.9, 0.95, 0.99])
def test_it_finds_the_quantile_from_any_start(share: float, start: float) -> None:
    latencies = bimodal(RNG(1), 20_000)
    true = float(np.quantile(latencies, share))
    quantile = RunningQuantile(share, true * start)
    for latency in latencies[:8000]:
        quantile.finished(latency)
    assert quantile.value == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("start", [1 / 3, 3.0])
def test_cancelled_stragglers_do_not_pull_it_down(start: float) -> None:
    """30 % of those still out at the deadline are cancelled there; a quantile of finished ones would drift."""
    rng = RNG(2)
    latencies = bimodal(rng, 20_000)
    true = float(np.quantile(latencies, 0.95))
    quantile = RunningQuantile(0.95, true * start)
    for latency in latencies:
        if latency > quantile.value and rng.random() < 0.3:
            quantile.cut_off(quantile.value)
        else:
            quantile.finished(latency)
    assert quantile.value == pytest.approx(true, rel=0.05)


def test_even_if_every_straggler_is_cancelled_it_is_found() -> None:
    latencies = bimodal(RNG(3), 20_000)
    true = float(np.quantile(latencies, 0.95))
    quantile = RunningQuantile(0.95, true / 3)
    for latency in latencies:
        if latency > quantile.value:
            quantile.cut_off(quantile.value)
        else:
            quantile.finished(latency)
    assert quantile.value == pytest.approx(true, rel=0.1)


def test_early_coded_answers_do_not_pull_it_down() -> None:
    """Half of the requests still out when the collage comes back are answered from it, and cancelled."""
    rng = RNG(4)
    latencies, collages = bimodal(rng, 20_000), 0.9 * bimodal(rng, 20_000)
    true = float(np.quantile(latencies, 0.95))
    quantile = RunningQuantile(0.95, true)
    for latency, collage in zip(latencies, collages, strict=True):
        if collage < latency and rng.random() < 0.5:
            quantile.cut_off(collage)
        else:
            quantile.finished(latency)
    assert quantile.value == pytest.approx(true, rel=0.05)


def test_it_follows_a_change() -> None:
    rng = RNG(5)
    quantile = RunningQuantile(0.95, 0.2, half_life=1000)
    for latency in bimodal(rng, 5000):
        quantile.finished(latency)
    slower = 2 * bimodal(rng, 10_000)
    for latency in slower:
        quantile.finished(latency)
    assert quantile.value == pytest.approx(float(np.quantile(slower, 0.95)), rel=0.06)


def test_it_does_not_follow_a_slow_minority() -> None:
    """A ninth of all latencies is five times the others: their 95th percentile is no deadline for anybody."""
    rng = RNG(6)
    quantile = RunningQuantile(0.95, 0.2, stretch=1.6)
    for latency in np.where(rng.random(5000) < 1 / 9, 0.7, rng.gamma(60, 0.14 / 60, 5000)):
        quantile.finished(latency)
    assert quantile.value == pytest.approx(1.6 * 0.14, rel=0.05)


def test_it_keeps_its_bounds_and_its_start() -> None:
    quantile = RunningQuantile(0.95, 0.2, lowest=0.1, highest=0.3)
    quantile.finished(9.0)
    assert quantile.value == 0.2
    for _ in range(100):
        quantile.finished(9.0)
    assert quantile.value == 0.3
    for _ in range(20_000):
        quantile.finished(0.0)
    assert quantile.value == 0.1


def test_latencies_beyond_all_bounds_are_counted() -> None:
    quantile = RunningQuantile(0.5, 0.0, highest=60.0)
    for _ in range(100):
        quantile.finished(1e6)
    assert quantile.value == 60.0


def test_weights_stay_within_what_a_float_holds() -> None:
    quantile = RunningQuantile(0.5, 0.0, half_life=1.0)
    for _ in range(3200):
        quantile.finished(0.125)
    assert 0.12 < quantile.value < 0.13


def test_the_longest_latency_is_forgotten_with_its_weight() -> None:
    quantile = RunningQuantile(0.95, 0.2)
    for latency in (30.0, *[0.125] * 3000):
        quantile.finished(latency)
    assert quantile.longest == pytest.approx(30.0, rel=0.03)
    for _ in range(3000):
        quantile.finished(0.125)
    assert quantile.longest == pytest.approx(0.125, rel=0.03)


def test_where_too_many_are_cut_off_the_quantile_lies_beyond_all_that_was_seen() -> None:
    quantile = RunningQuantile(0.95, 0.2)
    for request in range(320):
        (quantile.finished if request % 10 else quantile.cut_off)(0.1 if request % 10 else 0.4)
    assert quantile.value == pytest.approx(1.25 * 0.4, rel=0.03)
