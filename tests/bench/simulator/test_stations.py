"""The parts of a simulated cluster, each alone."""

from __future__ import annotations

import numpy as np
import pytest

from bench.offer import REGIMES, Regime
from bench.simulator.replay import EQUAL_RESOURCES, Setup, capacity, simulate
from bench.simulator.stations import Agenda, CodedGroup
from encoder.code import GroupShape


def test_actions_are_done_by_time_and_those_of_one_moment_in_order() -> None:
    agenda, done = Agenda(), list[str]()
    for at, name in ((2.0, "late"), (1.0, "a"), (1.0, "b"), (1.0, "c"), (0.5, "early")):
        agenda.at(at, done.append, name)
    agenda.run(lambda: len(done) < 4)
    assert done == ["early", "a", "b", "c"]
    assert agenda.now == 1.0
    agenda.at(0.0, done.append, "overdue")
    agenda.run(lambda: len(done) < 6)
    assert done[4:] == ["overdue", "late"]
    assert agenda.now == 2.0


def test_members_with_an_answer_of_their_own_lack_none() -> None:
    group = CodedGroup({0: 10, 1: 11, 2: 12}, GroupShape(3, 1, needed=3, fewest=3))
    group.progress.answered(1)
    assert group.lacking == {0: 10, 2: 12}


def test_capacity_is_of_the_s_cnn_workers() -> None:
    assert capacity(9, Regime("steady", latencies=np.array([0.1, 0.3]))) == pytest.approx(45, rel=0.01)


def test_equal_resources_send_nothing_twice_and_replicas_follow_the_95th_percentile() -> None:
    def replicas(policy: str) -> float:
        return float(simulate(Setup(), policy, REGIMES["transient"], 0, 100)["replica_load"] or 0)

    assert replicas(EQUAL_RESOURCES) == 0
    assert replicas("replicate") == pytest.approx(0.05, abs=0.02)
