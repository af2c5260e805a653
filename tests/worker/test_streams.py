"""Many calls over one stream, over real gRPC with tiny models."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from numpy.typing import NDArray

from collage.tensors import floats_from_tensor, to_tensor
from collage.v1 import model_pb2, model_pb2_grpc
from tests import onnx_models
from tests.onnx_models import COLOURS, solid
from tests.worker.conftest import BOUND_S, Launch, WorkerClient, until
from worker.streams import UNREAD, CallServer

LONG = "fixed:600"
Response = model_pb2.RunStreamResponse


class Stream:
    """One stream of calls."""

    def __init__(self, client: WorkerClient) -> None:
        self.rpc: Any = model_pb2_grpc.ModelServiceStub(client.channel).RunStream(timeout=BOUND_S)
        self._responses = aiter(self.rpc)

    async def ask(self, call_id: int, image: NDArray[Any] | None = None, timeout_s: float = 0.0) -> None:
        tensor = to_tensor(solid("red", 8) if image is None else image)
        request = model_pb2.RunRequest(input=tensor, request_id=f"r{call_id}")
        await self.rpc.write(model_pb2.RunStreamRequest(call_id=call_id, request=request, timeout_s=timeout_s))

    async def cancel(self, call_id: int) -> None:
        await self.rpc.write(model_pb2.RunStreamRequest(call_id=call_id, cancel=True))

    async def answer(self) -> Response:
        response: Response = await anext(self._responses)
        return response

    async def error(self) -> tuple[int, str, str]:
        """Call, status and text of the next answer."""
        answer = await self.answer()
        assert answer.WhichOneof("result") == "error"
        code = next(code for code in grpc.StatusCode if code.value[0] == answer.error.code)
        return answer.call_id, code.name, answer.error.message

    async def rest(self) -> list[Response]:
        return [response async for response in self._responses]


@asynccontextmanager
async def opened(client: WorkerClient) -> AsyncIterator[Stream]:
    stream = Stream(client)
    async with asyncio.timeout(BOUND_S):
        yield stream
    stream.rpc.cancel()


async def test_every_call_gets_its_answer(launch: Launch, s_cnn: Path) -> None:
    async with opened(await launch(s_cnn)) as stream:
        for call_id, colour in enumerate(COLOURS, 7):
            await stream.ask(call_id, solid(colour, 8))
        answers = {answer.call_id: answer.response for answer in [await stream.answer() for _ in COLOURS]}
        for call_id, colour in enumerate(COLOURS, 7):
            scores = floats_from_tensor(answers[call_id].outputs[0], [3])
            assert scores.tolist() == [float(name == colour) for name in COLOURS]
            assert answers[call_id].inference_s > 0
        await stream.rpc.done_writing()
        assert await stream.rest() == []
        assert await stream.rpc.code() is grpc.StatusCode.OK


async def test_a_stream_is_open_before_its_first_call(launch: Launch, s_cnn: Path) -> None:
    async with opened(await launch(s_cnn)) as stream:
        await stream.rpc.initial_metadata()


async def test_collages_go_over_streams_as_well(launch: Launch, tmp_path: Path) -> None:
    client = await launch(onnx_models.save_collage_cnn(tmp_path / "collage.onnx", k=2, cell=4))
    rpc = model_pb2_grpc.ModelServiceStub(client.channel).RunStream(timeout=BOUND_S)
    request = model_pb2.RunRequest(input=to_tensor(solid("green", 8)))
    await rpc.write(model_pb2.RunStreamRequest(call_id=3, request=request))
    answer = await rpc.read()
    assert isinstance(answer, model_pb2.RunStreamResponse)
    assert answer.call_id == 3
    assert floats_from_tensor(answer.response.outputs[1], [4]).tolist() == [1, 1, 1, 1]
    rpc.cancel()


async def test_calls_that_are_in_flight_when_the_caller_has_no_more_are_answered(launch: Launch, s_cnn: Path) -> None:
    async with opened(await launch(s_cnn, slowdown="fixed:0.1")) as stream:
        await stream.ask(1)
        await stream.ask(2)
        await stream.rpc.done_writing()
        assert [answer.call_id for answer in await stream.rest()] == [1, 2]


async def test_a_cancelled_call_frees_the_slot_at_once(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, slowdown=LONG)
    async with opened(client) as stream:
        await stream.ask(1)
        await until(lambda: client.started == 1)
        await stream.ask(2)
        await stream.ask(3)
        await until(lambda: client.waiting == 2)
        await stream.cancel(2)  # in the queue
        assert await stream.error() == (2, "CANCELLED", "the caller stopped the call")
        assert (client.count("dropped"), client.waiting) == (1, 1)
        await stream.cancel(1)  # running
        assert (await stream.error())[:2] == (1, "CANCELLED")
        await until(lambda: client.started == 2)
        assert (client.count("cancelled"), client.waiting) == (1, 0)
        await stream.cancel(77)  # answered long ago, or never there


async def test_a_session_stops_when_its_call_is_cancelled(launch: Launch, endless: Path) -> None:
    client = await launch(endless, start=False)
    await client.worker.server.start()
    async with opened(client) as stream:
        await stream.ask(1)
        await until(lambda: client.started == 1)
        await stream.cancel(1)
        assert (await stream.error())[:2] == (1, "CANCELLED")
        assert client.count("cancelled") == 1


async def test_a_deadline_counts_in_the_queue_and_in_the_slot(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, slowdown=LONG)
    async with opened(client) as stream:
        await stream.ask(1, timeout_s=0.3)
        await until(lambda: client.started == 1)
        await stream.ask(2, timeout_s=0.05)
        assert (await stream.error())[:2] == (2, "DEADLINE_EXCEEDED")
        assert (client.count("dropped"), client.started) == (1, 1)
        assert await stream.error() == (1, "DEADLINE_EXCEEDED", "the call's time was over before its answer")
        assert client.count("cancelled") == 1


async def test_a_full_queue_refuses_the_call_and_not_the_stream(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, slowdown=LONG, queue_size=1)
    async with opened(client) as stream:
        for call_id in (1, 2, 3):
            await stream.ask(call_id)
        call_id, code, told = await stream.error()
        assert (call_id, code) == (3, "RESOURCE_EXHAUSTED")
        assert "1 calls are waiting here already" in told
        assert (client.started, client.waiting) == (1, 1)


async def test_errors_are_the_calls_own(launch: Launch, s_cnn: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = await launch(s_cnn)
    async with opened(client) as stream:
        await stream.ask(1, np.zeros((9, 9, 3), np.uint8))
        call_id, code, told = await stream.error()
        assert (call_id, code) == (1, "INVALID_ARGUMENT")
        assert "[9, 9, 3]" in told
        await stream.rpc.write(model_pb2.RunStreamRequest(call_id=2))
        assert (await stream.error())[:2] == (2, "INVALID_ARGUMENT")
        await stream.ask(3, timeout_s=math.nan)
        assert (await stream.error())[:2] == (3, "INVALID_ARGUMENT")
        await stream.ask(4)
        assert (await stream.answer()).WhichOneof("result") == "response"


async def test_a_model_that_fails_tells_the_caller_nothing_of_its_insides(launch: Launch, tmp_path: Path) -> None:
    async with opened(await launch(onnx_models.save_fragile(tmp_path / "fragile.onnx"))) as stream:
        await stream.ask(1, solid("red", 8))
        assert await stream.error() == (1, "INTERNAL", "internal error: see the server's log")
        await stream.ask(2, solid("green", 8))
        assert (await stream.answer()).call_id == 2


async def test_an_id_that_is_unanswered_yet_is_refused(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, slowdown="fixed:0.2")
    async with opened(client) as stream:
        await stream.ask(1)
        await stream.ask(1)
        assert (await stream.error())[:2] == (1, "ALREADY_EXISTS")
        assert (await stream.answer()).WhichOneof("result") == "response"
        await stream.ask(1)  # free again
        assert (await stream.answer()).WhichOneof("result") == "response"


async def test_garbage_ends_the_stream_when_the_others_are_answered(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, slowdown="fixed:0.1")
    method = "/collage.v1.ModelService/RunStream"
    rpc = client.channel.stream_stream(method, None, Response.FromString)(timeout=BOUND_S)
    request = model_pb2.RunRequest(input=to_tensor(solid("red", 8)))
    await rpc.write(model_pb2.RunStreamRequest(call_id=1, request=request).SerializeToString())
    await rpc.write(b"\xff\xff")
    assert (await rpc.read()).call_id == 1
    with pytest.raises(grpc.aio.AioRpcError, match="no call") as caught:
        await rpc.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("how", ["cancel", "disconnect"])
async def test_all_calls_stop_when_the_caller_is_gone(launch: Launch, s_cnn: Path, how: str) -> None:
    client = await launch(s_cnn, slowdown=LONG)
    async with opened(client) as stream:
        for call_id in range(3):
            await stream.ask(call_id)
        await until(lambda: client.waiting == 2)
        if how == "cancel":
            stream.rpc.cancel()
        else:
            await client.channel.close()
            del client.channel
        await until(lambda: client.count("cancelled") + client.count("dropped") == 3)
        assert client.waiting == 0


async def test_a_draining_worker_finishes_what_it_has_and_ends_its_streams(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, slowdown="fixed:0.3", drain_s=BOUND_S)
    async with opened(client) as stream, opened(client) as idle:
        await stream.ask(1)
        await stream.ask(2)
        await idle.ask(3, np.zeros((9, 9, 3), np.uint8))
        await idle.answer()
        await until(lambda: client.waiting == 1)
        stopping = asyncio.create_task(client.worker.stop())
        await until(client.worker.server.draining.is_set)
        assert await idle.rest() == []
        await stream.ask(4)
        call_id, code, told = await stream.error()
        assert (call_id, code) == (4, "UNAVAILABLE")
        assert "shutting down" in told
        answers = await stream.rest()
        assert [(answer.call_id, answer.WhichOneof("result")) for answer in answers] == [
            (1, "response"),
            (2, "response"),
        ]
        assert await stream.rpc.code() is await idle.rpc.code() is grpc.StatusCode.OK
        await stopping


async def test_a_drain_cuts_off_what_outlasts_it(launch: Launch, endless: Path) -> None:
    client = await launch(endless, start=False, drain_s=0.1)
    await client.worker.server.start()
    async with opened(client) as stream:
        await stream.ask(1)
        await until(lambda: client.started == 1)
        await client.worker.stop()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.answer()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert client.count("cancelled") == 1


class Unread:
    """The context of a caller that takes no answer until it is released."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.written = 0

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Nobody looks at it."""

    async def write(self, answer: Response) -> None:
        await self.released.wait()
        self.written += 1


async def test_a_caller_that_reads_nothing_is_read_no_further() -> None:
    taken = 0

    async def calls() -> AsyncIterator[model_pb2.RunStreamRequest]:
        nonlocal taken
        while taken < 3 * UNREAD:
            taken += 1
            yield model_pb2.RunStreamRequest(call_id=taken)  # no action: answered at once with an error
            await asyncio.sleep(0)

    async def run(request: model_pb2.RunRequest, timeout_s: float | None) -> model_pb2.RunResponse:
        raise AssertionError("there is nothing to run")

    context = Unread()
    serving = asyncio.create_task(CallServer(run, asyncio.Event()).serve(calls(), context))
    for _ in range(4 * UNREAD):
        await asyncio.sleep(0)
    assert UNREAD <= 1024
    assert UNREAD < taken <= UNREAD + 3
    context.released.set()
    await serving
    assert taken == context.written == 3 * UNREAD
