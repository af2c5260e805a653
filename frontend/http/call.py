"""One HTTP request in the place of a gRPC call: the same intake, tokens and servicers, so the same rules."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn

from grpc import StatusCode
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from collage.errors import DeadlineExceeded, ServiceError, abort, status_of
from collage.intake import Reading
from collage.security import WANTS_TOKEN
from collage.serving import Server
from collage.traces import HEADER, incoming
from frontend.http.statuses import HTTP_STATUS, Refusal

_GONE = HTTP_STATUS[StatusCode.CANCELLED]  # nobody reads it
_BODILESS = ("GET", "HEAD")


class HttpCall:
    """What servicers and the intake ask of a gRPC call's context, for one HTTP request.

    A caller is an address, whatever the number of its connections: they carry one request at a time each.
    """

    def __init__(self, request: Request, most: int) -> None:
        """``most`` is how many bytes its body may have."""
        self._request, self._most = request, most
        self._loop = asyncio.get_running_loop()
        self._expires: float | None = None
        self._done: list[Callable[[HttpCall], None]] = []

    def limit(self, timeout_s: float) -> None:
        """Set how long the caller waits."""
        self._expires = self._loop.time() + timeout_s

    def peer(self) -> str:
        """Whose share of the room this takes."""
        return f"http:{self._request.client.host}" if self._request.client else "http:"

    def time_remaining(self) -> float | None:
        """Seconds that the caller waits; None if it did not say."""
        return None if self._expires is None else max(0.0, self._expires - self._loop.time())

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """The header fields."""
        return self._request.headers.items()

    def add_done_callback(self, callback: Callable[[HttpCall], None]) -> None:
        """Have ``callback`` called when the response is ready."""
        self._done.append(callback)

    def done(self) -> None:
        """The response is ready."""
        for callback in self._done:
            callback(self)

    async def read(self) -> bytes:
        """The body; raises Refusal if it is too large, compressed, or ends early."""
        headers = self._request.headers
        if headers.get("content-encoding", "identity") != "identity":
            told = "the body is compressed: send it without Content-Encoding"
            raise Refusal(415, told, malformed=True)
        length = headers.get("content-length", "0")
        if int(length if length.isdigit() else 0) > self._most:
            raise self._too_large()
        parts, size = [], 0
        try:
            async for part in self._request.stream():
                parts.append(part)
                size += len(part)
                if size > self._most:
                    raise self._too_large()
        except ClientDisconnect:
            raise Refusal(_GONE, "the caller hung up within the body") from None
        return b"".join(parts)

    def _too_large(self) -> Refusal:
        told = f"the body has more than {self._most} bytes: send a smaller image, or fewer at once"
        return Refusal(413, told, malformed=True)

    async def abort(self, code: StatusCode, text: str, metadata: Sequence[tuple[str, str]] = ()) -> NoReturn:
        """End the request with a gRPC status."""
        milliseconds = dict(metadata).get("grpc-retry-pushback-ms")
        after = None if milliseconds is None else int(milliseconds) / 1000
        raise Refusal.of(code, text, after)


Serve = Callable[[HttpCall, bytes], Awaitable[Response]]
"""Makes the response to a call with this body; raises Refusal."""


class Gate:
    """What every request passes, as every call does at the gRPC port of the same ``server``."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def enter(self, request: Request, method: str, serve: Serve, most: int | None = None) -> Response:
        """The response to a request in the place of a call of ``method``, with ``most`` bytes of body."""
        call = HttpCall(request, self.server.settings.max_message_bytes if most is None else most)
        intake = self.server.intake
        incoming.set(request.headers.get(HEADER, ""))
        try:
            self._check_token(request)
            body = b""
            try:
                if not intake.enter(method, call):
                    await intake.turn_away()
                if request.method not in _BODILESS:
                    body = await intake.read(Reading(call, single=True))
            except DeadlineExceeded as error:
                raise Refusal(408, f"{error}: send it faster", code=error.code.name) from None
            except ServiceError as error:
                await abort(call, error)
            serving = serve(call, body)
            del body  # whoever serves lets go of it as soon as possible
            return await (serving if request.method in _BODILESS else _while_connected(request, serving))
        except Refusal as refusal:
            if refusal.malformed:
                intake.refused("message")
            return refusal.response()
        except Exception as error:
            return Refusal.of(*status_of(error)).response()
        finally:
            call.done()

    def _check_token(self, request: Request) -> None:
        tokens = self.server.tokens
        if tokens is not None and not tokens.accept(request.headers.get("authorization", "")):
            raise Refusal.of(StatusCode.UNAUTHENTICATED, WANTS_TOKEN)


async def _while_connected(request: Request, serving: Any) -> Response:
    """The response that is made by ``serving``, which is cancelled when the caller hangs up."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - we are in one
    hung_up = asyncio.ensure_future(request.receive())  # of a body that is read only this can come
    answered = False

    def gone(_: object) -> None:
        if not answered:
            task.cancel()

    hung_up.add_done_callback(gone)
    try:
        response: Response = await serving
        return response
    except asyncio.CancelledError:
        if not hung_up.done() or hung_up.cancelled():
            raise
        task.uncancel()
        return Response(status_code=_GONE)
    finally:
        answered = True
        hung_up.cancel()
