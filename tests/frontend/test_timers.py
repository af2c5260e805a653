"""Many timers on a virtual clock."""

from __future__ import annotations

import asyncio

import pytest

from frontend.policy.events import Due, SetTimer, Timer
from frontend.timers import SPARE, PolicyTimers, Timers

pytestmark = pytest.mark.looptime


class Bell:
    """Remembers each timer that was due, and when."""

    def __init__(self) -> None:
        self.rung: list[tuple[float, int]] = []
        self.ended: set[int] = set()
        self.timers = Timers(self.ring, lambda due: due.id not in self.ended)

    def set(self, at: float, timer: Timer, id: int) -> None:
        self.timers.set(at, Due(at, timer, id))

    def ring(self, due: Due) -> None:
        now = asyncio.get_running_loop().time()
        assert now == pytest.approx(due.at, abs=1e-5)
        self.rung.append((round(now, 3), due.id))


async def test_timers_ring_in_order_whatever_the_order_they_were_set_in() -> None:
    bell = Bell()
    for id, at in enumerate((0.5, 0.2, 0.9, 0.2, 0.1)):
        bell.set(at, Timer.DEADLINE, id)
    await asyncio.sleep(0.6)
    bell.set(0.7, Timer.EXPIRY, 9)
    await asyncio.sleep(1)
    assert bell.rung == [(0.1, 4), (0.2, 1), (0.2, 3), (0.5, 0), (0.7, 9), (0.9, 2)]


async def test_a_timer_set_while_another_rings_is_not_forgotten() -> None:
    bell = Bell()

    def ring(due: Due) -> None:
        bell.ring(due)
        if due.id < 3:
            timers.set(due.at + 0.1, Due(due.at + 0.1, Timer.DEADLINE, due.id + 1))

    timers = Timers(ring, lambda due: True)
    timers.set(0.1, Due(0.1, Timer.DEADLINE, 0))
    await asyncio.sleep(1)
    assert bell.rung == [(0.1, 0), (0.2, 1), (0.3, 2), (0.4, 3)]


async def test_what_has_ended_never_rings_and_takes_no_room() -> None:
    bell = Bell()
    for id in range(10 * SPARE):
        bell.set(600.0, Timer.EXPIRY, id)
        bell.ended.add(id)
    assert len(bell.timers) <= 2 * SPARE
    bell.set(0.5, Timer.EXPIRY, -1)
    await asyncio.sleep(700)
    assert bell.rung == [(0.5, -1)]
    assert len(bell.timers) == 0


async def test_nothing_rings_after_the_end() -> None:
    bell = Bell()
    bell.set(0.5, Timer.EXPIRY, 1)
    bell.timers.close()
    await asyncio.sleep(1)
    assert bell.rung == []


async def test_a_timer_that_another_of_its_moment_has_ended_does_not_ring() -> None:
    rung: list[str] = []
    ended: set[str] = set()

    def ring(name: str) -> None:
        rung.append(name)
        ended.add("second")

    timers = Timers(ring, lambda name: name not in ended)
    for name in ("first", "second", "third"):
        timers.set(0.5, name)
    await asyncio.sleep(1)
    assert rung == ["first", "third"]


async def test_a_policys_timer_is_due_only_while_its_request_or_its_open_group_is_there() -> None:
    fed: list[Due] = []
    requests, groups = {1}, {1, 2}
    timers = PolicyTimers(fed.append, requests, groups.__contains__)
    for id in (1, 2):
        for at, timer in ((0.1, Timer.DEADLINE), (0.2, Timer.CLOSE), (0.3, Timer.EXPIRY)):
            timers.set(SetTimer(at, timer, id))
    groups.discard(1)
    await asyncio.sleep(1)
    assert fed == [Due(0.1, Timer.DEADLINE, 1), Due(0.2, Timer.CLOSE, 2), Due(0.3, Timer.EXPIRY, 1)]
