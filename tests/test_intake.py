"""What callers may have a server hold, over real connections; see test_intake_rules.py for the rules alone."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry

from bench.offer.raw import RawConnection
from collage.channels import MAX_STREAMS
from collage.errors import boundary
from collage.serving import Server, ServerSettings, max_connections
from collage.v1 import model_pb2, model_pb2_grpc

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
