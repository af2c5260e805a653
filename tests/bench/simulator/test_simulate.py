"""The simulator: queues, cancellation and failures by hand, then the ideal figures it must reproduce."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from bench.measured import COLLAGE, NOBODY, REPLICA, S_CNN, Run
from bench.offer import REGIMES, Outage, Regime, TypicalModels, poisson
from bench.simulator.simulate import Setup, Simulation
from encoder.code import GroupShape
from frontend.policy.rules import Rules
from worker.slowdown import Slowdown

P95 = 0.2149
SURE = TypicalModels(sure=1.0, empty=0.0, sure_accuracy=1.0, accuracy=1.0, s_cnn_sure_accuracy=1.0, s_cnn_accuracy=1.0)
ONE_SECOND = Regime("steady", "fixed:1")


def run(
    policy: str, regime: str = "transient", groups: int = 1500, n: int = 9, redundant: int = 1, seed: int = 0
) -> Run:
    return Simulation(Setup(n, redundant), Rules.named(policy, deadline=P95), REGIMES[regime], seed).closed(groups)


class Script(Regime):
    """Latencies by request id and attempt; others take a tenth of a second."""

    def __init__(self, seconds: dict[tuple[str, int], float]) -> None:
        super().__init__("script")
        object.__setattr__(self, "seconds", seconds)

    def slowdown(self, index: int, count: int, seed: int, scale: float = 1.0) -> Slowdown:
        script: dict[tuple[str, int], float] = self.seconds  # type: ignore[attr-defined]

        class Scripted(Slowdown):
            def draw(self, request_id: str, attempt: int, at: float = 0.0) -> float:
                return script.get((request_id, attempt), 0.1)

        return Scripted()


def scripted(policy: str, seconds: dict[tuple[str, int], float], setup: Setup | None = None, **limits: float) -> Run:
    setup = setup or Setup(4, 1)
    rules = Rules.named(policy, deadline=0.25, **limits)
    return Simulation(setup, rules, Script(seconds), model=SURE).closed(1, warm_up=0)


# One group by hand


def test_a_straggler_is_answered_from_the_collage_at_the_deadline() -> None:
    done = scripted("collage", {("g0000-2", 0): 9.0})
    np.testing.assert_allclose(done.latency_s, [0.1, 0.1, 0.25, 0.1])
    assert done.source.tolist() == [S_CNN, S_CNN, COLLAGE, S_CNN]
    assert (done.collages, done.replicas) == (1, 0)
    assert done.busy_s == pytest.approx(3 * 0.1 + 0.25 + 0.1)  # the straggler held its worker until it was cancelled


def test_a_late_collage_costs_a_replica_and_the_first_answer_wins() -> None:
    late = {("g0000-2", 0): 9.0, ("collage:g0000-0", 0): 0.4}
    done = scripted("collage", late)
    assert done.source[2] == REPLICA
    assert done.latency_s[2] == pytest.approx(0.35)
    assert done.replicas == 1
    done = scripted("collage", {**late, ("g0000-2", 1): 5.0})
    assert done.source[2] == COLLAGE
    assert done.latency_s[2] == pytest.approx(0.403)  # 3 ms to encode
    slow_encoder = Setup(4, 1, encode_s=0.05)
    assert scripted("collage", {**late, ("g0000-2", 1): 5.0}, slow_encoder).latency_s[2] == pytest.approx(0.45)


def test_a_worker_serves_one_call_at_a_time() -> None:
    rules = Rules.named("none")
    done = Simulation(Setup(1, 1), rules, ONE_SECOND).open(np.array([0.0, 0.25, 0.5]), warm_up=0)
    np.testing.assert_allclose(done.latency_s, [1.0, 1.75, 2.5])
    assert done.busy_s == pytest.approx(3.0)
    full = Simulation(Setup(1, 1, queue_size=1), rules, ONE_SECOND).open(np.array([0.0, 0.25, 0.5]), warm_up=0)
    assert full.source.tolist() == [S_CNN, S_CNN, NOBODY]
    equal = Simulation(Setup(1, 1, equal_resources=True), rules, ONE_SECOND).open(np.array([0.0, 0.25]), warm_up=0)
    np.testing.assert_allclose(equal.latency_s, [1.0, 1.0])


def test_cancelling_frees_the_slot_at_once_and_the_place_when_acknowledged() -> None:
    rules = Rules.named("none")
    times = np.array([0.0, 0.5])
    busy = Simulation(Setup(1, 1, timeout_s=0.6), rules, ONE_SECOND).open(times, warm_up=0)
    np.testing.assert_allclose(busy.latency_s, [0.58, 0.58])  # both ran out of time, 20 ms early; the second did run
    assert busy.busy_s == pytest.approx(0.58 + 0.5)
    # Until a cancelled call is acknowledged, its worker does not look idle.
    hedged = Rules.named("replicate", deadline=0.25, extra_load=1.0)
    for acknowledge_s, outstanding in ((0.0, 0), (5.0, 1)):
        simulation = Simulation(
            Setup(2, 1, acknowledge_s=acknowledge_s), hedged, Script({("g0000-0", 0): 3.0}), model=SURE
        )
        assert simulation.closed(1, warm_up=0).latency_s.max() == pytest.approx(0.35)
        balancer = simulation.frontends[0].s_cnn
        assert sum(balancer.outstanding(name) for name in "01") == outstanding


def test_an_inference_takes_no_less_than_it_can() -> None:
    done = Simulation(Setup(1, 1, inference_s=1.5), Rules.named("none"), ONE_SECOND).open(np.array([0.0, 5.0]), 0)
    np.testing.assert_allclose(done.latency_s, [1.5, 1.5])
    assert done.busy_s == pytest.approx(3.0)


def test_the_answer_travels_without_holding_the_worker() -> None:
    setup = Setup(1, 1, overhead_s=0.5)
    done = Simulation(setup, Rules.named("none"), ONE_SECOND).open(np.array([0.0, 0.25]), warm_up=0)
    np.testing.assert_allclose(done.latency_s, [1.5, 2.25])


def test_open_loop_latency_counts_from_the_intended_start_and_rows_say_so() -> None:
    times = poisson(20.0, 90, seed=1)
    done = Simulation(Setup(), Rules.named("none"), REGIMES["transient"]).open(times, warm_up=2)
    assert len(done.latency_s) == 72
    assert len(done.groups_s) == 8


def test_a_crashed_worker_loses_its_calls_and_comes_back() -> None:
    class Crashing(Script):
        def outages(self, count: int, seed: int):  # type: ignore[no-untyped-def]
            yield Outage(0.05, 0.3, 0)

    crashing = Crashing({})
    simulation = Simulation(Setup(1, 1), Rules.named("none"), crashing)
    done = simulation.open(np.array([0.0, 0.1, 0.35]), warm_up=0)
    assert done.source.tolist() == [NOBODY, NOBODY, S_CNN]  # the retry finds nobody either
    done = Simulation(Setup(2, 1), Rules.named("none"), crashing).open(np.array([0.0, 0.01]), warm_up=0)
    assert done.source.tolist() == [REPLICA, S_CNN]
    assert done.latency_s[0] == pytest.approx(0.05 + 0.06 + 0.1)  # it queues behind the other one


@pytest.mark.parametrize(("at", "first"), [(0.05, NOBODY), (0.15, S_CNN)])
def test_outages_begin_when_the_warm_up_is_over(at: float, first: int) -> None:
    class CrashingOnce(Script):
        def outages(self, count: int, seed: int):  # type: ignore[no-untyped-def]
            yield Outage(at, 0.3, 0)

    done = Simulation(Setup(1, 1), Rules.named("none"), CrashingOnce({})).open(np.array([0.0, 0.5, 1.0, 1.2, 1.35]), 2)
    assert done.source.tolist() == [first, NOBODY, S_CNN]


def test_what_the_warm_up_sends_does_not_count() -> None:
    rules = Rules.named("collage", deadline=0.25, extra_load=1.0)
    late = {("w0001-2", 0): 9.0, ("collage:w0001-0", 0): 0.4, ("g0000-1", 0): 9.0}
    done = Simulation(Setup(4, 1), rules, Script(late), model=SURE).closed(1, warm_up=1)
    assert done.source.tolist() == [S_CNN, COLLAGE, S_CNN, S_CNN]
    assert (done.collages, done.replicas) == (1, 0)


def test_a_frozen_worker_answers_when_it_goes_on_and_looks_busy_until_then() -> None:
    class Freezing(Script):
        def outages(self, count: int, seed: int):  # type: ignore[no-untyped-def]
            yield Outage(0.05, 0.5, 0, frozen=True)

    freezing = Freezing({("g0003-0", 0): 0.2})
    alone = Simulation(Setup(1, 1), Rules.named("none"), freezing)
    done = alone.open(np.array([0.0, 0.1, 0.3, 0.6]), warm_up=0)
    np.testing.assert_allclose(done.latency_s, [0.5, 0.5, 0.4, 0.3])  # one by one from 0.5 on
    assert (done.source == S_CNN).all()
    two = Simulation(Setup(2, 1), Rules.named("replicate", deadline=0.25, extra_load=1.0), Freezing({}))
    done = two.open(np.array([0.0, 0.01, 0.3, 0.31]), warm_up=0)
    balancer = two.frontends[0].s_cnn
    assert sorted(done.source[:2].tolist()) == [S_CNN, REPLICA]
    assert max(done.latency_s[:2]) == pytest.approx(0.35)
    assert done.source[2:].tolist() == [S_CNN, S_CNN]  # a cancelled call that is not acknowledged keeps others away
    assert sum(balancer.outstanding(name) for name in "01") <= 1


def test_what_is_lost_on_the_way_to_the_caller_counts() -> None:
    setup = Setup(1, 1, caller_s=0.25)
    done = Simulation(setup, Rules.named("none"), ONE_SECOND).closed(2, warm_up=0)
    np.testing.assert_allclose(done.latency_s, [1.25, 1.25])
    assert done.busy_s == pytest.approx(2.0)


def test_what_the_warm_up_kept_busy_does_not_count() -> None:
    setup, rules = Setup(1, 1), Rules.named("none")
    assert Simulation(setup, rules, ONE_SECOND).closed(2, warm_up=3).busy_s == pytest.approx(2.0)
    times = 2.0 * np.arange(5)
    assert Simulation(setup, rules, ONE_SECOND).open(times, warm_up=3).busy_s == pytest.approx(2.0)


def test_collage_workers_are_a_tenth_faster() -> None:
    scales: dict[int, float] = {}

    class Scaled(Script):
        def slowdown(self, index: int, count: int, seed: int, scale: float = 1.0) -> Slowdown:
            scales[index] = scale
            return super().slowdown(index, count, seed, scale)

    Simulation(Setup(4, 1), Rules.named("collage", deadline=0.25), Scaled({}), model=SURE).closed(1, warm_up=0)
    assert scales == {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0, 4: 0.9}


# Distributions


def test_the_ideal_figures_are_reproduced() -> None:
    """Per group, 9 + 1, pooled draws: none .765, hedge .427, collage .223; see the README."""
    p99 = {policy: float(np.quantile(run(policy).groups_s, 0.99)) for policy in ("none", "replicate", "collage")}
    assert p99["none"] == pytest.approx(0.765, rel=0.03)
    assert p99["replicate"] == pytest.approx(0.42, rel=0.05)
    assert p99["collage"] == pytest.approx(0.23, rel=0.06)


def test_policies_meet_the_same_draws_and_runs_repeat() -> None:
    none, again, other = run("none", groups=50), run("none", groups=50), run("none", groups=50, seed=1)
    assert none.latency_s.tolist() == again.latency_s.tolist() != other.latency_s.tolist()
    replicated = run("replicate", groups=50)
    prompt = none.latency_s < P95
    np.testing.assert_allclose(replicated.latency_s[prompt], none.latency_s[prompt])
    real = Slowdown(REGIMES["transient"].specification, 0)
    np.testing.assert_allclose(none.latency_s[:20], [real.draw(f"g{i // 9:04d}-{i % 9}", 0) for i in range(20)])


def test_every_request_ends_once_and_the_budget_holds_in_every_regime() -> None:
    for name in REGIMES:
        done = run("adaptive", name, groups=100)
        assert len(done.latency_s) == 900
        assert (done.latency_s > 0).all()
        assert (done.source != NOBODY).all()
        assert (done.collages + done.replicas) / 900 <= 0.25 + 0.02


def test_accuracies_are_those_of_the_model() -> None:
    done = run("collage", groups=3000)
    coded = done.source == COLLAGE
    assert done.available.mean() == pytest.approx(0.93, abs=0.01)
    assert done.right[coded].mean() == pytest.approx(0.9, abs=0.03)
    assert done.right[coded & ~done.unsure].mean() == pytest.approx(0.989, abs=0.012)


def test_several_frontends_share_the_workers() -> None:
    setup = Setup(36, 4)
    rules = Rules.named("collage", deadline=P95)
    rate = 0.5 * 36 / 0.154
    loads = []
    for frontends in (1, 4):
        simulation = Simulation(replace(setup, frontends=frontends), rules, REGIMES["transient"])
        done = simulation.open(poisson(rate, 60 * 36, 0))
        assert (done.source != NOBODY).all()
        loads.append(done.collages / len(done.latency_s))
    assert loads[0] > loads[1]  # each fills its groups more slowly, and closes them with empty cells, or not at all


def test_the_cost_of_a_request_does_not_grow_with_the_cluster() -> None:
    def cost(n: int) -> float:
        setup = Setup(n, n // 9)
        rules = Rules.named("adaptive", deadline=P95)
        times = poisson(0.5 * n / 0.154, 13_500, 0)
        simulation = Simulation(setup, rules, REGIMES["transient"])
        began = time.process_time()
        simulation.open(times[: len(times) // n * n], warm_up=0)
        return (time.process_time() - began) / len(times)

    cost(90)
    assert cost(2250) < 3 * cost(90)  # measured: about the same


@pytest.mark.parametrize(
    ("setup", "inputs"),
    [
        (Setup(12, 6, code=GroupShape(2, 1, needed=2, fewest=2)), 1),
        (Setup(12, 8, code=GroupShape(3, 2, needed=3, fewest=3)), 2),
    ],
)
@pytest.mark.parametrize("policy", ["collage", "adaptive"])
def test_codes_that_need_siblings_and_several_inputs_are_simulated(setup: Setup, inputs: int, policy: str) -> None:
    """A group costs its inputs, lost answers are decoded, and the tail is below that of waiting."""
    assert setup.code is not None
    rules = Rules.named(policy, extra_load=1.0)
    run = Simulation(setup, rules, REGIMES["transient"], seed=1).closed(300)
    waiting = Simulation(setup, Rules.named("none"), REGIMES["transient"], seed=1).closed(300)
    assert (run.source != NOBODY).all()
    assert run.collages == 300 * 12 * inputs // setup.code.members
    assert (run.source == COLLAGE).mean() > 0.01
    assert np.quantile(run.latency_s, 0.99) < 0.75 * np.quantile(waiting.latency_s, 0.99)
