"""Many calls over one stream: messages instead of HTTP/2 streams, matched by their ids."""

from __future__ import annotations

import asyncio
import functools
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from collage.errors import AlreadyExists, DeadlineExceeded, InvalidArgument, Unavailable, status_of
from collage.v1 import model_pb2

UNREAD = 1024
"""Answers that a caller may leave unread before the worker stops to read its calls."""

_CANCELLED = model_pb2.CallError(code=grpc.StatusCode.CANCELLED.value[0], message="the caller stopped the call")


class CallServer:
    """Serves one RunStream; every call in it is answered once.

    ``run`` makes the response to a request, with the call's time limit in seconds (None for none), and bounds how many
    run or wait. While ``draining`` is set, new calls are refused, and the stream ends when those it has are answered.
    """

    def __init__(
        self,
        run: Callable[[model_pb2.RunRequest, float | None], Awaitable[model_pb2.RunResponse]],
        draining: asyncio.Event,
    ) -> None:
        self._run, self._draining = run, draining
        self._calls: dict[int, asyncio.Task[model_pb2.RunResponse]] = {}
        self._answers: deque[model_pb2.RunStreamResponse] = deque()
        self._closing = False
        self._wake, self._written = asyncio.Event(), asyncio.Event()

    async def serve(self, requests: AsyncIterator[model_pb2.RunStreamRequest], context: Any) -> None:
        """Until the caller has sent all its calls, or the worker drains.

        What is no call is answered by an error without a call's id. Cancellation (the caller is gone) stops all calls.
        """
        await context.send_initial_metadata(())  # else the caller's gRPC keeps a task until the first answer
        reader = asyncio.create_task(self._read(requests))
        writer = asyncio.create_task(self._write(context))
        drained = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait((reader, writer, drained), return_when=asyncio.FIRST_COMPLETED)
            self._closing = True
            self._wake.set()
            await asyncio.wait((writer,))
        finally:
            tasks = [reader, writer, drained, *self._calls.values()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in (reader, writer):
            if not task.cancelled() and (error := task.exception()):
                raise error

    async def _read(self, requests: AsyncIterator[model_pb2.RunStreamRequest]) -> None:
        while True:
            try:
                self._take(await anext(requests))
            except StopAsyncIteration:
                return
            except InvalidArgument as error:
                self._fail(0, error)
            while len(self._answers) > UNREAD:
                self._written.clear()
                await self._written.wait()

    def _take(self, message: model_pb2.RunStreamRequest) -> None:
        id = message.call_id
        action = message.WhichOneof("action")
        if action == "cancel":
            if call := self._calls.get(id):
                call.cancel()
        elif action != "request":
            self._fail(id, InvalidArgument("a message of the stream has neither a request nor cancel"))
        elif math.isnan(message.timeout_s):
            self._fail(id, InvalidArgument("timeout_s is no number: send seconds, or 0 for no limit"))
        elif id in self._calls:
            self._fail(id, AlreadyExists("a call with this call_id is unanswered yet: this one was not looked at"))
        elif self._draining.is_set():
            self._fail(id, Unavailable("this worker is shutting down: send to another one"))
        else:
            call = self._calls[id] = asyncio.create_task(self._serve(message.request, message.timeout_s or None))
            call.add_done_callback(functools.partial(self._ended, id, message.request.request_id))

    async def _serve(self, request: model_pb2.RunRequest, timeout_s: float | None) -> model_pb2.RunResponse:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._run(request, timeout_s)
        except TimeoutError:
            raise DeadlineExceeded("the call's time was over before its answer") from None

    def _ended(self, id: int, request_id: str, call: asyncio.Task[model_pb2.RunResponse]) -> None:
        del self._calls[id]
        if call.cancelled():
            self._tell(model_pb2.RunStreamResponse(call_id=id, error=_CANCELLED))
        elif error := call.exception():
            self._fail(id, error, request_id)
        else:
            self._tell(model_pb2.RunStreamResponse(call_id=id, response=call.result()))

    def _fail(self, id: int, error: BaseException, request_id: str = "") -> None:
        code, text = status_of(error, request_id)
        self._tell(model_pb2.RunStreamResponse(call_id=id, error=model_pb2.CallError(code=code.value[0], message=text)))

    def _tell(self, answer: model_pb2.RunStreamResponse) -> None:
        self._answers.append(answer)
        self._wake.set()

    async def _write(self, context: Any) -> None:
        while not (self._closing and not self._calls):
            await self._wake.wait()
            self._wake.clear()
            while self._answers:
                await context.write(self._answers.popleft())
            self._written.set()
