"""A plain HTTP client for tests, without any rule of ours: one request on one connection, in a thread."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

from collage.serving import Server


class Reply(NamedTuple):
    """A response: header fields in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def http_port(server: Server) -> int:
    """Where a server serves HTTP."""
    (port,) = server.other_ports
    return port.port


def send(
    port: int, method: str, path: str, body: Any = None, tls: ssl.SSLContext | None = None, **headers: str
) -> Reply:
    """The response to a request; ``_`` in names of header fields stands for ``-``."""
    connection = (
        http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=tls)
        if tls
        else http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    )
    try:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, fields)
        response = connection.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


async def ask(server: Server, method: str, path: str, body: Any = None, **headers: Any) -> Reply:
    """The same without holding up the event loop."""
    return await asyncio.to_thread(send, http_port(server), method, path, body, **headers)


async def raw(server: Server, *parts: bytes) -> bytes:
    """What comes back, until the server ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", http_port(server))
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.02)  # or the server would see several parts as one
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


def refused(server: Server, reason: str) -> float:
    """Calls and messages that the server has refused for a reason."""
    return server.registry.get_sample_value("collage_calls_refused_total", {"reason": reason}) or 0.0
