"""Health: what Check, Watch and List tell, and that Watch ends with the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from collage.health import LIVENESS
from tests.test_serving import BOUND_S, NOT_SERVING, SERVICE, SERVING, Launch, launching

UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
async def launch() -> AsyncIterator[Launch]:
    async with launching() as made:
        yield made


async def test_health_is_not_serving_until_told_otherwise(launch: Launch) -> None:
    cluster = await launch()
    watching = cluster.watch(SERVICE)
    assert (await watching.read()).status == await cluster.check() == await cluster.check(SERVICE) == NOT_SERVING
    assert await cluster.check(LIVENESS) == SERVING, "it lives, and a restart would not help"
    cluster.server.set_serving(True)
    assert (await watching.read()).status == await cluster.check() == await cluster.check(SERVICE) == SERVING
    cluster.server.set_serving(False)
    assert (await watching.read()).status == NOT_SERVING
    watching.cancel()


async def test_health_of_an_unknown_service(launch: Launch) -> None:
    cluster = await launch(drain_s=BOUND_S)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cluster.check("collage.v1.NoService" + 4_000 * "x")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "no service 'collage.v1.NoServicexxx" in str(caught.value.details())
    watching = cluster.watch("collage.v1.NoService")
    assert (await watching.read()).status == UNKNOWN
    cluster.server.set_serving(True)
    await cluster.server.stop()
    assert await watching.read() is grpc.aio.EOF


@pytest.mark.parametrize("serving", [False, True])
async def test_check_watch_and_list_agree(launch: Launch, serving: bool) -> None:
    cluster = await launch(health_port=0)
    cluster.server.set_serving(serving)
    now = SERVING if serving else NOT_SERVING
    for port in (cluster.server.port, cluster.server.health_port):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            listed = (await health.List(health_pb2.HealthListRequest(), timeout=BOUND_S)).statuses
            assert {name: entry.status for name, entry in listed.items()} == {
                "": now,
                SERVICE: now,
                "liveness": SERVING,
            }
            for name, entry in listed.items():
                request = health_pb2.HealthCheckRequest(service=name)
                assert (await health.Check(request, timeout=BOUND_S)).status == entry.status
                watching = health.Watch(request, timeout=BOUND_S)
                assert (await watching.read()).status == entry.status
                watching.cancel()


async def test_liveness_is_serving_to_the_end(launch: Launch) -> None:
    cluster = await launch(drain_s=BOUND_S)
    watching = cluster.watch("liveness")
    assert (await watching.read()).status == SERVING
    await cluster.server.stop()
    assert await watching.read() is grpc.aio.EOF


async def test_stopping_ends_watches_instead_of_waiting_for_them(launch: Launch) -> None:
    cluster = await launch(drain_s=600.0)
    cluster.server.set_serving(True)
    watching = cluster.watch()
    assert (await watching.read()).status == SERVING
    async with asyncio.timeout(BOUND_S):
        await cluster.server.stop()
    assert (await watching.read()).status == NOT_SERVING
    assert await watching.read() is grpc.aio.EOF
