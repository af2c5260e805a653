"""What the soak and the speed measurement make of what they see."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest

from bench.cluster.processes import Child
from bench.runs.soak import Ends, Verdict
from bench.runs.speed import Contender, added_latency, cpu_seconds, rounds

GOOD = Verdict(100, 1.0, 100, 0, "", 0, 0, 0, 1, 1, 1e8, 1.05e8, 20, 20, 30, 33)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lost": 1}, "1 requests lost"),
        ({"doubled": 2}, "2 requests doubled"),
        ({"wrong": 3}, "3 requests wrong"),
        ({"rss_after": 1.06e8}, "memory grew from 100.0 to 106.0 MB"),
        ({"tasks_after": 21}, "tasks grew from 20 to 21"),
        ({"descriptors_after": 34}, "descriptors grew from 30 to 34"),
    ],
)
def test_problems_are_told(change: dict[str, float], told: str) -> None:
    assert GOOD.problems == []
    assert dataclasses.replace(GOOD, **change).problems == [told]  # type: ignore[arg-type]


def test_requests_without_an_end_are_lost_and_those_with_two_doubled() -> None:
    ends = Ends(sent=4)
    ends.answered.update(["a", "b", "b", "c", "c", "c"])
    assert (ends.lost, ends.doubled) == (1, 3)


class ThisProcess(Child):
    """Stands for a measured child."""

    def __init__(self) -> None:
        super().__init__("role", "name", (), Path("log"))

    @property
    def pid(self) -> int:
        return os.getpid()


async def test_cases_are_measured_in_turn_after_a_warm_up() -> None:
    asked: list[tuple[str, int, float]] = []

    def case(name: str) -> Contender:
        async def load(in_flight: int, seconds: float) -> int:
            asked.append((name, in_flight, seconds))
            return 10

        return Contender(name, ThisProcess(), load)

    samples = await rounds([case("a"), case("b")], 2, 5, 3.0)
    assert asked == [("a", 5, 1.0), ("b", 5, 1.0), *2 * [("a", 5, 3.0), ("b", 5, 3.0)]]
    assert {name: len(found) for name, found in samples.items()} == {"a": 2, "b": 2}


def test_processor_time_is_the_programs_and_the_systems() -> None:
    before, began = cpu_seconds(os.getpid()), os.times()
    while (now := os.times()).system - began.system < 0.05 or now.user - began.user < 0.05:
        Path("/proc/self/status").read_bytes()
        sum(range(1000))
    spent = (now.user - began.user) + (now.system - began.system)
    assert cpu_seconds(os.getpid()) - before == pytest.approx(spent, abs=0.03)


async def test_added_latency_is_what_the_second_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    async def bare() -> None:
        clock[0] += 0.25

    async def ours() -> None:
        clock[0] += 1.0

    assert await added_latency(bare, ours, 10) == {
        "case": "latency", "bare_p50_s": 0.25, "p50_s": 1.0, "added_p50_s": 0.75,
    }  # fmt: skip
