"""What callers may hold by HTTP: heads, bodies, connections; and what a shutdown does. Nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from frontend.http.port import HttpPort
from tests.frontend.grpc_workers import Slowness, cluster
from tests.frontend.http.web import ask, http_port, raw, refused
from tests.frontend.test_server import encoded

HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"


async def until(happened: object) -> None:
    async with asyncio.timeout(10):
        while not happened():  # type: ignore[operator]
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("sent", [b"GET", HEAD, HEAD + b"\r\n" + b"part of a body"])
async def test_a_request_that_does_not_go_on_is_ended(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.http.port.HEAD_S", 0.2)
    monkeypatch.setattr("frontend.http.port.IDLE_S", 1)
    monkeypatch.setattr("collage.intake.MESSAGE_S", 0.3)
    async with cluster(http_port=0) as (_, server, _):
        told = await raw(server, sent)
        assert told.startswith(b"HTTP/1.1 408 ")
        assert b"send it faster" in told
        assert refused(server, "late") == sent.endswith(b"body")


async def test_an_idle_connection_is_closed_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.http.port.HEAD_S", 0.1)
    monkeypatch.setattr("frontend.http.port.IDLE_S", 1)
    one = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    async with cluster(http_port=0) as (_, server, _):
        assert await raw(server, b"") == b"", "it would be taken for the answer to a request that was just sent"
        assert (await raw(server, one)).count(b"HTTP/1.1 ") == 1


async def test_a_head_is_bounded_however_it_comes() -> None:
    async with cluster(http_port=0) as (_, server, _):
        line = b"X-Filler: " + 990 * b"x" + b"\r\n"
        for parts in ([17 * line, 17 * line], [34 * line + b"\r\n"], [b"X-Endless: " + 40_000 * b"x"]):
            told = await raw(server, b"GET /v2 HTTP/1.1\r\nHost: x\r\n", *parts)
            assert told.startswith(b"HTTP/1.1 431 ")
            assert b"32768 bytes" in told
        told = await raw(server, b"GET /v2 HTTP/1.1\r\nConnection: close\r\n", 16 * line, 16 * line + b"\r\n")
        assert told.startswith(b"HTTP/1.1 200 ")


async def test_what_is_no_http_is_told_so() -> None:
    async with cluster(http_port=0) as (_, server, _):
        for sent in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x00\xa5\x01\x00", b"nonsense\r\n\r\n"):
            told = await raw(server, sent)
            assert told.startswith(b"HTTP/1.1 400 ")
            assert b"is the port gRPC's?" in told


async def test_the_rest_of_a_refused_body_is_read_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.http.port.REST_S", 0.2)
    async with cluster(http_port=0, max_message_bytes=5000) as (_, server, _):
        head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 6000\r\n\r\n"
        told = await raw(server, head, 5999 * b"x")
        assert told.startswith(b"HTTP/1.1 413 "), "then the connection ends"
        again = await raw(server, head, 6000 * b"x", b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert again.count(b"HTTP/1.1 ") == 2, "a connection whose refused body ended can be used again"


async def test_requests_that_are_sent_without_waiting_are_bounded() -> None:
    async with cluster(http_port=0) as (_, server, _):
        one = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert (await raw(server, 9 * one + last)).count(b'{"live":true}') == 10
        with contextlib.suppress(ConnectionError):
            assert (await raw(server, 5000 * one)).count(b"live") < 50


async def test_connections_beyond_the_most_are_turned_away() -> None:
    turned_away: list[None] = []

    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError

    http = HttpPort(app, lambda: turned_away.append(None), most=2)  # type: ignore[arg-type]
    await http.start("127.0.0.1", 0)
    try:
        held = [await asyncio.open_connection("127.0.0.1", http.port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
        told = await asyncio.wait_for(reader.read(), 10)
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"2 connections are open already" in told
        assert (b"retry-after: 1" in told, len(turned_away)) == (True, 1)
        for _, other in (*held, (reader, writer)):
            other.close()
    finally:
        await http.stop(5)


async def test_a_port_that_is_taken_is_said_to_be() -> None:
    http = HttpPort(None, lambda: None)  # type: ignore[arg-type]
    await http.start("127.0.0.1", 0)
    with pytest.raises(OSError, match="for HTTP"):
        await HttpPort(None, lambda: None).start("127.0.0.1", http.port)  # type: ignore[arg-type]
    await http.stop(1)


async def test_a_shutdown_lets_requests_finish_and_ends_idle_connections() -> None:
    slow = Slowness(slow=0.6)
    async with cluster(slowness=slow, policy="none", http_port=0, drain_s=5) as (_, server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", http_port(server))
        running = asyncio.ensure_future(ask(server, "POST", "/v1/predict?request_id=slow", encoded(1)))
        await until(lambda: slow.running)
        stopping = asyncio.ensure_future(server.stop())
        await until(server.draining.is_set)
        assert await asyncio.wait_for(reader.read(), 5) == b"", "idle connections are ended"
        writer.close()
        assert (await running).status == 200
        await stopping
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", http_port(server))
    assert server.intake.calls == 0


async def test_a_request_that_outlives_the_grace_is_cut_off() -> None:
    slow = Slowness(slow=60.0)
    async with cluster(slowness=slow, policy="none", http_port=0, drain_s=0.3, timeout_s=60) as (_, server, _):
        running = asyncio.ensure_future(ask(server, "POST", "/v1/predict?request_id=slow", encoded(1)))
        await until(lambda: slow.running)
        async with asyncio.timeout(10):
            await server.stop()
        with pytest.raises((ConnectionError, OSError)):
            await running
    assert server.intake.calls == 0


async def test_while_draining_new_requests_are_sent_elsewhere() -> None:
    async with cluster(http_port=0) as (_, server, _):
        server.draining.set()
        told = await ask(server, "POST", "/v1/predict", encoded(1))
        assert (told.status, "send to another one" in told.json["error"]) == (503, True)
        assert refused(server, "draining") == 1
        assert (await ask(server, "GET", "/v2/health/live")).status == 200
