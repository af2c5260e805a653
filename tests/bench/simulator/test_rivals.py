"""Rivals: Prequal's probes and rule, the best reissue, cloning to idle workers; and that simulations repeat."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from bench.offer import REGIMES
from bench.simulator.prequal import LONGEST_S, Answer, Load, LoadHistory, Prequal, Told, uses
from bench.simulator.replay import KNOWN, Setup, run
from bench.simulator.rivals import RIVALS, choice_named, reissue_delay, reissued_quantile
from bench.simulator.stations import Agenda, StationCall, Stations
from frontend.policy.choices import IdleOnly
from frontend.policy.shelves import Peer, Shelves
from worker.slowdown import Slowdown


def shelves(*calls: int) -> Shelves:
    made = Shelves(seed=1)
    for number, outstanding in enumerate(calls):
        made.put(Peer(f"w{number}", ready=True, outstanding=outstanding))
    return made


# What workers tell


def test_a_worker_tells_the_median_at_the_nearest_number_of_requests() -> None:
    history = LoadHistory()
    assert history.load(2) == Load(2, 0.0)
    for seconds in (0.3, 0.1, 0.2):
        history.finished(0, seconds)
    history.finished(3, 0.9)
    assert history.load(0) == Load(0, 0.2)
    assert history.load(1) == Load(1, 0.2)
    assert history.load(2) == Load(2, 0.9)
    for _ in range(16):
        history.finished(0, 0.5)
    assert history.load(0) == Load(0, 0.5)


@pytest.mark.parametrize(
    ("kept", "rounding", "expected"),
    [
        (16 / 100, 0.0, 1),
        (16 / 100, 0.7, 2),
        (0.5, 0.0, 4),
        (0.0, 0.99, 1),
        (2 / 3, 0.0, math.inf),
        (1.0, 0.5, math.inf),
    ],
)
def test_answers_are_used_as_often_as_they_come_in(kept: float, rounding: float, expected: float) -> None:
    assert uses(kept, rounding) == expected


def test_a_probe_takes_a_round_trip_and_tells_the_load_half_way() -> None:
    agenda = Agenda()
    stations = Stations(
        agenda, lambda name: Slowdown("fixed:1"), lambda call: None, lambda failure: None, queue_size=9, probe_s=0.5
    )
    told: list[tuple[float, Load]] = []

    def ask(worker: str) -> None:
        stations.probe(worker, lambda at, load: told.append((at, load)))

    for name in "abc":
        stations.send(StationCall(None, name, 0), "w")
    agenda.at(0.25, ask, "w")  # at the worker at .5, with all three there; back at .75
    agenda.at(2.0, ask, "w")  # two have been answered, the second of which found one other and took 2 s
    agenda.at(4.0, lambda _: stations.freeze("w", 6.0), None)
    agenda.at(4.5, ask, "w")
    agenda.run(lambda: len(told) < 3)
    assert told == [(0.75, Load(3, 0.0)), (2.5, Load(1, 2.0)), (6.25, Load(0, 1.0))]


# Whom Prequal takes


def rig(*calls: int, hot: float = 0.5) -> tuple[Prequal, Shelves, Callable[..., str | None], dict[str, Told]]:
    """The choice, its workers, a call at a time, and the probes that wait for an answer."""
    asked: dict[str, Told] = {}
    choice, workers = Prequal(asked.__setitem__, hot), shelves(*calls)

    def choose(at: float = 0.0, avoid: tuple[str, ...] = ()) -> str | None:
        chosen = choice.choose(workers, at, avoid)
        return chosen and chosen.name

    return choice, workers, choose, asked


def test_the_cold_worker_of_lowest_latency_is_taken() -> None:
    _, _, choose, asked = rig(0, 0, 0)
    assert choose() in {"w0", "w1", "w2"}
    assert sorted(asked) == ["w0", "w1", "w2"]
    asked["w0"](0.1, Load(0, 0.3))
    asked["w1"](0.1, Load(4, 0.1))  # hot
    asked["w2"](0.1, Load(0, 0.2))
    assert choose(0.1) == "w2"


def test_where_all_are_hot_the_fewest_requests_decide() -> None:
    hot = (Answer(Peer("a"), 0.0, Load(5, 0.1), 1), Answer(Peer("b"), 0.0, Load(4, 0.9), 1))
    assert [answer.cost(3) for answer in hot] == [(True, 5), (True, 4)]
    cold = Answer(Peer("c"), 0.0, Load(3, 8.0), 1)
    assert cold.cost(3) == (False, 8.0) < hot[1].cost(3)


def test_a_call_that_was_sent_counts_before_the_next_probe() -> None:
    _, _, choose, asked = rig(0, 0, 0, 0, hot=0.0)
    while len(asked) < 4:
        choose()
    for worker in ("w0", "w1", "w2", "w3"):
        asked[worker](0.1, Load(0, 0.1 * (1 + int(worker[1]))))
    asked.clear()
    assert choose(0.2) == "w0"  # the oldest answer, which is removed as well
    assert choose(0.2) == "w1"  # now hot; the worst answer, w3, is removed
    assert choose(0.2) == "w2"


def test_old_answers_and_lost_workers_are_not_used() -> None:
    _, workers, choose, asked = rig(0, 0, 0)
    choose()
    asked["w0"](0.0, Load(0, 0.1))
    asked["w1"](0.5, Load(0, 0.2))
    asked["w2"](0.5, Load(0, 0.3))
    assert choose(LONGEST_S + 0.25) == "w1"
    lost = next(worker for worker in next(workers.rising()) if worker.name == "w1")
    asked["w0"](1.3, Load(0, 0.5))
    asked["w1"](1.3, Load(0, 0.1))
    asked["w2"](1.3, Load(0, 0.2))
    workers.take(lost)
    assert choose(1.3) == "w2"


def test_workers_to_avoid_are_not_taken_with_or_without_answers() -> None:
    _, _, choose, asked = rig(0, 0, 0)
    assert {choose(avoid=("w0", "w2")) for _ in range(9)} == {"w1"}
    for worker, told in asked.items():
        told(0.1, Load(0, 0.1 * int(worker[1])))
    assert choose(0.1, ("w0",)) == "w1"
    assert choose(0.1, ("w0", "w1", "w2")) is None


# Hedging


def test_copies_go_to_idle_workers_only() -> None:
    choice = IdleOnly()
    assert (chosen := choice.choose(shelves(1, 2), 0.0, []))
    assert chosen.name == "w0"
    assert choice.choose(shelves(1, 2), 0.0, ["w0"]) is None
    assert (chosen := choice.choose(shelves(0, 2, 0), 0.0, ["w0"]))
    assert chosen.name == "w2"


def test_the_best_reissue_of_two_modes_comes_right_after_the_first() -> None:
    known = np.array([1.0] * 90 + [10.0] * 10)
    assert reissued_quantile(known, 1.0, budget=0.1) == pytest.approx(2.0, abs=1e-4)  # .1 x .1 take longer
    assert reissued_quantile(known, 3.0, budget=0.1) == pytest.approx(4.0, abs=1e-4)
    assert reissued_quantile(known, 1.0, budget=0.05) == pytest.approx(10.0, abs=1e-4)  # q = 1/2: .055 take longer
    assert reissued_quantile(known, 1.0, budget=0.05, aim=0.94) == pytest.approx(2.0, abs=1e-4)
    assert reissue_delay(known, 0.1) == pytest.approx(1.0, abs=0.03)


def test_a_simulated_reissue_is_as_good_as_it_should_be() -> None:
    latencies = REGIMES["transient"].sample
    delay = reissue_delay(latencies, 0.05)
    done = run(Setup(36, 4), "single-r", REGIMES["transient"], 0, 60, 0.3, limits={"extra_load": 0.05}).row({})
    assert done["replica_load"] == pytest.approx(0.05, abs=0.01)
    assert done["p99_s"] == pytest.approx(reissued_quantile(np.sort(latencies), delay, 0.05), rel=0.15)


def test_clones_answer_sooner_and_cost_nearly_a_request_each_at_low_load() -> None:
    cloned = run(Setup(9, 1), "idle-cloning", REGIMES["transient"], 0, 60, 0.2).row({})
    alone = run(Setup(9, 1), "equal-resources", REGIMES["transient"], 0, 60, 0.2).row({})
    assert float(cloned["p50_s"] or 0) < 0.95 * float(alone["p50_s"] or 0)
    assert 0.9 < float(cloned["replica_load"] or 0) <= 1.0


@pytest.mark.parametrize("policy", sorted(RIVALS))
def test_rivals_repeat_and_end_every_request(policy: str) -> None:
    assert policy in KNOWN
    first, again = (run(Setup(9, 1), policy, REGIMES["persistent"], 3, 12, 0.6, warm_up=2) for _ in range(2))
    np.testing.assert_array_equal(first.latency_s, again.latency_s)
    assert (first.latency_s > 0).all()
    assert first.collages == 0
    other = run(Setup(9, 1), policy, REGIMES["persistent"], 4, 12, 0.6, warm_up=2)
    assert (first.latency_s != other.latency_s).any()


def test_a_choice_has_a_name_or_is_none() -> None:
    assert isinstance(choice_named("prequal", lambda name, told: None), Prequal)
    with pytest.raises(KeyError):
        choice_named("by-dice", lambda name, told: None)
