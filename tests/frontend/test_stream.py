"""One PredictStream on a virtual clock, with a caller who reads nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from collage.errors import InvalidArgument, ResourceExhausted, Unavailable
from collage.v1 import predict_pb2
from frontend.stream import UNREAD, RequestStream

pytestmark = pytest.mark.looptime


class Caller:
    """Sends requests without end, and reads as many answers as the test says."""

    def __init__(self, *errors: Exception) -> None:
        self.sent, self.answers = 0, list[predict_pb2.PredictStreamResponse]()
        self.room = asyncio.Semaphore(0)
        self._errors = list(errors)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> predict_pb2.PredictStreamRequest:
        await asyncio.sleep(0)
        if self._errors:
            raise self._errors.pop(0)
        self.sent += 1
        return predict_pb2.PredictStreamRequest(request=predict_pb2.PredictRequest(request_id=f"r{self.sent}"))

    async def write(self, response: predict_pb2.PredictStreamResponse) -> None:
        await self.room.acquire()
        self.answers.append(response)


class Predicting:
    """Answers after a second; remembers how long each request had, and how many were under way at most."""

    def __init__(self) -> None:
        self.limits, self.running, self.most = list[float](), 0, 0

    def __call__(self, request: predict_pb2.PredictRequest, timeout_s: float) -> Any:
        self.limits.append(timeout_s)
        return self._answer()

    async def _answer(self) -> predict_pb2.PredictResponse:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(1)
        self.running -= 1
        return predict_pb2.PredictResponse()


async def test_a_stream_whose_answers_are_not_read_is_read_no_further() -> None:
    caller, predicting, draining = Caller(), Predicting(), asyncio.Event()
    stream = RequestStream(predicting, 10, lambda: 5.0, draining)
    serving = asyncio.create_task(stream.serve(caller, caller, None))
    await asyncio.sleep(100)
    unread = caller.sent
    assert UNREAD < unread <= UNREAD + 10 + 2, "the unread ones, those under way, one that is written, one that is read"
    assert predicting.most == 10
    caller.room.release()
    await asyncio.sleep(100)
    assert caller.sent == unread, "there are more than enough of them"
    for _ in range(10):
        caller.room.release()
    await asyncio.sleep(100)
    assert unread < caller.sent <= unread + 11
    for _ in range(1000):
        caller.room.release()
    await asyncio.sleep(20)
    assert caller.sent > unread + 100, "it goes on"
    draining.set()
    with pytest.raises(Unavailable, match="shutting down"):
        await serving
    assert {answer.request_id for answer in caller.answers} == {f"r{number + 1}" for number in range(caller.sent)}
    assert set(predicting.limits) == {5.0}


async def test_a_bad_message_is_answered_and_an_error_of_reading_ends_the_stream_after_its_answers() -> None:
    caller = Caller(InvalidArgument("no request"))
    caller.room = asyncio.Semaphore(100)
    stream = RequestStream(Predicting(), 2, lambda: 5.0, asyncio.Event())
    serving = asyncio.create_task(stream.serve(caller, caller, None))
    await asyncio.sleep(0.5)
    caller._errors.append(ResourceExhausted("too much is unfinished"))
    with pytest.raises(ResourceExhausted, match="too much is unfinished"):
        await serving
    assert [answer.request_id for answer in caller.answers] == ["", "r1", "r2"]
    assert caller.answers[0].error.message == "no request"
