"""What callers may have a server hold: calls that are open, and messages that are not complete yet.

gRPC reads a unary call's message before any code of ours runs, waits for one that never comes, and keeps it until the
answer is delivered. So it is shown streams only, and every message is read here: within limits, and let go at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, NoReturn, Self

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from collage import wire
from collage.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, ServiceError, Unavailable, abort
from collage.memory import in_use

MAX_CALLS = 4096
"""Calls that may be open at once, streams and answers that nobody reads included."""
MESSAGE_S = 30.0
"""Longest that a call's message may take to arrive, in seconds."""
MAX_HELD_BYTES = 128 * 1024 * 1024
"""What a process may hold more than when it starts, before calls with unfinished messages are ended."""
SMALL_BYTES = 4096
"""Largest message of a method that takes no images."""
CHECKED_BYTES = 64 * 1024
"""Messages up to this size cannot take much memory, whatever is in them."""
REASONS = ("open", "unfinished", "late", "draining", "message")
_LINGERS_S = 0.05  # a message that takes longer than this waits for its sender
_EVERY_S = 0.02  # messages that linger are looked at; a fast sender fills 20 MB meanwhile
_FEW = 4  # unfinished messages that are left alone: they cannot hold much
_RETRY_S = 0.1
_PARKED_S = 0.25
_EXEMPT = "/grpc.health.v1.Health/"
_DRAINING = "this process is shutting down: send to another one"


class Reading:
    """A call's message that is being read: by which task, since when, and why it was given up.

    ``single`` is the only message of its call, which has to come soon.
    """

    __slots__ = ("context", "error", "since", "single", "task")

    def __init__(self, context: Any, single: bool) -> None:
        self.context, self.single, self.since = context, single, 0.0
        self.task = asyncio.current_task()
        self.error: ServiceError | None = None

    def give_up(self, error: ServiceError) -> None:
        """Have the reader raise an error; nothing is read any more."""
        if self.error is None and self.task is not None:
            self.error = error
            self.task.cancel()


class Intake:
    """Stands between gRPC and the servicers of one server, whose methods are ``Guarded``.

    Calls beyond ``most`` are refused, and so are new ones while ``draining`` is set, health excepted. ``refused`` is
    told the reason whenever a call or a message is. ``held`` is a function that says what the process holds, and
    ``limit`` how much that may be: beyond it, the connection with most unfinished messages loses their calls.
    """

    def __init__(
        self,
        draining: asyncio.Event,
        refused: Callable[[str], None],
        *,
        most: int = MAX_CALLS,
        limit: int = MAX_HELD_BYTES,
        held: Callable[[], int] = in_use,
    ) -> None:
        self._draining, self.refused = draining, refused
        self._most, self._held = most, held
        self._limit = held() + limit
        self._now = asyncio.get_running_loop().time
        self.turns = Turns()  # of streams' messages: unary calls come one by one anyway
        self._stopped = asyncio.Event()
        self._open = 0
        self._last_call = float("-inf")
        self._reads: dict[Reading, None] = {}  # in the order of their beginnings
        self._timer: asyncio.TimerHandle | None = None

    @property
    def calls(self) -> int:
        """How many calls are open: their status was not delivered yet."""
        return self._open

    async def lull(self, longest_s: float, seconds: float = 0.1) -> None:
        """Wait until no call has come for a while, a shorter one the longer that takes; ``longest_s`` at most."""
        started = self._now()
        while (share := 1 - (self._now() - started) / longest_s if longest_s else 0.0) > 0:
            quiet = self._now() - self._last_call
            if quiet >= seconds * share:
                return
            await asyncio.sleep(min(seconds * share - quiet, 0.01))

    def enter(self, method: str, context: Any) -> bool:
        """Count a call until its status is delivered; False if it is to be turned away, ResourceExhausted at once."""
        self._open += 1
        context.add_done_callback(self._left)
        if method.startswith(_EXEMPT):
            return True
        self._last_call = self._now()
        if self._open > self._most:
            self.refused("open")
            raise ResourceExhausted(f"{self._open - 1} calls are open already: try again later", _RETRY_S)
        return not self._draining.is_set()

    async def turn_away(self) -> NoReturn:
        """Raise Unavailable, as soon as gRPC takes no more calls.

        Callers who call again at once would otherwise always have a call on its way, which gRPC drops when it stops.
        """
        self.refused("draining")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PARKED_S):
                await self._stopped.wait()
        raise Unavailable(_DRAINING)

    def stopped(self) -> None:
        """GRPC takes no more calls."""
        self._stopped.set()

    def _left(self, context: object) -> None:
        self._open -= 1

    async def read(self, read: Reading) -> Any:
        """The next message of a call as bytes, or EOF; raises a ServiceError if it is given up."""
        read.since = self._now()
        self._reads[read] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self._review)
        try:
            return await read.context.read()
        except asyncio.CancelledError:
            if read.error is None or read.task is None or read.task.uncancel():
                raise  # the caller is gone
            raise read.error from None
        finally:
            del self._reads[read]

    def parse(self, raw: bytes, parser: Callable[[bytes], Any]) -> Any:
        """The message in these bytes; raises a ServiceError if there is none, or none that anybody needs."""
        kind: Any = parser.__self__  # type: ignore[attr-defined]  # a message class's FromString
        try:
            most = wire.limit(kind.DESCRIPTOR, SMALL_BYTES)
            if most is not None and len(raw) > most:
                raise InvalidArgument(f"the message has {len(raw)} bytes: this method takes at most {most}")
            if len(raw) > CHECKED_BYTES:
                wire.check(raw, kind.DESCRIPTOR)
            return parser(raw)
        except DecodeError:
            self.refused("message")
            raise InvalidArgument(f"the message is no {kind.DESCRIPTOR.name}: send one") from None
        except ServiceError:
            self.refused("message")
            raise

    def _review(self) -> None:
        """Give up messages that take too long, or whose connection makes the process hold too much."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_EVERY_S, self._review) if self._reads else None
        now = self._now()
        lingering = [read for read in self._reads if read.error is None and read.since <= now - _LINGERS_S]
        for read in lingering:
            if read.single and self._draining.is_set():
                self._give_up(read, "draining", Unavailable(_DRAINING))
            elif read.single and read.since <= now - MESSAGE_S:
                self._give_up(read, "late", DeadlineExceeded(f"the message was not complete after {MESSAGE_S:.0f} s"))
        left = [read for read in lingering if read.error is None]
        if len(left) > _FEW and self._held() > self._limit:
            peers = Counter(read.context.peer() for read in left)
            worst = max(peers, key=peers.__getitem__)
            for read in left:
                if read.context.peer() == worst:
                    told = "too many messages are unfinished here: try again later, and send each at once"
                    self._give_up(read, "unfinished", ResourceExhausted(told, _RETRY_S))

    def _give_up(self, read: Reading, reason: str, error: ServiceError) -> None:
        self.refused(reason)
        read.give_up(error)


class Turns:
    """Lets one pass in each turn of the event loop, in order: a long turn is what everybody else waits for."""

    def __init__(self) -> None:
        self._passed = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a turn of one's own."""
        loop = asyncio.get_running_loop()
        if not self._passed:
            self._passed = True
            loop.call_soon(self._next)
            return
        waiter = loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _next(self) -> None:
        while self._waiting:
            if not (waiter := self._waiting.popleft()).done():
                waiter.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._passed = False


class Messages:
    """The messages of a stream as they come. One that is bad raises InvalidArgument, and the next one may be good."""

    def __init__(self, intake: Intake, context: Any, parser: Callable[[bytes], Any]) -> None:
        self._intake, self._context, self._parser = intake, context, parser
        self._read: Reading | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._read is None:  # not before: it belongs to the task that reads
            self._read = Reading(self._context, single=False)
        raw = await self._intake.read(self._read)
        if raw is grpc.aio.EOF:
            raise StopAsyncIteration
        await self._intake.turns.take()
        return self._intake.parse(raw, self._parser)


class Guarded(grpc.GenericRpcHandler):
    """Methods of services behind an ``intake``, as gRPC is to see them: all of them take streams of bytes."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._services: list[grpc.GenericRpcHandler] = []
        self._known: dict[str, Any] = {}

    def add(self, services: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add the methods of services."""
        self._services.extend(services)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method; None if there is none."""
        method = handler_call_details.method
        if (known := self._known.get(method)) is None:
            found = (service.service(handler_call_details) for service in self._services)
            if (handler := next(filter(None, found), None)) is None:
                return None
            known = self._known[method] = self._guarded(method, handler)
        return known

    def _guarded(self, method: str, handler: Any) -> Any:
        intake, parser = self._intake, handler.request_deserializer
        behaviour = getattr(
            handler,
            ("unary_" if not handler.request_streaming else "stream_")
            + ("stream" if handler.response_streaming else "unary"),
        )

        async def take(requests: object, context: Any) -> Any:
            try:
                if not intake.enter(method, context):
                    await intake.turn_away()
                if handler.request_streaming:
                    message = Messages(intake, context, parser)
                else:
                    raw = await intake.read(Reading(context, single=True))
                    if raw is grpc.aio.EOF:
                        raise InvalidArgument("the call ended without a message: send one")
                    message = intake.parse(raw, parser)
                    del raw
            except ServiceError as error:
                await abort(context, error)
            answer = behaviour(message, context)
            del message  # whoever answers lets go of it as soon as possible
            if not handler.response_streaming or not isinstance(answer, AsyncIterator):
                return await answer
            async for response in answer:
                await context.write(response)
            return None

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(take, None, handler.response_serializer)
