"""The metrics port: plain HTTP for Prometheus. Nothing that comes in there can hold much, or for long."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import choose_encoder

logger = logging.getLogger("collage")

MAX_CONNECTIONS = 16
"""Connections at a time; a further one takes the place of the oldest."""
MAX_REQUEST_BYTES = 16 * 1024
TIME_S = 10.0
"""Seconds that a connection may take, from its first byte to the last of its answer."""
_ABSENT = errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT  # addresses that this machine does not have
_AT_ONCE = struct.pack("ii", 1, 0)
_WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 - addresses are compared here


class MetricsPort:
    """Serves the metrics of a registry; each connection gets one answer."""

    def __init__(self, registry: CollectorRegistry, time_s: float = TIME_S) -> None:
        self._app: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)
        self._time_s = time_s
        self._thread = ThreadPoolExecutor(1, "metrics")
        self._servers: list[asyncio.Server] = []
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}  # the oldest first

    async def start(self, host: str, port: int) -> int:
        """Listen wherever gRPC would for this host; returns the port. Raises OSError."""
        sockets = await asyncio.to_thread(listen, host, port)
        for each in sockets:
            # asyncio accepts as many at a time as the backlog allows.
            self._servers.append(
                await asyncio.start_server(self._connected, sock=each, limit=MAX_REQUEST_BYTES, backlog=MAX_CONNECTIONS)
            )
        number: int = sockets[0].getsockname()[1]
        return number

    async def close(self) -> None:
        """End all connections, and listen no longer."""
        for server in self._servers:
            server.close()
        tasks = list(self._connections)
        for task in tasks:
            self._end(task)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._thread.shutdown(wait=False)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            self._end(next(iter(self._connections)))
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(lambda done: self._connections.pop(done, None))

    def _end(self, task: asyncio.Task[None]) -> None:
        self._connections.pop(task).transport.abort()  # a task that is cancelled before it starts does nothing
        task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._time_s):
                head = await reader.readuntil(b"\r\n\r\n")
                loop = asyncio.get_running_loop()
                writer.write(await loop.run_in_executor(self._thread, self._answer, head.decode("latin-1")))
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
            # No request, or nobody waits for its answer: what is not sent yet is thrown away, by the kernel as well.
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        finally:
            writer.transport.abort()

    def _answer(self, head: str) -> bytes:
        request, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        try:
            method, target, _ = request.split()
            url = urlsplit(target)
        except ValueError:
            return _response("400 Bad Request", [], b"send GET /metrics HTTP/1.1\n")
        accepted = headers.get("accept", "")
        try:
            choose_encoder(accepted)
        except (TypeError, ValueError):  # versions that are no numbers
            accepted = ""
        environment = {"REQUEST_METHOD": method, "PATH_INFO": url.path, "QUERY_STRING": url.query}
        environment |= {"HTTP_ACCEPT": accepted, "HTTP_ACCEPT_ENCODING": headers.get("accept-encoding", "")}
        try:
            return self._page(environment)
        except Exception:
            logger.exception("the metrics could not be written")
            return _response("500 Internal Server Error", [], b"see the log\n")

    def _page(self, environment: dict[str, str]) -> bytes:
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
            started.append((status, headers))

        body = b"".join(self._app(environment, start))
        return _response(*started[0], body)


def _response(status: str, headers: list[tuple[str, str]], body: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace") + body


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets on one port of every address of ``host`` that this machine has; as with gRPC, a wildcard is any address.

    Their connections send what they have at once: else the second part of an answer waits for the acknowledgement of
    the first, usually 40 ms, and asyncio only sees to that for sockets of its own. Raises OSError.
    """
    sockets = [_anywhere(port)] if host in _WILDCARDS else _everywhere(host, port)
    for each in sockets:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sockets


def _everywhere(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of ``host``."""
    names = ("127.0.0.1", "::1") if host == "localhost" else (host,)  # of which /etc/hosts may lack one
    found = [info for name in names for info in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, _, _, _, (name, _, *scope) in found:
        try:
            sockets.append(socket.create_server((name, port, *scope), family=family))
            port = sockets[0].getsockname()[1]
        except OSError as error:
            failure = error
            if error.errno not in _ABSENT:
                break
    if failure and (not sockets or failure.errno not in _ABSENT):
        for each in sockets:
            each.close()
        raise failure
    return sockets


def _anywhere(port: int) -> socket.socket:
    """A socket for IPv6 and IPv4, or for IPv4 where there is no IPv6."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
    return socket.create_server(("", port))
