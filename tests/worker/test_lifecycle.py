"""From the warm-up to the drain: when a worker says that it serves, and how it stops."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from collage.errors import Unavailable
from tests import onnx_models
from tests.worker.conftest import BOUND_S, Launch, WorkerClient, until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def watch(client: WorkerClient, service: str = "") -> Any:
    return health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest(service=service))


async def check(client: WorkerClient, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(client.channel)
    status: int = (await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=BOUND_S)).status
    return status


async def test_serving_begins_after_the_warm_up(launch: Launch, tmp_path: Path) -> None:
    client = await launch(onnx_models.save_s_cnn(tmp_path / "slow.onnx", loops=50_000), start=False)
    starting = asyncio.create_task(client.worker.start())
    await until(lambda: client.worker.server.port)
    watching = watch(client, "collage.v1.ModelService")
    assert (await watching.read()).status == NOT_SERVING
    assert await check(client) == NOT_SERVING
    assert not starting.done()
    assert (await watching.read()).status == SERVING
    await starting
    for service in ("", "collage.v1.ModelService"):
        assert await check(client, service) == SERVING
    watching.cancel()


async def test_a_warm_up_that_does_not_end_never_serves_and_can_be_cancelled(launch: Launch, endless: Path) -> None:
    client = await launch(endless, start=False)
    starting = asyncio.create_task(client.worker.start())
    await until(lambda: client.worker.server.port)
    assert await check(client) == NOT_SERVING
    waiting = client.ask()  # behind the warm-up
    await until(lambda: client.waiting == 1)
    assert client.started == 0
    starting.cancel()
    async with asyncio.timeout(BOUND_S):
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert await check(client) == NOT_SERVING
    waiting.cancel()


async def test_stopping_lets_calls_in_flight_finish(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, slowdown="fixed:0.3", drain_s=BOUND_S)
    watching = watch(client)
    assert (await watching.read()).status == SERVING
    calls = [client.ask() for _ in range(2)]  # one runs, one waits
    await until(lambda: client.waiting == 1)
    stopping = [asyncio.create_task(client.worker.stop()) for _ in range(2)]
    assert (await watching.read()).status == NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.ask(timeout=2)
    assert caught.value.code() is Unavailable.code
    for call in calls:
        assert (await call).inference_s >= 0.3
    await asyncio.gather(*stopping)
    assert client.count("ok") == 2
    await client.worker.stop()


async def test_stopping_cuts_off_what_outlasts_the_drain(launch: Launch, endless: Path) -> None:
    client = await launch(endless, start=False, drain_s=0.1)
    await client.worker.server.start()
    call = client.ask()
    await until(lambda: client.started == 1)
    async with asyncio.timeout(BOUND_S):
        await client.worker.stop()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await until(lambda: client.count("cancelled") == 1)
