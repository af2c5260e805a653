"""The frontend's end of a stream against workers that forget calls, send too much, or leave: over real gRPC."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import grpc
import numpy as np
import pytest

from collage.model_info import ANSWER_EXTRA_BYTES, MAX_DETECTIONS
from collage.tensors import to_tensor
from collage.v1 import model_pb2, tensor_pb2
from frontend.policy.balance import Balancer
from frontend.workers import Worker, WorkerFailure
from tests.frontend.fakes import COLLAGE, S_CNN, image
from tests.frontend.scripted import BOUND_S, Requests, ask, best, scored, scripted

MUTE = grpc.StatusCode.CANCELLED.value[0]


async def ignore(requests: Requests, context: Any) -> None:
    """Read all requests and answer none."""
    async for _ in requests:
        pass


async def test_calls_that_a_worker_forgot_are_settled_when_it_answers_something_else() -> None:
    cancelled = asyncio.Event()

    async def forget(requests: Requests, context: Any) -> None:
        async for message in requests:
            if message.cancel:
                cancelled.set()

    async with scripted(forget) as (transport, _):
        balancer = Balancer()
        balancer.set_ready("w", True)
        worker = Worker("w", transport, balancer)
        call = worker.call(image(1), "r1", 0, BOUND_S, lambda outcome: None)
        await asyncio.sleep(0.1)
        call.cancel()
        await cancelled.wait()
        started = asyncio.get_running_loop().time()
        assert balancer.outstanding("w") == 1
        while balancer.outstanding("w"):
            await asyncio.sleep(0.05)
        assert asyncio.get_running_loop().time() - started >= 1.9
        assert transport._stream is not None
        assert transport._stream.unsettled() == frozenset()
        await worker.close()


async def test_a_frozen_worker_does_not_look_idle() -> None:
    thaw = asyncio.Event()

    async def freeze(requests: Requests, context: Any) -> None:
        async for message in requests:
            if message.cancel:
                await thaw.wait()
                error = model_pb2.CallError(code=MUTE)
                await context.write(model_pb2.RunStreamResponse(call_id=message.call_id, error=error))

    async with scripted(freeze, pings=thaw) as (transport, _):
        call = ask(transport)
        await asyncio.sleep(0.1)
        call.cancel()
        settling = asyncio.create_task(transport.settle())
        done, _ = await asyncio.wait([settling], timeout=4.5)  # a second ping is under way
        assert not done
        thaw.set()
        await settling


@pytest.mark.parametrize("how", ["cancelled", "late"])
async def test_what_waited_for_an_answer_is_let_go_when_that_is_over(how: str) -> None:
    class Large:
        """Something large."""

        def ended(self, outcome: object) -> None:
            over.set()

    over = asyncio.Event()

    async with scripted(ignore) as (transport, _):
        gc.disable()
        try:
            held = Large()
            gone = weakref.ref(held)
            call = transport.run(image(1), "r1", 0, 0.2 if how == "late" else BOUND_S, held.ended)
            await asyncio.sleep(0.1)
            if how == "cancelled":
                call.cancel()
            await over.wait()
            del held, call
            assert gone() is None
            if how == "late":
                assert transport._stream is not None
                assert not transport._stream._unanswered
        finally:
            gc.enable()


async def test_a_worker_that_is_closed_leaves_nothing_to_the_garbage_collector() -> None:
    async with scripted(ignore) as (transport, _):
        gc.disable()
        try:
            worker = Worker("w", transport, Balancer())
            await transport.ping()
            calls = [worker.call(image(1), f"r{number}", 0, BOUND_S, lambda outcome: None) for number in range(3)]
            await asyncio.sleep(0.1)
            calls.pop().cancel()
            await asyncio.sleep(0.1)  # settling
            stream = transport._stream
            assert stream is not None
            left = [weakref.ref(each) for each in (worker, stream, stream._rpc)]
            await worker.close()
            del worker, stream, calls
            await asyncio.sleep(0.1)
            assert [each() for each in left] == [None] * 3
        finally:
            gc.enable()


async def test_a_stream_that_broke_leaves_nothing_to_the_garbage_collector() -> None:
    async def leave(requests: Requests, context: Any) -> None:
        async for message in requests:
            if message.cancel:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    async with scripted(leave) as (transport, _):
        gc.disable()
        try:
            call = ask(transport)
            await asyncio.sleep(0.1)
            call.cancel()
            assert transport._stream is not None
            left = [weakref.ref(each) for each in (transport._stream, transport._stream._rpc)]
            with pytest.raises(WorkerFailure, match="gone"):
                await transport.settle()
            assert left[1]() is None  # the connection's call, before anybody asks again
            ask(transport).cancel()
            del call
            await asyncio.sleep(0.1)
            assert left[0]() is None
        finally:
            gc.enable()


TOO_LARGE = {
    "detections": model_pb2.RunResponse(
        outputs=[to_tensor(np.zeros((MAX_DETECTIONS + 1, width), np.float32)) for width in (4, 1, 10)]
    ),
    "shape": model_pb2.RunResponse(outputs=[tensor_pb2.Tensor(data_type=2, shape=[1] * 2_000_000)]),
    "text": model_pb2.CallError(code=13, message="x" * 15_000_000),
}


@pytest.mark.parametrize("what", TOO_LARGE)
async def test_an_answer_larger_than_any_of_the_model_ends_the_stream_unread(what: str) -> None:
    streams = 0

    async def flood(requests: Requests, context: Any) -> None:
        nonlocal streams
        streams += 1
        async for message in requests:
            large = TOO_LARGE[what]
            if streams > 1:
                await context.write(scored(message.call_id))
            elif isinstance(large, model_pb2.CallError):
                await context.write(model_pb2.RunStreamResponse(call_id=message.call_id, error=large))
            else:
                await context.write(model_pb2.RunStreamResponse(call_id=message.call_id, response=large))

    async with scripted(flood) as (transport, _):
        info = await transport.ping()
        assert info.answer_bytes == ANSWER_EXTRA_BYTES + 4 * 10
        with pytest.raises(WorkerFailure, match=r"sent \d+ bytes at once: at most 8232 make sense") as caught:
            await ask(transport)
        assert caught.value.code == "GARBAGE"
        assert best(await ask(transport)) == 1


async def test_the_longest_texts_and_most_detections_are_read() -> None:
    detections = [to_tensor(np.zeros((MAX_DETECTIONS, width), np.float32)) for width in (4, 1, 10)]

    async def answer(requests: Requests, context: Any) -> None:
        first = await anext(requests)
        error = model_pb2.CallError(code=13, message="\U0001f600" * 1024 + "!")
        await context.write(model_pb2.RunStreamResponse(call_id=first.call_id, error=error))
        second = await anext(requests)
        response = model_pb2.RunResponse(outputs=detections)
        await context.write(model_pb2.RunStreamResponse(call_id=second.call_id, response=response))
        await anext(requests)

    async with scripted(answer, COLLAGE.to_proto()) as (transport, _):
        await transport.ping()
        with pytest.raises(WorkerFailure) as caught:
            await ask(transport)
        assert str(caught.value) == "\U0001f600" * 1024
        assert len((await ask(transport)).outputs[0]) == MAX_DETECTIONS


async def test_a_description_that_is_too_large_is_not_read() -> None:
    async def read_one(requests: Requests, context: Any) -> None:
        await anext(requests)

    large = model_pb2.GetModelInfoResponse(name="s", labels=["a"] * 1_000_000)
    async with scripted(read_one, large) as (transport, _):
        with pytest.raises(WorkerFailure, match="sent 3000003 bytes at once: at most 2097152 make sense") as caught:
            await transport.ping()
        assert caught.value.code == "GARBAGE"


def test_a_workers_text_is_cut() -> None:
    assert str(WorkerFailure("INTERNAL", "x" * 5000)) == "x" * 1024
    assert S_CNN.answer_bytes == ANSWER_EXTRA_BYTES + 40
    assert COLLAGE.answer_bytes == ANSWER_EXTRA_BYTES + 4 * MAX_DETECTIONS * (4 + 1 + 10)
