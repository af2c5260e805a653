"""Callers that ask, wait and ask again, for measuring speed, and images that they send."""

from __future__ import annotations

import asyncio
import io
import math
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import numpy as np
from google.protobuf.message import Message
from PIL import Image

from collage.channels import channel_options
from collage.v1 import predict_pb2, predict_pb2_grpc

SIDE = 224  # of an image, pixels

Ask = Callable[[], Awaitable[object]]
"""Asks once."""
Load = Callable[[int, float], Awaitable[int]]
"""Keeps a number of requests in flight for some seconds; returns the number of answers."""


class CallError(Exception):
    """A measured call failed; the message says how."""

    exit_code = 1


async def in_turn(asks: Sequence[Ask], count: int, clock: Callable[[], float]) -> list[list[float]]:
    """Seconds that single requests take, ``count`` of each in turn; without the first tenth, which warms up."""
    waited: list[list[float]] = [[] for _ in asks]
    for _ in range(count):
        for ask, times in zip(asks, waited, strict=True):
            started = clock()
            await ask()
            times.append(clock() - started)
    return [times[count // 10 :] for times in waited]


def unary(ask: Ask) -> Load:
    """Callers that ask, wait and ask again."""

    async def load(in_flight: int, seconds: float) -> int:
        clock = asyncio.get_running_loop().time
        until = clock() + seconds

        async def caller() -> int:
            count = 0
            while clock() < until:
                await ask()
                count += 1
            return count

        return sum(await asyncio.gather(*(caller() for _ in range(in_flight))))

    return load


def stream(stub: predict_pb2_grpc.PredictServiceAsyncStub, request: predict_pb2.PredictRequest) -> Load:
    """Callers that share one stream; see ``unary``."""

    async def load(in_flight: int, seconds: float) -> int:
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        room = asyncio.Semaphore(in_flight)

        async def requests() -> AsyncIterator[predict_pb2.PredictStreamRequest]:
            number = 0
            while clock() < until:
                await room.acquire()
                number += 1
                message = predict_pb2.PredictStreamRequest(request=request)
                message.request.request_id = str(number)
                yield message

        count = 0
        async for response in stub.PredictStream(requests()):
            if response.WhichOneof("result") != "response":
                raise CallError(f"the frontend failed: {response.error.message}")
            room.release()
            count += 1
        return count

    return load


@asynccontextmanager
async def http_asks(port: int, path: str, body: bytes) -> AsyncIterator[Ask]:
    """Posts a body to this machine by HTTP/1.1, over connections that stay open; CallError for any answer but 200."""
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    request = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    async def ask() -> bytes:
        while idle and (idle[-1][0].at_eof() or idle[-1][1].is_closing()):  # the server has closed it
            idle.pop()[1].close()
        reader, writer = connection = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"content-length: (\d+)", head)
        answer = await reader.readexactly(int(length[1]) if length else 0)
        if not head.startswith(b"http/1.1 200 "):
            raise CallError(f"{path} failed: {answer.decode()}")
        idle.append(connection)
        return answer

    try:
        yield ask
    finally:
        for _, writer in idle:
            writer.close()


H2LOAD = shutil.which("h2load")
"""A load generator in C (Debian's package nghttp2-client), which leaves the processor to the measured process."""


def saturating(address: str, method: str, message: Message) -> Load:
    """Unary calls by h2load, all with the same message; whole seconds.

    It sees no gRPC status, only HTTP's, so a call of our own is made first: AioRpcError if that fails.
    """
    data = message.SerializeToString()
    headers = ("-H", "content-type: application/grpc", "-H", "te: trailers")

    async def load(in_flight: int, seconds: float) -> int:
        async with grpc.aio.insecure_channel(address, channel_options()) as channel:
            call: Any = channel.unary_unary(f"/{method}")  # no serialisers: bytes
            await call(data, timeout=10)
        with tempfile.NamedTemporaryFile() as body:
            body.write(bytes(1) + len(data).to_bytes(4, "big") + data)  # gRPC's frame: not compressed, length, message
            body.flush()
            amount = ("-c", "1", "-t", "1", "-m", str(in_flight), "-D", str(math.ceil(seconds)))
            process = await asyncio.create_subprocess_exec(
                *(H2LOAD or "h2load", *amount, *headers, "-d", body.name, f"http://{address}/{method}"),
                stdout=asyncio.subprocess.PIPE,
            )
            printed, _ = await process.communicate()
        found = re.search(rb"(\d+) succeeded, (\d+) failed", printed)
        if found is None or found[2] != b"0":
            raise CallError(f"h2load failed: {printed.decode()}")
        return int(found[1])

    return load


def jpeg(kilobytes: float) -> bytes:
    """A 224 x 224 JPEG of about this many KB: blobs under noise, in the quality that comes closest."""
    draw = np.random.default_rng(0)
    blobs = np.asarray(Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).resize((SIDE, SIDE)), np.float64)
    best = b""
    for noise, quality in ((12, 80), (12, 90), (25, 92), (60, 95), (60, 99), (80, 100)):
        pixels = (blobs + draw.normal(0, noise, blobs.shape)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0 if quality > 98 else 2)
        best = min(best or buffer.getvalue(), buffer.getvalue(), key=lambda data: abs(len(data) - 1000 * kilobytes))
    return best
