"""What a hostile or careless caller may do to a frontend, each in one function; ``python -m bench hostile`` runs them.

All of it goes to this machine, is bounded in number and in time, and stops by itself. An attack returns how its calls
ended: gRPC statuses, and ``open`` for those that had no end while it lasted. ``share`` scales its number of calls or
messages.
"""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
import grpc.aio
import numpy as np
from PIL import Image

from bench.offer.raw import RawConnection
from collage.channels import MAX_MESSAGE_BYTES, channel_options
from collage.v1 import predict_pb2
from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc as oip_grpc

HOST = "127.0.0.1"
PREDICT = "/collage.v1.PredictService/Predict"
STREAM = "/collage.v1.PredictService/PredictStream"
INFER = "/inference.GRPCInferenceService/ModelInfer"
HEALTH = "/grpc.health.v1.Health/Check"
HOLD_S = 2.0
SEND_S = 10.0
LARGE_BYTES = MAX_MESSAGE_BYTES - 4096


@dataclass(frozen=True)
class Victim:
    """The ports of a frontend, its model's name, and the side of the model's input in pixels."""

    port: int
    health_port: int
    metrics_port: int
    model: str
    size: int


Ends = Counter[str]


class Attack(NamedTuple):
    """What is sent, in words, how to send it, and the statuses that calls may end with."""

    sent: str
    run: Callable[[Victim, float], Awaitable[Ends]]
    allowed: frozenset[str]


def picture(size: int) -> bytes:
    """A good image."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def large_request(id: str) -> predict_pb2.PredictRequest:
    """As large as a message may be, and no image."""
    return predict_pb2.PredictRequest(image=bytes(LARGE_BYTES), request_id=id)


def scaled(count: int, share: float) -> int:
    """A part of a count, and at least 2."""
    return max(2, round(count * share))


async def _within(seconds: float, work: Iterable[Awaitable[object]]) -> None:
    """Do all of it at once, and no longer than that."""
    tasks = [asyncio.ensure_future(each) for each in work]
    _, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late)


def _ends(raw: RawConnection, calls: int) -> Ends:
    ends = raw.counts()
    return ends + Counter({"open": calls - ends.total()})


async def nobody(victim: Victim, share: float) -> Ends:
    """Nothing, to see how the bystander fares without an attack."""
    await asyncio.sleep(HOLD_S)
    return Counter(OK=1)


async def unread_stream(victim: Victim, share: float) -> Ends:
    """One stream of large messages, and no answer is read."""

    async def send(raw: RawConnection) -> None:
        stream = raw.open(STREAM)
        for number in range(scaled(200, share)):
            message = predict_pb2.PredictStreamRequest(request=large_request(f"r{number}"))
            await raw.send(stream, message.SerializeToString())

    async with RawConnection(victim.port, window=0) as raw:
        await _within(SEND_S, [send(raw)])
        await asyncio.sleep(HOLD_S)
        return _ends(raw, 1)


async def unread_unary(victim: Victim, share: float) -> Ends:
    """Large unary calls whose answers are not read; these are answers, as the images are good."""
    image = picture(victim.size)
    message = predict_pb2.PredictRequest(image=image + bytes(LARGE_BYTES - len(image))).SerializeToString()

    calls = scaled(77, share)

    async def send(raw: RawConnection) -> None:
        for _ in range(calls):
            await raw.send(raw.open(PREDICT), message)

    async with RawConnection(victim.port, window=0) as raw:
        await _within(SEND_S, [send(raw)])
        await asyncio.sleep(HOLD_S)
        return _ends(raw, calls)


async def _unfinished(port: int, method: str, share: float) -> Ends:
    message = large_request("").SerializeToString()
    calls = scaled(118, share)

    async def send(raw: RawConnection) -> None:
        for _ in range(calls):
            await raw.send(raw.open(method), message[:-9], len(message))

    async with RawConnection(port) as raw:
        await _within(SEND_S, [send(raw)])
        await asyncio.sleep(HOLD_S)
        return _ends(raw, calls)


async def unfinished(victim: Victim, share: float) -> Ends:
    """Large messages without their last bytes."""
    return await _unfinished(victim.port, PREDICT, share)


async def unfinished_streams(victim: Victim, share: float) -> Ends:
    """Streams whose first message lacks its last bytes."""
    return await _unfinished(victim.port, STREAM, share)


async def unfinished_health(victim: Victim, share: float) -> Ends:
    """Questions for the health, which need no token, of 16 MB."""
    return await _unfinished(victim.port, HEALTH, share)


async def unfinished_probes(victim: Victim, share: float) -> Ends:
    """The like on the health port."""
    return await _unfinished(victim.health_port, HEALTH, share)


async def burst(victim: Victim, share: float) -> Ends:
    """Good unary calls, all at once."""
    request = predict_pb2.PredictRequest(image=picture(victim.size)).SerializeToString()
    async with grpc.aio.insecure_channel(f"{HOST}:{victim.port}", channel_options()) as channel:
        call = _caller(channel, PREDICT)
        ends = await asyncio.gather(*(_status(call(request, timeout=20)) for _ in range(scaled(3000, share))))
    return Counter(ends)


def _caller(channel: grpc.aio.Channel, method: str) -> Callable[..., Awaitable[object]]:
    """A unary method whose messages are bytes."""
    call: Any = channel.unary_unary(method)
    return call  # type: ignore[no-any-return]


async def _status(call: Awaitable[object]) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def half_closed(victim: Victim, share: float) -> Ends:
    """Calls that end before their message."""
    async with RawConnection(victim.port) as raw:
        calls = 3 * scaled(100, share)
        for number, method in enumerate((PREDICT, INFER, HEALTH), 1):
            for _ in range(calls // 3):  # as many as a connection may have open
                raw.half_close(raw.open(method))
            await raw.ended(number * calls // 3, SEND_S)
        return _ends(raw, calls)


async def texts(victim: Victim, share: float) -> Ends:
    """A long name, an endless id, millions of inputs, of dimensions, of parameters."""
    inputs = b"\x2a\x00" * scaled(7_700_000, share)
    shape = bytes([1]) * scaled(15_000_000, share)
    tensor = b"\x1a" + _varint(len(shape)) + shape
    name = oip.ModelInferRequest(model_name="ü" * 20_000).SerializeToString()
    bad = (
        (INFER, inputs),
        (INFER, b"\x2a" + _varint(len(tensor)) + tensor),
        (INFER, b"\x22\x00" * scaled(7_700_000, share)),
        (INFER, name),
        ("/inference.GRPCInferenceService/ModelReady", oip.ModelReadyRequest(name="x" * 100_000).SerializeToString()),
        (PREDICT, b"\x12" + _varint(len(tensor)) + tensor.replace(b"\x1a", b"\x12", 1)),
        (PREDICT, b"\xff\xff"),
    )
    async with grpc.aio.insecure_channel(f"{HOST}:{victim.port}", channel_options()) as channel:
        ends = [await _status(_caller(channel, method)(message, timeout=20)) for method, message in bad]
        stream: Any = channel.stream_stream(STREAM, None, predict_pb2.PredictStreamResponse.FromString)(timeout=20)
        endless = predict_pb2.PredictRequest(image=b"x", request_id="x" * LARGE_BYTES)
        good = predict_pb2.PredictRequest(image=picture(victim.size), request_id="good")
        for request in (endless, good):
            await stream.write(predict_pb2.PredictStreamRequest(request=request).SerializeToString())
        await stream.done_writing()
        answers = [answer async for answer in stream]
        ends += ["OK" if answer.WhichOneof("result") == "response" else "INVALID_ARGUMENT" for answer in answers]
    return Counter(ends)


def _varint(value: int) -> bytes:
    low, high = value % 128, value // 128
    return bytes([low + 128]) + _varint(high) if high else bytes([low])


async def greedy(victim: Victim, share: float) -> Ends:
    """Streams that send as fast as they may and read nothing."""
    image = picture(victim.size)

    async def send(raw: RawConnection) -> None:
        stream = raw.open(STREAM)
        for number in range(1000):
            request = predict_pb2.PredictRequest(image=image, request_id=f"r{number}")
            await raw.send(stream, predict_pb2.PredictStreamRequest(request=request).SerializeToString())

    async with RawConnection(victim.port, window=0) as raw:
        streams = scaled(20, share)
        await _within(HOLD_S, (send(raw) for _ in range(streams)))
        await asyncio.sleep(HOLD_S)
        return _ends(raw, streams)


async def _connections(port: int, start: bytes, share: float) -> Ends:
    writers = []
    for _ in range(scaled(1014, share)):
        try:
            async with asyncio.timeout(1):
                _, writer = await asyncio.open_connection(HOST, port)
        except OSError:  # a timeout as well
            break
        writer.write(start)
        writers.append(writer)
    await asyncio.sleep(HOLD_S)
    for writer in writers:
        writer.close()
    return Counter(open=len(writers))


async def half_scrapes(victim: Victim, share: float) -> Ends:
    """Connections to the metrics port with half a request each."""
    return await _connections(victim.metrics_port, b"GET /metrics HTTP/1.1\r\n", share)


async def idle_connections(victim: Victim, share: float) -> Ends:
    """Connections to the gRPC port that say nothing."""
    return await _connections(victim.port, b"", share)


async def scans(victim: Victim, share: float) -> Ends:
    """Progressive JPEGs of thousands of scans."""
    file = io.BytesIO()
    Image.new("L", (3000, 3000), 99).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    message = predict_pb2.PredictRequest(
        image=data[:-2] + data[last:-2] * scaled(4000, share) + b"\xff\xd9"
    ).SerializeToString()
    async with grpc.aio.insecure_channel(f"{HOST}:{victim.port}", channel_options()) as channel:
        call = _caller(channel, PREDICT)
        return Counter(await asyncio.gather(*(_status(call(message, timeout=20)) for _ in range(2))))


async def batch(victim: Victim, share: float) -> Ends:
    """A batch as large as the frontend says that it may be, or of 512 rows."""
    async with grpc.aio.insecure_channel(f"{HOST}:{victim.port}", channel_options()) as channel:
        stub = oip_grpc.GRPCInferenceServiceStub(channel)
        config = (await stub.ModelConfig(oip.ModelConfigRequest(name=victim.model))).config
        rows = min(config.max_batch_size, scaled(512, share))
        pixels = np.full((rows, victim.size, victim.size, 3), 90, np.uint8)
        tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=pixels.shape)
        request = oip.ModelInferRequest(model_name=victim.model, inputs=[tensor], raw_input_contents=[pixels.tobytes()])
        return Counter([await _status(stub.ModelInfer(request, timeout=10))])


async def closed_loop(victim: Victim, share: float) -> Ends:
    """Callers that call again and again until the frontend is gone."""
    request = predict_pb2.PredictRequest(image=picture(victim.size)).SerializeToString()
    ends: Ends = Counter()
    async with grpc.aio.insecure_channel(f"{HOST}:{victim.port}", channel_options()) as channel:
        call = _caller(channel, PREDICT)

        async def repeat() -> None:
            for _ in range(500):
                end = await _status(call(request, timeout=5))
                if end == "UNAVAILABLE" and channel.get_state() != grpc.ChannelConnectivity.READY:
                    return
                ends[end] += 1

        await _within(SEND_S, (repeat() for _ in range(scaled(100, share))))
    return ends


REFUSED = frozenset({"RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "open"})
ATTACKS = {
    "nobody": Attack("nothing", nobody, frozenset({"OK"})),
    "unread stream": Attack("a stream of 200 messages of 16 MB, answers not read", unread_stream, REFUSED),
    "unread answers": Attack("77 calls of 16 MB, answers not read", unread_unary, REFUSED),
    "unfinished messages": Attack("118 calls of 16 MB without their last bytes", unfinished, REFUSED),
    "unfinished streams": Attack("118 streams of 16 MB without their last bytes", unfinished_streams, REFUSED),
    "unfinished health": Attack("118 health checks of 16 MB without their last bytes", unfinished_health, REFUSED),
    "unfinished probes": Attack("the same on the health port", unfinished_probes, REFUSED),
    "burst": Attack("3,000 calls at once", burst, frozenset({"OK", "RESOURCE_EXHAUSTED"})),
    "half-closed": Attack("300 calls that end without a message", half_closed, frozenset({"INVALID_ARGUMENT"})),
    "texts": Attack("names, ids, counts of up to 16 MB", texts, frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "OK"})),
    "greedy streams": Attack("20 streams that send and do not read", greedy, REFUSED),
    "half scrapes": Attack("1,014 halves of a request to the metrics port", half_scrapes, REFUSED),
    "idle connections": Attack("1,014 silent connections to the gRPC port", idle_connections, REFUSED),
    "scans": Attack("2 progressive JPEGs of 4,000 scans", scans, frozenset({"INVALID_ARGUMENT"})),
    "batch": Attack("a batch of 512 rows", batch, frozenset({"OK"})),
    "SIGTERM": Attack("100 callers in a closed loop while it drains", closed_loop, frozenset({"OK", "UNAVAILABLE"})),
}
