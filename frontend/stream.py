"""One PredictStream, from its opening to its end: requests come, and answers go, each when it is ready."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc.aio

from collage.errors import AlreadyExists, InvalidArgument, ServiceError, Unavailable, status_of
from collage.texts import within
from collage.v1 import predict_pb2
from inference.service import MAX_ID_BYTES

UNREAD = 32
"""Answers that a caller may leave unread before the stream is read no further."""
DRAINING = "this frontend is shutting down: send to another one what was not answered"
_OLD = "this stream has been open for long enough: send on another one what was not answered"

Predict = Callable[[predict_pb2.PredictRequest, float], Coroutine[Any, Any, predict_pb2.PredictResponse]]
"""Begins to answer a request within a time in seconds; what it returns keeps no more of the request than it needs."""


class RequestStream:
    """Serves one stream; every message in it is answered once, a bad one by an error.

    ``most`` requests may be under way before the stream is read no further. ``remaining`` says how many seconds a new
    request may take. While ``draining`` is set, new requests are refused.
    """

    def __init__(self, predict: Predict, most: int, remaining: Callable[[], float], draining: asyncio.Event) -> None:
        self._predict, self._remaining, self._draining = predict, remaining, draining
        self._slots = asyncio.Semaphore(most)
        self._running: dict[str, asyncio.Task[None]] = {}  # what is unanswered, by id
        self._answers: deque[predict_pb2.PredictStreamResponse] = deque()
        self._wake, self._written = asyncio.Event(), asyncio.Event()
        self._closing = False
        self._broken: ServiceError | None = None

    async def serve(self, requests: AsyncIterator[Any], context: Any, longest_s: float | None) -> None:
        """Until the caller has sent all its requests, the process drains, or ``longest_s`` is over.

        Raises when those that were read are answered: Unavailable if there may be unread ones, or the error that ended
        the reading.
        """
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(self._write(context))
            reading = tasks.create_task(self._read(requests, tasks))
            drained = tasks.create_task(self._draining.wait())
            await asyncio.wait((reading, drained), timeout=longest_s, return_when=asyncio.FIRST_COMPLETED)
            if not drained.cancel() and self._running:
                await asyncio.wait([*self._running.values()])  # those that come meanwhile are refused
            unread = reading.cancel()
            if self._running:
                await asyncio.wait([*self._running.values()])
            self._closing = True
            self._wake.set()
            await asyncio.wait((writing,))  # to cancel a write could leave the call hanging
        if self._broken:
            raise self._broken
        if unread:
            raise Unavailable(DRAINING if self._draining.is_set() else _OLD)

    async def _read(self, requests: AsyncIterator[Any], tasks: asyncio.TaskGroup) -> None:
        while True:
            while len(self._answers) > UNREAD:
                self._written.clear()
                await self._written.wait()
            await self._slots.acquire()
            try:
                self._take(await anext(requests), tasks)
            except StopAsyncIteration:
                return
            except InvalidArgument as error:
                self._fail("", error)
                self._slots.release()
            except ServiceError as error:
                self._broken = error
                return

    def _take(self, message: predict_pb2.PredictStreamRequest, tasks: asyncio.TaskGroup) -> None:
        id, remaining_s = message.request.request_id, self._remaining()
        timeout_s = min(remaining_s, message.timeout_s) if message.timeout_s > 0 else remaining_s
        try:
            if not id:
                raise InvalidArgument("a request in a stream needs a request_id")
            if self._draining.is_set():
                raise Unavailable(DRAINING)
            if id in self._running:
                raise AlreadyExists("a request with this request_id is unanswered yet: this one was not looked at")
            answer = self._predict(message.request, timeout_s)
        except Exception as error:
            self._fail(id, error)
            self._slots.release()
            return
        self._running[id] = tasks.create_task(self._answer(id, answer))

    async def _answer(self, id: str, answer: Coroutine[Any, Any, predict_pb2.PredictResponse]) -> None:
        try:
            self._tell(predict_pb2.PredictStreamResponse(request_id=id, response=await answer))
        except Exception as error:
            self._fail(id, error)
        finally:
            del self._running[id]
            self._slots.release()

    def _fail(self, id: str, error: Exception) -> None:
        id = within(id, MAX_ID_BYTES)
        code, text = status_of(error, id)
        retry_after_s = error.retry_after_s if isinstance(error, ServiceError) else None
        failure = predict_pb2.PredictError(code=code.value[0], message=text, retry_after_s=retry_after_s)
        self._tell(predict_pb2.PredictStreamResponse(request_id=id, error=failure))

    def _tell(self, answer: predict_pb2.PredictStreamResponse) -> None:
        self._answers.append(answer)
        self._wake.set()

    async def _write(self, context: Any) -> None:
        try:
            while self._answers or not self._closing:
                await self._wake.wait()
                self._wake.clear()
                while self._answers:
                    await context.write(self._answers.popleft())
                    if len(self._answers) == UNREAD:
                        self._written.set()
        except grpc.aio.InternalError:
            return  # the caller is gone, and gRPC cancels this call
