"""What both clients make of servers that answer nonsense, end calls, or are newer than the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from collage.client import Client, Prediction
from collage.v1 import predict_pb2, tensor_pb2
from tests.bench.fakes import FakePredictService, serving
from tests.test_inputs import KINDS, refused, use


@asynccontextmanager
async def answering(respond: Callable[[Any], Awaitable[bytes]]) -> AsyncIterator[str]:
    """The address of a server whose methods all answer these bytes; ``respond`` gets the context."""

    async def unary(_: bytes, context: Any) -> bytes:
        return await respond(context)

    async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            yield await respond(context)

    server = grpc.aio.server()
    for service, methods in (
        ("collage.v1.PredictService", {"Predict": unary, "PredictStream": None}),
        ("collage.v1.ModelService", {"GetModelInfo": unary}),
        ("grpc.health.v1.Health", {"Check": unary}),
    ):
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(method)
            if method
            else grpc.stream_stream_rpc_method_handler(stream)
            for name, method in methods.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("predict", (b"\x01",)),
    ("predict_stream", ([("a", b"\x01")],)),
    ("health", ()),
    ("model", ()),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("method", "given"), CALLS)
async def test_a_response_that_is_none_is_an_error_and_no_hang(kind: str, method: str, given: tuple[Any, ...]) -> None:
    async def garbage(_: Any) -> bytes:
        return b"\xff\xff\xff"

    async with answering(garbage) as address:
        told = await refused(kind, method, *given, address=address)
    assert told.startswith("INTERNAL: the server's response makes no sense: it is no ")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("method", "given"), CALLS)
async def test_a_call_that_the_server_cancels_was_not_ours_to_cancel(
    kind: str, method: str, given: tuple[Any, ...]
) -> None:
    async def cancel(context: Any) -> bytes:
        await context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
        raise AssertionError

    async with answering(cancel) as address:
        told = await refused(kind, method, *given, address=address)
    assert told == f"UNAVAILABLE: {address} ended the call without an answer: try again"


async def test_a_call_that_is_ours_stays_cancelled() -> None:
    service = FakePredictService()
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}") as client:
        call = asyncio.create_task(client.predict(b"\x00slow"))
        while not service.in_flight:
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


@pytest.mark.parametrize("kind", KINDS)
async def test_answers_of_a_newer_or_a_broken_server(kind: str) -> None:
    async def respond(_: Any) -> bytes:
        return response.SerializeToString()

    newer: Any = 99
    response = predict_pb2.PredictResponse(provenance=predict_pb2.Provenance(source=newer))
    async with answering(respond) as address:
        answer: Prediction = await use(kind, address, "predict", b"\x01")
        assert answer.source == "UNKNOWN_99"
        response.output.CopyFrom(tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[5], data=b"x"))
        told = await refused(kind, "predict", b"\x01", address=address)
        assert told.startswith("INTERNAL: the server's response makes no sense: a float32 tensor of shape [5]")


@pytest.mark.parametrize("kind", KINDS)
async def test_texts_of_servers_are_shown_on_one_line_and_cut(kind: str) -> None:
    async def fail(context: Any) -> bytes:
        await context.abort(grpc.StatusCode.INTERNAL, "\x1b[2Jwiped\n" + 5000 * "x")
        raise AssertionError

    async with answering(fail) as address:
        told = await refused(kind, "predict", b"\x01", address=address)
    assert told.startswith(r"INTERNAL: \x1b[2Jwiped xxx")
    assert told.endswith("x... (5010 characters)")
    assert len(told) < 2200
