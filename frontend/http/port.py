"""The HTTP port: uvicorn's protocol within limits of ours, on sockets of our own, in the frontend's event loop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from collage.channels import join
from collage.metrics_port import listen
from collage.serving import max_connections
from frontend.http.statuses import Refusal

MAX_HEAD_BYTES = 32 * 1024
"""Longest request line with all header fields."""
HEAD_S = 10.0
"""Seconds that these may take to arrive, and a TLS handshake."""
IDLE_S = 75
"""Seconds that a connection may be idle, before its first request and between two."""
REST_S = 5.0
"""Seconds that the rest of a body is read and thrown away after its request was refused, so that the caller gets to
read the refusal."""
UNSENT_MS = 30_000
"""How long the kernel keeps what a caller does not read."""
_PIPELINED = 16  # requests that a caller may send before it has read the answer to the first
_BACKLOG = 256


class BoundedProtocol(HttpToolsProtocol):
    """One connection. It has a time limit whenever its caller owes us something."""

    def __init__(self, refused: Callable[[], object], most: int, empty: asyncio.Event, *args: Any) -> None:
        """``refused`` is called for a connection beyond ``most``; ``empty`` is set when the last one is gone."""
        super().__init__(*args)
        self._refused, self._most, self._empty = refused, most, empty
        self._head: int | None = 0
        """Bytes of a request's head so far; None while none is being read."""
        self._in_message = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or turn it away."""
        full = len(self.connections) >= self._most
        super().connection_made(transport)
        self._empty.clear()
        if opened := transport.get_extra_info("socket"):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNSENT_MS)
        self._limit(IDLE_S, transport.close)
        if full:
            self._refused()
            told = f"{self._most} connections are open already: try again later, or use one for several requests"
            self._end(Refusal(503, told, retry_after_s=1.0, close=True))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._unlimit()
        super().connection_lost(exc)
        if not self.connections:
            self._empty.set()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        if self.transport.is_closing():
            return
        if self._head is not None:
            self._head += len(data)
        super().data_received(data)
        if self._head is not None and self._head > MAX_HEAD_BYTES:
            self._too_large()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._end(Refusal(400, "this is no HTTP/1.1 request: send one (is the port gRPC's?)", close=True))

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head, self._in_message = 0, True
        self._limit(HEAD_S, self._late)

    def on_headers_complete(self) -> None:
        """Its head is complete; what follows it here is not looked at if it is refused."""
        self._head = None
        self._unlimit()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._too_large()
            return
        if len(self.pipeline) >= _PIPELINED:
            self.transport.abort()
            return
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of it is here."""
        self._head, self._in_message = 0, False
        self._unlimit()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """It is answered, perhaps before all of it was here."""
        super().on_response_complete()
        if self._in_message:
            self._limit(REST_S, self.transport.abort)

    def _limit(self, seconds: float, action: Callable[[], object]) -> None:
        self._unlimit()
        self._timer = self.loop.call_later(seconds, action)

    def _unlimit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_large(self) -> None:
        told = f"the request line and header fields have more than {MAX_HEAD_BYTES} bytes: send fewer"
        self._end(Refusal(431, told, close=True))

    def _late(self) -> None:
        self._end(Refusal(408, f"no request was complete within {HEAD_S:.0f} s: send it faster", close=True))

    def _end(self, refusal: Refusal) -> None:
        if self.transport.is_closing():
            return
        response = refusal.response()
        fields = [b"%b: %b" % field for field in response.raw_headers]
        head = b"\r\n".join([b"HTTP/1.1 %d " % refusal.status, *fields, b"", b""])
        self.transport.write(head + bytes(response.body))
        self.transport.close()


class HttpPort:
    """Serves an ASGI application. It is a port of a server's like gRPC's, and stops with it."""

    name = "http"

    def __init__(
        self, app: ASGIApp, refused: Callable[[], object], *, tls: ssl.SSLContext | None = None, most: int | None = None
    ) -> None:
        """``refused`` is called for every connection beyond ``most``, as many as gRPC has if None."""
        self.port = 0
        self._config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=IDLE_S,
        )
        self._config.load()
        self._state = ServerState()
        self._refused, self._tls = refused, tls
        self._most = max_connections() if most is None else most
        self._empty = asyncio.Event()
        self._empty.set()
        self._servers: list[asyncio.Server] = []

    async def start(self, host: str, port: int) -> None:
        """Listen wherever gRPC would for this host, and set ``port``; raises OSError."""
        try:
            sockets = await asyncio.to_thread(listen, host, port)
        except OSError as error:
            raise OSError(f"cannot listen on {join(host, port)} for HTTP: {error}") from None
        loop = asyncio.get_running_loop()
        handshake_s = HEAD_S if self._tls else None
        for each in sockets:
            server = await loop.create_server(
                self._protocol, sock=each, ssl=self._tls, ssl_handshake_timeout=handshake_s, backlog=_BACKLOG
            )
            self._servers.append(server)
        self.port = sockets[0].getsockname()[1]

    def _protocol(self) -> asyncio.Protocol:
        return BoundedProtocol(self._refused, self._most, self._empty, self._config, self._state, {})

    async def stop(self, grace_s: float) -> None:
        """Take no more connections, end those that are idle, let requests finish for ``grace_s``, then end the rest."""
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(grace_s):
                await self._empty.wait()
        except TimeoutError:
            for connection in list(self._state.connections):
                connection.transport.abort()
        if self._state.tasks:  # of callers that are gone now
            await asyncio.wait(self._state.tasks)
