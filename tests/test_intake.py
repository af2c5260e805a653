"""What callers may have a server hold: over real connections, and with fake calls on a virtual clock."""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry

from bench.offer.raw import RawConnection
from collage.channels import MAX_STREAMS
from collage.errors import InvalidArgument, ResourceExhausted, ServiceError, Unavailable, boundary
from collage.intake import MESSAGE_S, Intake, Turns
from collage.serving import Server, ServerSettings, max_connections
from collage.v1 import model_pb2, model_pb2_grpc, predict_pb2

BOUND_S = 20.0
RUN = "/collage.v1.ModelService/Run"
STREAM = "/collage.v1.ModelService/RunStream"
INFO = "/collage.v1.ModelService/GetModelInfo"
HEALTH = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"


class Echo(model_pb2_grpc.ModelServiceServicer):
    """Answers at once, but for what is called "slow", which waits until ``go`` is set."""

    def __init__(self) -> None:
        self.go, self.waiting = asyncio.Event(), 0

    @boundary
    async def Run(self, request: model_pb2.RunRequest, context: Any) -> model_pb2.RunResponse:
        if request.request_id == "slow":
            self.waiting += 1
            await self.go.wait()
        return model_pb2.RunResponse(queue_s=1)

    @boundary
    async def GetModelInfo(self, request: Any, context: Any) -> model_pb2.GetModelInfoResponse:
        return model_pb2.GetModelInfoResponse(name="echo")

    @boundary
    async def RunStream(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        async for _ in request_iterator:
            await context.write(model_pb2.RunStreamResponse())


@asynccontextmanager
async def served(
    before: Callable[[Server], object] = lambda server: None, **settings: Any
) -> AsyncIterator[tuple[Server, Echo]]:
    local = {"host": "127.0.0.1", "port": 0, "metrics_port": 0, "health_port": 0, "drain_s": 0.0}
    server, echo = Server(ServerSettings(**{**local, **settings}), CollectorRegistry(), []), Echo()
    model_pb2_grpc.add_ModelServiceServicer_to_server(echo, server.grpc)
    before(server)
    await server.start()
    async with asyncio.timeout(BOUND_S):
        yield server, echo
    await server.stop()


def refused(server: Server, reason: str) -> float:
    return server.registry.get_sample_value("collage_calls_refused_total", {"reason": reason}) or 0.0


@pytest.mark.parametrize("method", [RUN, INFO, HEALTH, WATCH])
async def test_a_call_that_ends_without_a_message_gets_a_status(method: str) -> None:
    async with served() as (server, _), RawConnection(server.port) as raw:
        before = len(asyncio.all_tasks())
        raw.half_close(raw.open(method))
        raw.open(method, half_close=True)
        assert await raw.ended(2, BOUND_S)
        assert raw.counts() == {"INVALID_ARGUMENT": 2}
        while len(asyncio.all_tasks()) > before:
            await asyncio.sleep(0.01)


async def test_unfinished_messages_do_not_hold_up_the_end() -> None:
    async with served(drain_s=600.0) as (server, _), RawConnection(server.port) as raw:
        message = model_pb2.RunRequest(request_id="x" * 100).SerializeToString()
        await raw.send(raw.open(RUN), message[:-1], len(message))
        await raw.send(raw.open(RUN), b"")
        assert await raw.ended(1, BOUND_S)
        await server.stop()
        assert raw.counts() == {"OK": 1, "UNAVAILABLE": 1}
        assert refused(server, "draining") == 1


async def test_calls_that_come_while_it_drains_are_unavailable_but_health_is_told() -> None:
    async with served(drain_s=BOUND_S) as (server, echo), RawConnection(server.port) as raw:
        slow = raw.open(RUN)
        await raw.send(slow, model_pb2.RunRequest(request_id="slow").SerializeToString())
        while not echo.waiting:
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(server.stop())
        await server.draining.wait()
        for method in (RUN, STREAM, INFO):
            await raw.send(raw.open(method), b"")
        await raw.send(raw.open(HEALTH), b"")
        assert await raw.ended(4, BOUND_S)
        assert raw.counts() == {"UNAVAILABLE": 3, "OK": 1}
        echo.go.set()
        assert await raw.ended(5, BOUND_S)
        assert raw.statuses[slow] == "OK"
        await stopping


@pytest.mark.parametrize("method", [HEALTH, INFO])
async def test_methods_without_images_take_small_messages_only(method: str) -> None:
    async with served() as (server, _), RawConnection(server.port) as raw:
        await raw.send(raw.open(method), b"\x0a\xfe\x1f" + bytes(4094))
        assert await raw.ended(1, BOUND_S)
        assert raw.counts() == {"INVALID_ARGUMENT": 1}
        assert refused(server, "message") == 1


async def test_the_health_port_takes_small_messages_only() -> None:
    async with served() as (server, _), RawConnection(server.health_port or 0) as raw:
        await raw.send(raw.open(HEALTH), b"\x0a\xfe\x1f" + bytes(4094))
        await raw.send(raw.open(HEALTH), b"\x0a\x08liveness")
        assert await raw.ended(2, BOUND_S)
        assert raw.counts() == {"RESOURCE_EXHAUSTED": 1, "OK": 1}


async def test_bytes_that_are_no_message_are_refused_and_a_stream_goes_on() -> None:
    async with served() as (server, _), RawConnection(server.port) as raw:
        await raw.send(raw.open(RUN), b"\xff\xff")
        assert await raw.ended(1, BOUND_S)
        assert raw.counts() == {"INVALID_ARGUMENT": 1}
        assert refused(server, "message") == 1


async def test_a_burst_waits_for_its_turn_and_is_no_queue_for_others() -> None:
    async with served() as (server, echo):
        request = model_pb2.RunRequest(request_id="slow")
        own_pool = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", own_pool) as channel:
            stub = model_pb2_grpc.ModelServiceStub(channel)
            burst = [asyncio.ensure_future(stub.Run(request, timeout=BOUND_S)) for _ in range(600)]
            while echo.waiting < MAX_STREAMS:
                await asyncio.sleep(0.01)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", own_pool) as other:
                assert (await model_pb2_grpc.ModelServiceStub(other).Run(model_pb2.RunRequest())).queue_s == 1
            assert echo.waiting == MAX_STREAMS
            echo.go.set()
            assert {answer.queue_s for answer in await asyncio.gather(*burst)} == {1.0}


async def test_whoever_answers_a_message_is_the_only_one_who_holds_it() -> None:
    class Message:
        pass

    class Holder(model_pb2_grpc.ModelServiceServicer):
        @boundary
        async def GetModelInfo(self, request: Any, context: Any) -> model_pb2.GetModelInfoResponse:
            held = weakref.ref(request)
            del request
            return model_pb2.GetModelInfoResponse(name="held" if held() else "let go")

    class Parser:
        DESCRIPTOR = model_pb2.GetModelInfoRequest.DESCRIPTOR

        def parse(self, raw: bytes) -> Message:
            return Message()

    handler = grpc.unary_unary_rpc_method_handler(
        Holder().GetModelInfo, Parser().parse, model_pb2.GetModelInfoResponse.SerializeToString
    )
    methods = grpc.method_handlers_generic_handler("a.Holder", {"Hold": handler})
    add = served(before=lambda server: server.grpc.add_generic_rpc_handlers((methods,)))
    async with add as (server, _), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        hold: Any = channel.unary_unary("/a.Holder/Hold", None, model_pb2.GetModelInfoResponse.FromString)
        assert (await hold(b"", timeout=BOUND_S)).name == "let go"


async def test_no_more_connections_are_accepted_than_leave_files_for_the_rest() -> None:
    assert 1 <= max_connections() <= 4096


# On a virtual clock


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
        return asyncio.create_task(self.intake.read(FakeContext(peer), single))


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
