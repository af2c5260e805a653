"""The frontend's end of a stream: against scripted workers over real gRPC."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from collage.model_info import ModelInfo
from collage.tensors import to_tensor
from collage.v1 import model_pb2, tensor_pb2
from frontend.workers import Ending, GrpcTransport, WorkerFailure
from frontend.workers.streams import MAX_OUTPUTS
from tests.frontend.fakes import COLLAGE, S_CNN, image
from tests.frontend.grpc_workers import Slowness, worker
from tests.frontend.scripted import BOUND_S, LIMIT, Asked, Requests, ask, best, scored, scripted


async def test_answers_are_matched_by_id_in_any_order() -> None:
    async def backwards(requests: Requests, context: Any) -> None:
        asked = [await anext(requests) for _ in range(3)]
        for message in reversed(asked):
            await context.write(scored(message.call_id, int(message.request.request_id[1:])))

    async with scripted(backwards) as (transport, _):
        calls = [ask(transport, label) for label in (2, 5, 7)]
        assert [best(await call) for call in calls] == [2, 5, 7]


async def test_what_the_worker_refuses_fails_alone_with_its_code() -> None:
    async def refuse(requests: Requests, context: Any) -> None:
        async for message in requests:
            error = model_pb2.CallError(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="full")
            if message.request.request_id == "r1":
                await context.write(model_pb2.RunStreamResponse(call_id=message.call_id, error=error))
            else:
                await context.write(scored(message.call_id, 2))

    async with scripted(refuse) as (transport, _):
        refused, taken = ask(transport, 1), ask(transport, 2)
        with pytest.raises(WorkerFailure, match="full") as caught:
            await refused
        assert (caught.value.code, caught.value.unreachable) == ("RESOURCE_EXHAUSTED", False)
        assert best(await taken) == 2


async def test_garbage_fails_its_call_and_not_the_stream() -> None:
    wrong = model_pb2.RunResponse(outputs=[tensor_pb2.Tensor(data_type=2, shape=[3], data=b"")])

    async def garble(requests: Requests, context: Any) -> None:
        first = await anext(requests)
        await context.write(scored(4711))  # nobody asked
        await context.write(model_pb2.RunStreamResponse(call_id=first.call_id, response=wrong))
        await context.write(scored(first.call_id))  # a second time
        second = await anext(requests)
        unknown = model_pb2.CallError(code=999)
        await context.write(model_pb2.RunStreamResponse(call_id=second.call_id, error=unknown))
        third = await anext(requests)
        await context.write(model_pb2.RunStreamResponse(call_id=third.call_id))
        await context.write(scored((await anext(requests)).call_id))

    async with scripted(garble) as (transport, _):
        codes = []
        for _ in range(3):
            with pytest.raises(WorkerFailure) as caught:
                await ask(transport)
            codes.append(caught.value.code)
        assert codes == ["GARBAGE", "UNKNOWN", "GARBAGE"]
        assert best(await ask(transport)) == 1


async def test_an_answer_of_too_many_outputs_is_garbage() -> None:
    many = model_pb2.RunResponse(outputs=[to_tensor(np.zeros(1, np.float32))] * (MAX_OUTPUTS + 1))

    async def answer(requests: Requests, context: Any) -> None:
        async for message in requests:
            await context.write(model_pb2.RunStreamResponse(call_id=message.call_id, response=many))

    async with scripted(answer) as (transport, _):
        with pytest.raises(WorkerFailure, match="more than 64 outputs") as caught:
            await ask(transport)
        assert caught.value.code == "GARBAGE"


async def test_bytes_that_are_no_answer_break_the_stream_and_the_next_call_opens_another() -> None:
    streams = 0

    async def garble(requests: bytes, context: Any) -> None:
        nonlocal streams
        streams += 1
        if streams == 1:
            await anext(aiter(requests))  # type: ignore[call-overload]
            await context.write(b"\xff\xff")
            await asyncio.Event().wait()
        async for message in requests:  # type: ignore[attr-defined]
            asked = model_pb2.RunStreamRequest.FromString(message)
            await context.write(scored(asked.call_id).SerializeToString())

    handler = grpc.stream_stream_rpc_method_handler(garble)
    server = grpc.aio.server()
    service = grpc.method_handlers_generic_handler("collage.v1.ModelService", {"RunStream": handler})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    transport = GrpcTransport(f"127.0.0.1:{port}", LIMIT)
    try:
        async with asyncio.timeout(BOUND_S):
            with pytest.raises(WorkerFailure, match="no answer") as caught:
                await ask(transport)
            assert caught.value.code == "GARBAGE"
            assert best(await ask(transport)) == 1
    finally:
        await transport.close()
        await server.stop(None)


@pytest.mark.parametrize("how", ["ends", "aborts", "dies"])
async def test_when_the_stream_breaks_all_its_calls_are_unreachable_at_once(how: str) -> None:
    streams = 0

    async def vanish(requests: Requests, context: Any) -> None:
        nonlocal streams
        streams += 1
        if streams > 1:
            await context.write(scored((await anext(requests)).call_id))
            return
        for _ in range(3):
            await anext(requests)
        if how == "aborts":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        if how == "dies":
            dying.append(asyncio.create_task(server.stop(None)))
            await asyncio.Event().wait()

    dying: list[asyncio.Task[None]] = []
    async with scripted(vanish) as (transport, server):
        calls = [ask(transport) for _ in range(3)]
        done, _ = await asyncio.wait(calls)
        failures = [call.exception() for call in done]
        assert all(isinstance(failure, WorkerFailure) and failure.unreachable for failure in failures)
        if how != "dies":
            assert best(await ask(transport)) == 1
        await asyncio.gather(*dying)


async def test_a_cancelled_call_is_stopped_on_the_worker_and_settled_when_that_says_so() -> None:
    seen: list[tuple[int, bool]] = []
    thaw = asyncio.Event()

    async def freeze(requests: Requests, context: Any) -> None:
        async for message in requests:
            seen.append((message.call_id, message.cancel))
            if message.cancel:
                await thaw.wait()
                error = model_pb2.CallError(code=grpc.StatusCode.CANCELLED.value[0])
                await context.write(model_pb2.RunStreamResponse(call_id=message.call_id, error=error))

    async with scripted(freeze) as (transport, _):
        await transport.settle()  # without a stream
        call = ask(transport)
        while not seen:
            await asyncio.sleep(0.01)
        await transport.settle()  # none was cancelled
        call.cancel()
        settling = asyncio.create_task(transport.settle())
        while len(seen) < 2:
            await asyncio.sleep(0.01)
        assert not settling.done()
        thaw.set()
        await settling
        assert [cancel for _, cancel in seen] == [False, True]


async def test_a_call_cancelled_before_it_was_sent_costs_nothing() -> None:
    seen: list[str] = []

    async def note(requests: Requests, context: Any) -> None:
        async for message in requests:
            seen.append(message.request.request_id)
            await context.write(scored(message.call_id))

    async with scripted(note) as (transport, _):
        ask(transport, 1).cancel()
        await transport.settle()
        assert best(await ask(transport, 2)) == 1
        assert seen == ["r2"]


async def test_settling_ends_when_the_connection_breaks() -> None:
    seen = 0

    async def leave(requests: Requests, context: Any) -> None:
        nonlocal seen
        async for message in requests:
            seen += 1
            if message.cancel:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    async with scripted(leave) as (transport, _):
        call, sent = ask(transport), ask(transport)
        while seen < 2:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(WorkerFailure):
            await transport.settle()
        with pytest.raises(WorkerFailure):
            await sent


async def test_what_fails_on_an_answer_does_not_break_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(requests: Requests, context: Any) -> None:
        async for message in requests:
            await context.write(scored(message.call_id))

    def fail(outcome: Ending) -> None:
        raise RuntimeError("a mistake of ours")

    async with scripted(answer) as (transport, _):
        transport.run(image(1), "r1", 0, BOUND_S, fail)
        assert best(await ask(transport)) == 1
        assert "a mistake of ours" in caplog.text


async def test_a_call_has_its_own_time() -> None:
    limits: list[float] = []

    async def ignore(requests: Requests, context: Any) -> None:
        async for message in requests:
            limits.append(message.timeout_s)

    async with scripted(ignore) as (transport, _):
        loop = asyncio.get_running_loop()
        started = loop.time()
        patient, hasty = ask(transport, timeout_s=0.6), ask(transport, timeout_s=0.2)
        for call, least in ((hasty, 0.2), (patient, 0.6)):
            with pytest.raises(WorkerFailure) as caught:
                await call
            assert caught.value.code == "DEADLINE_EXCEEDED"
            assert least <= loop.time() - started < least + 2
        with pytest.raises(WorkerFailure) as caught:
            await ask(transport, timeout_s=0.0)  # on the wire that would be no limit
        assert caught.value.code == "DEADLINE_EXCEEDED"
        assert limits == [0.6, 0.2]


async def test_a_closed_transport_fails_its_calls() -> None:
    async def ignore(requests: Requests, context: Any) -> None:
        async for _ in requests:
            pass

    async with scripted(ignore) as (transport, _):
        call = ask(transport)
        await asyncio.sleep(0.1)
        await transport.close()
        with pytest.raises(WorkerFailure, match="closed"):
            await call


async def test_nobody_there_is_unreachable() -> None:
    transport = GrpcTransport("127.0.0.1:1", LIMIT)
    with pytest.raises(WorkerFailure) as caught:
        await ask(transport)
    assert caught.value.unreachable
    await transport.close()


@pytest.mark.parametrize("info", [S_CNN, COLLAGE])
async def test_a_worker_that_drains_answers_what_it_has(info: ModelInfo) -> None:
    async with worker(info, Slowness(slow=0.3), drain_s=BOUND_S) as server:
        transport = GrpcTransport(f"127.0.0.1:{server.port}", LIMIT)
        pixels = np.full((info.size, info.size, 3), 40, np.uint8)
        call = Asked(transport, pixels, "slow", BOUND_S)
        quick = await Asked(transport, pixels, "quick", BOUND_S)
        stopping = asyncio.create_task(server.stop())
        await server.draining.wait()
        with pytest.raises(WorkerFailure) as caught:
            await Asked(transport, pixels, "late", BOUND_S)
        assert caught.value.unreachable
        assert len((await call).outputs) == len(quick.outputs) == len(info.outputs)
        async with asyncio.timeout(BOUND_S):
            await stopping
        await transport.close()
