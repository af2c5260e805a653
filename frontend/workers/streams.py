"""Calls to one worker over one stream: messages instead of HTTP/2 streams, matched by their ids."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Set
from typing import Any, NamedTuple

import grpc
from numpy.typing import NDArray

from collage.errors import MAX_TEXT
from collage.tensors import TensorError, array_from_tensor
from collage.v1 import model_pb2

logger = logging.getLogger("collage.frontend")

MAX_OUTPUTS = 64
_TOO_LATE = "no answer came in time"
_NAMES = {status.value[0]: status.name for status in grpc.StatusCode}


class Reply(NamedTuple):
    """A worker's outputs, as its ModelInfo describes them, and how long it waited and computed, in seconds."""

    outputs: tuple[NDArray[Any], ...]
    queue_s: float
    inference_s: float


class WorkerFailure(Exception):
    """A call to a worker failed. ``unreachable`` if it never ran, as far as anyone knows.

    The message is often the worker's own; what is beyond 1 KB of it is cut off.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message[:MAX_TEXT])
        self.code = code
        self.unreachable = code == "UNAVAILABLE"

    def log(self, address: str, request_id: str) -> None:
        """Say whose call to which worker this was. That a worker's queue is full is no fault."""
        level = logging.DEBUG if self.code == "RESOURCE_EXHAUSTED" else logging.WARNING
        logger.log(level, "worker %s failed: %s: %s", address, self.code, self, extra={"request_id": request_id})


Ending = Reply | WorkerFailure | None
"""How a call ended: its reply, its failure, or None if it was cancelled."""
Ended = Callable[[Ending], None]
"""Told once how a call ended.

No future, which would tell it in the next turn of the event loop: that takes longer.
"""


def _nobody(outcome: Ending) -> None:
    """Nobody waits."""


class StreamCall:
    """A call under way."""

    __slots__ = ("_ended", "_id", "_stream", "cancelled", "done", "expires")

    def __init__(self, stream: CallStream, id: int, expires: float, ended: Ended) -> None:
        self.expires = expires
        self.done = self.cancelled = False
        self._stream, self._id, self._ended = stream, id, ended

    def cancel(self) -> None:
        """Stop it, on the worker as well, unless it has ended."""
        if not self.done:
            self.cancelled = True
            self._stream.cancelled(self._id)
            self.end(None)

    def end(self, outcome: Ending) -> None:
        """Tell how it ended, unless that is done."""
        if self.done:
            return
        self.done = True
        ended, self._ended = self._ended, _nobody  # what waited may hold an image, and the worker may never answer
        try:
            ended(outcome)
        except Exception:  # of this call alone: the stream has others
            logger.exception("what was waiting for a worker's answer failed")


class CallStream:
    """One RunStream, from its opening to its end; it ends when the connection does.

    ``rpc`` is the open call, whose messages are responses, or failures where bytes were none. When the stream ends, all
    its calls fail at once, as UNAVAILABLE if only the connection is to blame.
    """

    def __init__(self, rpc: Any) -> None:
        self._rpc = rpc
        self._ids = itertools.count(1)
        self._unanswered: dict[int, StreamCall] = {}  # cancelled ones as well
        self._outbox: dict[int, model_pb2.RunStreamRequest] = {}
        self._idle: asyncio.Future[None] | None = None  # the writer waits for it while there is nothing to send
        self._answered = asyncio.Event()
        self.ended: WorkerFailure | None = None
        self.loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None  # one for all calls: hardly any lives to see its end
        self._running = asyncio.create_task(self._run())

    def call(self, message: model_pb2.RunStreamRequest, timeout_s: float, ended: Ended) -> StreamCall:
        """Start a call with a message that has all but its id and its time; it does not end before this returns."""
        id = next(self._ids)
        expires = self.loop.time() + timeout_s
        call = StreamCall(self, id, expires, ended)
        # No time left would tell the worker that there is no limit.
        if failure := self.ended or (WorkerFailure("DEADLINE_EXCEEDED", _TOO_LATE) if timeout_s <= 0 else None):
            self.loop.call_soon(call.end, failure)
            return call
        self._unanswered[id] = call
        message.call_id, message.timeout_s = id, timeout_s
        self._post(id, message)
        if self._timer is None or expires < self._timer.when():
            self._set_timer(expires)
        return call

    def unsettled(self) -> frozenset[int]:
        """The calls that were cancelled, and that the worker has not let go of as far as it says."""
        return frozenset(id for id, call in self._unanswered.items() if call.cancelled)

    async def settled(self, calls: Set[int], within_s: float) -> bool:
        """Wait until the worker has let go of these calls; whether it did in time. WorkerFailure if it cannot say."""
        try:
            async with asyncio.timeout(within_s):
                while calls & self._unanswered.keys():
                    await self._answered.wait()
        except TimeoutError:
            return False
        if self.ended and calls:
            raise WorkerFailure(self.ended.code, str(self.ended))  # not itself: its traceback would hold the stream
        return True

    def forget(self, calls: Collection[int]) -> None:
        """Wait for no answer to these calls any more."""
        for id in calls:
            self._forget(id)

    async def close(self) -> None:
        """End the stream; calls that it still has fail."""
        if not self.ended:
            self._rpc.cancel()
        await asyncio.wait((self._running,))

    def _post(self, id: int, message: model_pb2.RunStreamRequest) -> None:
        self._outbox[id] = message
        if self._idle and not self._idle.done():
            self._idle.set_result(None)

    def _set_timer(self, at: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_at(at, self._expire, at)

    def _expire(self, at: float) -> None:
        self._timer = None
        now = max(at, self.loop.time())  # the loop may be early, within its resolution
        waiting = {id: call for id, call in self._unanswered.items() if not call.done}
        for id, call in waiting.items():
            if call.expires <= now:
                call.end(WorkerFailure("DEADLINE_EXCEEDED", _TOO_LATE))
                self._outbox.pop(id, None)
                self._forget(id)  # the worker was told the time: its answer comes late, or never
        if left := [call.expires for call in waiting.values() if not call.done]:
            self._set_timer(min(left))

    def cancelled(self, id: int) -> None:
        """Stop a call on the worker as well."""
        if id in self._unanswered and not self._withdraw(id):
            self._post(id, model_pb2.RunStreamRequest(call_id=id, cancel=True))

    def _withdraw(self, id: int) -> bool:
        """Forget a call if it was not sent yet."""
        unsent = self._outbox.pop(id, None) is not None
        if unsent:
            self._forget(id)
        return unsent

    def _forget(self, id: int) -> StreamCall | None:
        call = self._unanswered.pop(id, None)
        if call and call.cancelled:
            self._answered.set()
            self._answered.clear()
        return call

    async def _run(self) -> None:
        writing = asyncio.create_task(self._write())
        failure = WorkerFailure("UNAVAILABLE", "the connection was closed")
        try:
            async for response in self._rpc:
                if isinstance(response, WorkerFailure):
                    failure = response
                    break
                self._take(response)
            else:
                failure = WorkerFailure("UNAVAILABLE", "the worker ended the stream")
        except grpc.aio.AioRpcError as error:
            failure = WorkerFailure(error.code().name, error.details() or "")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
        finally:
            self._rpc.cancel()
            writing.cancel()
            self._end(failure)
            await asyncio.wait((writing,))
            if not writing.cancelled():
                writing.exception()  # retrieved: the reader knows better why the stream ended

    async def _write(self) -> None:
        while True:
            while self._outbox:
                id = next(iter(self._outbox))
                await self._rpc.write(self._outbox.pop(id))
            self._idle = self.loop.create_future()
            await self._idle

    def _take(self, response: model_pb2.RunStreamResponse) -> None:
        call = self._forget(response.call_id)
        if call is None or call.done:
            return
        match response.WhichOneof("result"):
            case "response":
                call.end(_read(response.response))
            case "error":
                code = _NAMES.get(response.error.code, "UNKNOWN")
                call.end(WorkerFailure(code, response.error.message))
            case _:
                call.end(WorkerFailure("GARBAGE", "the worker's answer is empty"))

    def _end(self, failure: WorkerFailure) -> None:
        self.ended = failure
        self._rpc = None  # which holds the connection open
        if self._timer:
            self._timer.cancel()
        self._outbox.clear()
        unanswered, self._unanswered = self._unanswered, {}
        for call in unanswered.values():
            call.end(failure)
        self._answered.set()


def _read(response: model_pb2.RunResponse) -> Reply | WorkerFailure:
    if len(response.outputs) > MAX_OUTPUTS:
        return WorkerFailure("GARBAGE", f"the worker's answer has more than {MAX_OUTPUTS} outputs")
    try:
        outputs = tuple(map(array_from_tensor, response.outputs[:]))
    except TensorError as error:
        return WorkerFailure("GARBAGE", f"the worker's answer has an output that cannot be read: {error}")
    return Reply(outputs, response.queue_s, response.inference_s)
