"""The metrics port over real connections: what it answers, and that it lets nobody hold it."""

from __future__ import annotations

import asyncio
import gzip
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from collage.client import Client
from collage.metrics_port import MAX_CONNECTIONS, MAX_REQUEST_BYTES, MetricsPort, listen
from collage.serving import Server, ServerSettings, load_settings
from tests.frontend.grpc_workers import cluster

BOUND_S = 20.0
SOON_S = 0.3
"""The port's time limit where a test waits for it."""
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n"

Port = Callable[..., Awaitable[int]]


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("tries", "Tries", registry=registry).inc(3)
    Gauge("other", "Other", registry=registry)
    return registry


@asynccontextmanager
async def serving(registry: CollectorRegistry, host: str = "127.0.0.1", time_s: float = BOUND_S) -> AsyncIterator[int]:
    port = MetricsPort(registry, time_s)
    number = await port.start(host, 0)
    try:
        yield number
    finally:
        await port.close()


async def ask(port: int, request: bytes, host: str = "127.0.0.1") -> tuple[str, bytes]:
    """Status line with headers, and body; empty if the connection ends without an answer."""
    async with asyncio.timeout(BOUND_S):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request)
        answer = b""
        with suppress(ConnectionError):
            answer = await reader.read()
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode(), body


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the other side ends the connection."""
    async with asyncio.timeout(BOUND_S):
        with suppress(ConnectionError):
            return await reader.read()
    return b""


async def test_a_scrape_gets_all_metrics(registry: CollectorRegistry) -> None:
    async with serving(registry) as port:
        head, body = await ask(port, SCRAPE)
        assert head.startswith("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
        assert f"Content-Length: {len(body)}\r\nConnection: close" in head
        assert b"\ntries_total 3.0\n" in body
        assert b"\nother 0.0\n" in body
        asked = SCRAPE.replace(b"Host: here", b"ACCEPT-ENCODING: gzip\r\nAccept: application/openmetrics-text")
        head, body = await ask(port, asked)
        assert "Content-Type: application/openmetrics-text" in head
        assert gzip.decompress(body).endswith(b"# EOF\n")


async def test_metrics_can_be_asked_for_by_name() -> None:
    async with cluster(s_cnn=1) as (_, server, _):
        for names in (["collage_answers_total"], ["collage_deadline_seconds", "process_open_fds", "absent"]):
            query = "&".join(f"name[]={name}" for name in names).encode()
            _, body = await ask(server.metrics_port, SCRAPE.replace(b"/metrics", b"/metrics?" + query))
            samples = {line.split("{")[0].split()[0] for line in body.decode().splitlines() if line[0] != "#"}
            assert samples == {*names} - {"absent"}
        _, body = await ask(server.metrics_port, SCRAPE.replace(b"/metrics", b"/metrics?name[]="))
        assert b"collage_tasks" in body


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (SCRAPE.replace(b"GET", b"POST"), "405 Method Not Allowed"),
        (b"\r\n\r\n", "400 Bad Request"),
        (SCRAPE.replace(b"/metrics", b"//[x/"), "400 Bad Request"),
        (SCRAPE.replace(b"Host: here", b"Accept: application/openmetrics-text;version=\x1b"), "200 OK"),
        (SCRAPE.replace(b"Host: here", b"Accept"), "200 OK"),
    ],
)
async def test_other_requests_get_their_status(registry: CollectorRegistry, request_: bytes, status: str) -> None:
    async with serving(registry) as port:
        head, _ = await ask(port, request_)
        assert head.startswith(f"HTTP/1.1 {status}\r\n")
        assert "\x1b" not in head
        assert (await ask(port, SCRAPE))[0].startswith("HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HT", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
async def test_half_a_request_ends_at_the_time_limit(registry: CollectorRegistry, sent: bytes) -> None:
    async with serving(registry, time_s=SOON_S) as port:
        assert await ask(port, sent) == ("", b"")


async def test_a_request_that_comes_byte_by_byte_ends_at_the_time_limit(registry: CollectorRegistry) -> None:
    async with serving(registry, time_s=SOON_S) as port, asyncio.timeout(BOUND_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        reading = asyncio.create_task(ended(reader))
        while not reading.done():
            writer.write(b"x")
            await asyncio.wait([reading], timeout=SOON_S / 10)
        assert await reading == b""
        writer.close()


async def test_a_request_without_end_ends(registry: CollectorRegistry) -> None:
    async with serving(registry) as port:
        assert await ask(port, b"GET /" + b"x" * (4 * MAX_REQUEST_BYTES)) == ("", b"")


async def test_an_answer_that_is_not_read_ends_at_the_time_limit() -> None:
    registry = CollectorRegistry()
    Gauge("long", "x" * 20_000_000, registry=registry)
    port = MetricsPort(registry, time_s=1.0)
    number = await port.start("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", number)) as deaf:
        deaf.sendall(SCRAPE)
        lost = select.poll()
        lost.register(deaf, 0)  # tells of errors and of the end only
        assert await asyncio.to_thread(lost.poll, 1000 * BOUND_S)
        await port.close()


async def test_metrics_that_fail_are_a_status_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    registry = CollectorRegistry()
    Gauge("broken", "Broken", registry=registry).set_function(lambda: 1 / 0)
    async with serving(registry) as port:
        assert (await ask(port, SCRAPE))[0].startswith("HTTP/1.1 500 Internal Server Error\r\n")
    assert "ZeroDivisionError" in caplog.text


async def test_however_many_connect_a_scrape_is_answered_and_few_are_held(registry: CollectorRegistry) -> None:
    async with serving(registry, time_s=600.0) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10 * MAX_CONNECTIONS)]
        for _, writer in held:
            writer.write(b"GET /metr")
        head, _ = await ask(port, SCRAPE)
        assert head.startswith("HTTP/1.1 200")
        oldest = held[: 9 * MAX_CONNECTIONS]
        assert {await ended(reader) for reader, _ in oldest} == {b""}
        alive = [reader for reader, _ in held if not reader.at_eof()]
        assert 0 < len(alive) <= MAX_CONNECTIONS
        for _, writer in held:
            writer.close()


def flood(port: int) -> list[socket.socket]:
    """Connect faster than the port can look at connections; returns when all but a few were ended."""
    made = [socket.create_connection(("127.0.0.1", port), BOUND_S) for _ in range(10 * MAX_CONNECTIONS)]
    alive = set(made)
    while len(alive) > MAX_CONNECTIONS:
        ended, _, _ = select.select(alive, [], [], BOUND_S)
        assert ended
        alive -= set(ended)
    return made


async def test_connections_that_come_all_at_once_are_held_no_longer(registry: CollectorRegistry) -> None:
    async with serving(registry, time_s=600.0) as port:
        made = await asyncio.to_thread(flood, port)
        assert (await ask(port, SCRAPE))[0].startswith("HTTP/1.1 200")
        for each in made:
            each.close()


async def test_closing_ends_connections(registry: CollectorRegistry) -> None:
    port = MetricsPort(registry)
    number = await port.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    writer.write(b"GET")
    await ask(number, SCRAPE)  # so the one before has been accepted
    await port.close()
    assert await ended(reader) == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", number)


async def reachable(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "127.0.0.1", "::1", "[::1]", "localhost"])  # noqa: S104
async def test_metrics_are_where_grpc_listens(host: str) -> None:
    settings = load_settings(ServerSettings, ["--host", host, "--port", "0", "--metrics-port", "0", "--drain-s", "0"])
    server = Server(settings, CollectorRegistry(), [""])
    await server.start()
    try:
        found = {}
        for address in ("127.0.0.1", "::1"):
            found[address] = await reachable(address, server.port)
            assert await reachable(address, server.metrics_port) is found[address]
        assert any(found.values())
        assert found["::1"] or host == "127.0.0.1"
        if found["::1"]:
            async with Client(f"[::1]:{server.port}") as client:
                assert await client.health() == "NOT_SERVING"
    finally:
        await server.stop()


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])  # noqa: S104
def test_an_answer_in_two_parts_waits_for_no_acknowledgement(host: str) -> None:
    (listener,) = listen(host, 0)
    with listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1])):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("flag", ["--host", "--metrics-host"])
async def test_an_address_that_is_not_ours_is_named(flag: str) -> None:
    settings = load_settings(ServerSettings, ["--port", "0", "--metrics-port", "0", flag, "2001:db8::1"])
    server = Server(settings, CollectorRegistry(), [])
    with pytest.raises(OSError, match=r"cannot listen on \[2001:db8::1\]:0"):
        await server.start()
    await server.stop()


async def test_an_unreachable_grpc_status_is_told_for_ipv6_as_well() -> None:
    async with Client("[::1]:1") as client:
        with pytest.raises(Exception, match=r"UNAVAILABLE: nothing answers at \[::1\]:1") as caught:
            await client.predict(b"\x01")
    assert getattr(caught.value, "code", None) is grpc.StatusCode.UNAVAILABLE
