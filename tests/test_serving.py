"""Every server: errors become statuses, health tells the truth, stopping drains once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from collage import errors
from collage.channels import channel_options, server_options
from collage.errors import ResourceExhausted, boundary, pushback
from collage.serving import Server, ServerSettings, load_settings
from collage.v1 import model_pb2, model_pb2_grpc

BOUND_S = 20.0
SERVICE = "collage.v1.ModelService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

Behaviour = Callable[[], Awaitable[None]]


class Servicer(model_pb2_grpc.ModelServiceServicer):
    """Does what the test wants."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    @boundary
    async def Run(self, request: model_pb2.RunRequest, context: Any) -> model_pb2.RunResponse:
        await self._behaviour()
        return model_pb2.RunResponse(queue_s=1)


class ServingCluster:
    """A server in this process and a channel to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        # A pool of its own: another test may have had this port, and its dying connection would be shared.
        options = [*channel_options(), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def classify(self, timeout: float = BOUND_S) -> grpc.aio.UnaryUnaryCall[Any, model_pb2.RunResponse]:
        stub = model_pb2_grpc.ModelServiceStub(self.channel)
        return stub.Run(model_pb2.RunRequest(), timeout=timeout)

    async def check(self, service: str = "") -> int:
        request = health_pb2.HealthCheckRequest(service=service)
        status: int = (await self.health.Check(request, timeout=BOUND_S)).status
        return status

    def watch(self, service: str = "") -> Any:
        return self.health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=BOUND_S)


Launch = Callable[..., Awaitable[ServingCluster]]


def settings(**changes: Any) -> ServerSettings:
    return ServerSettings(**{"host": "127.0.0.1", "port": 0, "metrics_port": 0, "drain_s": 0.0, **changes})


async def instantly() -> None:
    """Succeed."""


@asynccontextmanager
async def launching() -> AsyncIterator[Launch]:
    """Makes clusters, which end with the block."""
    clusters: list[ServingCluster] = []

    async def make(behaviour: Behaviour = instantly, **changes: Any) -> ServingCluster:
        server = Server(settings(**changes), CollectorRegistry(), [SERVICE])
        model_pb2_grpc.add_ModelServiceServicer_to_server(Servicer(behaviour), server.grpc)
        await server.start()
        clusters.append(ServingCluster(server))
        return clusters[-1]

    yield make
    for cluster in clusters:
        await cluster.channel.close()
        await cluster.server.stop()


@pytest.fixture
async def launch() -> AsyncIterator[Launch]:
    async with launching() as made:
        yield made


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT),
        (errors.ResourceExhausted, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.Unavailable, grpc.StatusCode.UNAVAILABLE),
        (errors.DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.ServiceError, grpc.StatusCode.INTERNAL),
    ],
)
async def test_a_service_error_is_told_with_its_status(
    launch: Launch, error: type[errors.ServiceError], code: grpc.StatusCode
) -> None:
    async def fail() -> None:
        raise error("do this instead")

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (await launch(fail)).classify()
    assert (caught.value.code(), caught.value.details()) == (code, "do this instead")


@pytest.mark.parametrize(
    ("text", "told"), [(100_000 * "x", 1024 * "x"), (100_000 * "ü", 512 * "ü"), ("x" + 9000 * "語", "x" + 341 * "語")]
)
async def test_a_long_error_text_is_cut_and_keeps_its_status(launch: Launch, text: str, told: str) -> None:
    async def fail() -> None:
        raise errors.InvalidArgument(text)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (await launch(fail)).classify()
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, told)


def test_pushback_is_never_of_nothing_nor_sooner_than_said() -> None:
    told = {seconds: dict(pushback(ResourceExhausted("full", seconds))) for seconds in (0.0, 0.0101)}
    assert told == {0.0: {"grpc-retry-pushback-ms": "1"}, 0.0101: {"grpc-retry-pushback-ms": "11"}}


async def test_an_unknown_error_is_logged_and_not_told(launch: Launch, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise RuntimeError("a secret")

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (await launch(fail)).classify()
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "internal error: see the server's log"
    assert "a secret" not in str(caught.value)
    assert "a secret" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("error", [grpc.aio.InternalError(), ExceptionGroup("two", 2 * [grpc.aio.InternalError()])])
async def test_an_answer_that_cannot_be_written_is_no_error_of_ours(
    launch: Launch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def fail() -> None:
        raise error

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (await launch(fail)).classify()
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert [record.levelname for record in caplog.records if record.levelno > logging.DEBUG] == []


async def test_a_failed_write_does_not_hide_another_error(launch: Launch, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ExceptionGroup("two", [grpc.aio.InternalError(), RuntimeError("a mistake")])

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (await launch(fail)).classify()
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "a mistake" in caplog.text


async def test_an_inner_cancellation_is_a_status_and_not_a_hang(launch: Launch) -> None:
    async def cancelled_inside() -> None:
        inner = asyncio.create_task(asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (await launch(cancelled_inside)).classify()
    assert caught.value.code() is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("how", ["cancel", "deadline", "disconnect"])
async def test_the_callers_cancellation_reaches_the_method(launch: Launch, how: str) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    cluster = await launch(wait)
    call = cluster.classify(timeout=0.5 if how == "deadline" else BOUND_S)
    async with asyncio.timeout(BOUND_S):
        await started.wait()
        if how == "cancel":
            call.cancel()
        elif how == "disconnect":
            await cluster.channel.close()
        await cancelled.wait()
        if how == "deadline":
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        else:
            with pytest.raises(asyncio.CancelledError):
                await call


async def test_stopping_waits_for_calls_in_flight(launch: Launch) -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        started.set()
        await finish.wait()

    cluster = await launch(wait, drain_s=BOUND_S)
    cluster.server.set_serving(True)
    watching = cluster.watch()
    assert (await watching.read()).status == SERVING
    call = cluster.classify()
    await started.wait()
    stopping = [asyncio.create_task(cluster.server.stop()) for _ in range(3)]
    assert (await watching.read()).status == NOT_SERVING
    refused = []
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cluster.classify(timeout=5)
        refused.append(caught.value.code())
    assert refused == [grpc.StatusCode.UNAVAILABLE] * 2
    assert [task for task in stopping if task.done()] == []  # a failure shows what came of them
    finish.set()
    assert (await call).queue_s == 1
    async with asyncio.timeout(BOUND_S):
        await asyncio.gather(*stopping)
        await cluster.server.stop()


async def test_a_cancelled_stop_goes_on_draining(launch: Launch) -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        started.set()
        await finish.wait()

    cluster = await launch(wait, drain_s=BOUND_S)
    call = cluster.classify()
    await started.wait()
    impatient = asyncio.create_task(cluster.server.stop())
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    finish.set()
    assert (await call).queue_s == 1
    await cluster.server.stop()


async def test_calls_are_still_taken_during_the_drain_delay(launch: Launch) -> None:
    cluster = await launch(drain_delay_s=0.5, drain_s=BOUND_S)
    cluster.server.set_serving(True)
    watching = cluster.watch()
    await watching.read()
    stopping = asyncio.create_task(cluster.server.stop())
    assert (await watching.read()).status == NOT_SERVING
    assert (await cluster.classify()).queue_s == 1
    cluster.server.set_serving(True)  # too late
    assert await cluster.check() == NOT_SERVING
    await stopping


async def test_stopping_what_never_started() -> None:
    server = Server(settings(), CollectorRegistry(), [SERVICE])
    async with asyncio.timeout(BOUND_S):
        await server.stop()
        await server.stop()


@pytest.mark.parametrize("port", ["port", "metrics_port"])
async def test_a_taken_port_is_named(launch: Launch, port: str) -> None:
    taken = getattr((await launch()).server, port)
    second = Server(settings(**{port: taken}), CollectorRegistry(), [])
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{taken}"):
        await second.start()
    await second.stop()


async def test_connections_that_say_nothing_are_closed(launch: Launch) -> None:
    cluster = await launch(health_port=0)
    async with asyncio.timeout(BOUND_S):
        opened = [await asyncio.open_connection("127.0.0.1", port) for port in _grpc_ports(cluster.server)]
        opened[0][1].write(b"PRI * HTTP/2.0")
        await asyncio.gather(*(reader.read() for reader, _ in opened))
    for _, writer in opened:
        writer.close()
    assert await cluster.check() == NOT_SERVING
    assert dict(server_options())["grpc.max_connection_idle_ms"] == 300_000


def _grpc_ports(server: Server) -> tuple[int, int, int]:
    assert server.health_port is not None
    return server.port, server.port, server.health_port


def test_settings_come_from_flags_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLAGE_PORT", "1234")
    monkeypatch.setenv("COLLAGE_DRAIN_S", "3")
    loaded = load_settings(ServerSettings, ["--port", "4321", "--metrics-port", "0"])
    assert (loaded.port, loaded.metrics_port, loaded.drain_s) == (4321, 0, 3.0)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--port", "70000"], "--port: Input should be less than or equal to 65535, got '70000'\n"),
        (["--log-level", "LOUD"], "--log-level: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR', got 'LOUD'\n"),
        (["--port", "x", "--drain-s", "-1"], "--drain-s: Input should be greater than or equal to 0, got '-1'\n"),
        (["--typo", "1"], "unrecognized arguments: --typo 1\n"),
    ],
)
def test_wrong_settings_are_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        load_settings(ServerSettings, flags)
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


async def test_errors_are_logged_with_the_request_they_belong_to(
    launch: Launch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise RuntimeError("a secret")

    cluster = await launch(fail)
    stub = model_pb2_grpc.ModelServiceStub(cluster.channel)
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Run(model_pb2.RunRequest(request_id="mine"), timeout=BOUND_S)
    assert [record.__dict__["request_id"] for record in caplog.records if record.exc_info] == ["mine"]
