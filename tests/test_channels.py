"""Channels reach their peers directly, unless a proxy for gRPC is named."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from collage.channels import channel_options
from collage.client import Client, SyncClient
from tests.frontend.fakes import image
from tests.frontend.grpc_workers import cluster

NOBODY = "http://127.0.0.1:9"
SOON_S = 10.0


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy"])
async def test_proxies_for_the_web_do_not_stop_a_cluster(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, NOBODY)
    async with cluster(2) as (_, server, _):  # returns when its workers are ready
        address = f"127.0.0.1:{server.port}"
        async with Client(address) as client:
            assert await client.health() == "SERVING"
            assert (await client.predict(image(3), timeout_s=SOON_S)).label == "d"

        def ask() -> str:
            with SyncClient(address) as waiting:
                return waiting.predict(image(4), timeout_s=SOON_S).label

        assert await asyncio.to_thread(ask) == "e"


async def test_a_proxy_for_grpc_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if not asked.done():
            asked.set_result(line)
        writer.close()

    proxy = await asyncio.start_server(connect, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    monkeypatch.setenv("grpc_proxy", f"http://127.0.0.1:{port}")
    async with proxy, grpc.aio.insecure_channel("workers.example:50051", channel_options()) as channel:
        call = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SOON_S)
        async with asyncio.timeout(SOON_S):
            assert (await asked).startswith(b"CONNECT workers.example:50051 ")
        call.cancel()
