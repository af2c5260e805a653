"""What callers may have a server hold: the rules, with fake calls on a virtual clock."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from collage.errors import InvalidArgument, ResourceExhausted, ServiceError, Unavailable
from collage.intake import MESSAGE_S, Intake, Reading, Turns
from collage.v1 import model_pb2, predict_pb2

RUN = "/collage.v1.ModelService/Run"
HEALTH = "/grpc.health.v1.Health/Check"


class FakeContext:
    """A call whose message comes when the test says so."""

    def __init__(self, peer: str = "a") -> None:
        self._peer = peer
        self.message: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.done: list[Callable[[Any], None]] = []

    async def read(self) -> Any:
        return await self.message

    def peer(self) -> str:
        return self._peer

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.done.append(callback)

    def end(self) -> None:
        for callback in self.done:
            callback(self)


class Rig:
    """An intake, the reasons that it gave, and the memory that it sees."""

    def __init__(self, most: int = 10) -> None:
        self.reasons: Counter[str] = Counter()
        self.draining = asyncio.Event()
        self.held = 0
        self.intake = Intake(
            self.draining, lambda reason: self.reasons.update([reason]), most=most, limit=100, held=lambda: self.held
        )

    def read(self, peer: str, single: bool = True) -> asyncio.Task[Any]:
        async def reading() -> Any:
            return await self.intake.read(Reading(FakeContext(peer), single))

        return asyncio.create_task(reading())


async def outcome(reading: asyncio.Task[Any]) -> type[BaseException] | None:
    (result,) = await asyncio.gather(reading, return_exceptions=True)
    return type(result)


@pytest.mark.looptime
async def test_a_message_has_to_be_complete_in_time_unless_it_is_of_a_stream() -> None:
    rig, loop = Rig(), asyncio.get_running_loop()
    single, stream = rig.read("a"), rig.read("a", single=False)
    started = loop.time()
    with pytest.raises(ServiceError, match="not complete after 30 s") as caught:
        await single
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert loop.time() - started == pytest.approx(MESSAGE_S, abs=0.2)
    await asyncio.sleep(10 * MESSAGE_S)
    assert not stream.done()
    assert rig.reasons == {"late": 1}
    stream.cancel()
    assert await outcome(stream) is asyncio.CancelledError, "the caller's own"


@pytest.mark.looptime
async def test_messages_that_hold_too_much_are_given_up_by_connection() -> None:
    rig = Rig()
    mine, theirs = [rig.read("mine", single=False) for _ in range(2)], [rig.read("theirs") for _ in range(3)]
    await asyncio.sleep(1)
    assert not rig.reasons, "there is room for them"
    rig.held = 101
    await asyncio.sleep(0.1)
    assert {await outcome(reading) for reading in theirs} == {ResourceExhausted}
    assert rig.reasons == {"unfinished": 3}
    assert not any(reading.done() for reading in mine)
    more = [rig.read("others") for _ in range(2)]
    await asyncio.sleep(10)
    assert not any(reading.done() for reading in (*mine, *more)), "4 cannot hold much"
    for reading in (*mine, *more):
        reading.cancel()


@pytest.mark.looptime
async def test_messages_that_have_only_begun_are_not_given_up() -> None:
    rig = Rig()
    rig.held = 1000
    for _ in range(10):
        readings = [rig.read("a") for _ in range(20)]
        await asyncio.sleep(0.04)
        for reading in readings:
            reading.cancel()
    assert not rig.reasons


@pytest.mark.looptime
async def test_calls_are_counted_until_their_status_is_delivered() -> None:
    rig = Rig(most=2)
    first, second, third = FakeContext(), FakeContext(), FakeContext()
    for context in (first, second):
        assert rig.intake.enter(RUN, context)
    with pytest.raises(ResourceExhausted, match="2 calls are open already: try again later") as caught:
        rig.intake.enter(RUN, third)
    assert caught.value.retry_after_s == 0.1
    assert rig.reasons == {"open": 1}
    third.end()
    assert rig.intake.enter(HEALTH, FakeContext()), "probes are always taken"
    assert rig.intake.calls == 3
    first.end()
    second.end()
    fourth = FakeContext()
    assert rig.intake.enter(RUN, fourth)
    fourth.end()
    rig.draining.set()
    assert not rig.intake.enter(RUN, FakeContext())
    assert rig.intake.enter(HEALTH, FakeContext())


@pytest.mark.looptime
async def test_callers_are_turned_away_when_no_call_can_follow() -> None:
    rig, loop = Rig(), asyncio.get_running_loop()
    started = loop.time()
    for stopped, after in ((False, 0.25), (True, 0.0)):
        if stopped:
            rig.intake.stopped()
        started = loop.time()
        with pytest.raises(Unavailable, match="shutting down: send to another one"):
            await rig.intake.turn_away()
        assert loop.time() - started == pytest.approx(after)
    assert rig.reasons == {"draining": 2}


@pytest.mark.looptime
async def test_it_waits_for_a_lull_and_for_a_shorter_one_the_longer_that_takes() -> None:
    rig, loop = Rig(most=10_000), asyncio.get_running_loop()

    async def call_every(seconds: float) -> None:
        while True:
            rig.intake.enter(RUN, FakeContext())
            await asyncio.sleep(seconds)

    async def waited() -> float:
        started = loop.time()
        await rig.intake.lull(2.0)
        return loop.time() - started

    assert await waited() == 0, "nobody has called"
    rig.intake.enter(RUN, FakeContext())
    assert await waited() == pytest.approx(0.1, abs=0.02)
    await asyncio.sleep(0.1)
    assert await waited() == 0
    rig.intake.enter(HEALTH, FakeContext())
    assert await waited() == 0, "probes go on"
    for every, least, most in ((0.05, 0.9, 1.3), (0.001, 1.9, 2.1)):
        calling = asyncio.create_task(call_every(every))
        await asyncio.sleep(0.5)
        assert least < await waited() < most
        calling.cancel()
    assert await rig.intake.lull(0.0) is None


@pytest.mark.looptime
async def test_messages_of_streams_come_one_in_each_turn_of_the_loop_and_in_order() -> None:
    turns, passed, turn = Turns(), list[tuple[int, int]](), 0

    async def take(number: int) -> None:
        await turns.take()
        passed.append((number, turn))

    taking = [asyncio.create_task(take(number)) for number in range(6)]
    for turn in range(12):
        await asyncio.sleep(0)
        if turn == 0:
            taking[3].cancel()
    assert [number for number, _ in passed] == [0, 1, 2, 4, 5]
    times = [at for _, at in passed]
    assert all(later > earlier for earlier, later in itertools.pairwise(times)), "never two in one turn"
    assert times[-1] - times[0] <= 6, "no turn is missed"
    await take(7)
    assert passed[-1][0] == 7, "nobody waits for those who are gone"


@pytest.mark.looptime
@pytest.mark.parametrize(("raw", "told"), [(b"\xff\xff", "no RunRequest"), (b"\x12\x05cut", "no RunRequest")])
async def test_what_is_no_message_is_the_callers_fault(raw: bytes, told: str) -> None:
    rig = Rig()
    with pytest.raises(InvalidArgument, match=told):
        rig.intake.parse(raw, model_pb2.RunRequest.FromString)
    assert rig.reasons == {"message": 1}


@pytest.mark.looptime
async def test_large_messages_are_looked_at_before_they_are_parsed() -> None:
    rig = Rig()
    parse = rig.intake.parse
    large = predict_pb2.PredictRequest(image=bytes(1_000_000))
    assert parse(large.SerializeToString(), predict_pb2.PredictRequest.FromString) == large
    shape = b"\x12\xf0\xa2\x04" + bytes([1]) * 70_000
    with pytest.raises(InvalidArgument, match="a shape has 70000 bytes: a tensor has few dimensions"):
        parse(b"\x12\xf4\xa2\x04" + shape, predict_pb2.PredictRequest.FromString)
    assert rig.reasons == {"message": 1}
