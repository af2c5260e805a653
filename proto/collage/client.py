"""The client library: ``Client`` for asyncio, ``SyncClient`` for everything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from pathlib import Path
from typing import Self

import grpc

from collage import answers
from collage.answers import DEFAULT_ADDRESS, Box, ClassProbability, Image, Prediction
from collage.channels import MAX_MESSAGE_BYTES
from collage.errors import ClientError
from collage.model_info import ModelInfo
from collage.security import PLAINTEXT, ClientSecurity
from collage.sync import SyncClient
from collage.v1 import model_pb2, model_pb2_grpc, predict_pb2, predict_pb2_grpc

__all__ = [
    "DEFAULT_ADDRESS",
    "Box",
    "ClassProbability",
    "Client",
    "ClientError",
    "ClientSecurity",
    "Image",
    "ModelInfo",
    "Prediction",
    "SyncClient",
]


class Client:
    """A connection to a frontend: ``async with Client("host:port") as client: await client.predict(image)``.

    Every method raises ``ClientError`` when the call fails; ``health`` works with any process of the cluster. An
    overloaded frontend says when to come again, and ``predict`` obeys that up to ``attempts - 1`` times within its time
    limit. ``security`` holds certificates and a token: ``ClientSecurity(ca=Path("ca.pem"), token="...")``.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        *,
        security: ClientSecurity = PLAINTEXT,
        attempts: int = 3,
    ) -> None:
        self.address = address
        self._security = security
        self._options = answers.client_options(max_message_bytes, attempts)
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        self._channel = self._security.channel(self.address, self._options)
        self._stub = predict_pb2_grpc.PredictServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        channel, self._channel = self._open(), None
        await channel.close()

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise answers.not_open(f"async with Client({self.address!r})")
        return self._channel

    @property
    def _service(self) -> predict_pb2_grpc.PredictServiceAsyncStub:
        self._open()
        return self._stub

    async def predict(
        self,
        image: Image,
        *,
        top_k: int = 1,
        request_id: str = "",
        timeout_s: float | None = 10.0,
        with_output: bool = False,
    ) -> Prediction:
        """Classify one image; ``timeout_s`` None leaves the time limit to the server.

        ``with_output`` asks for the model's output as well.
        """
        started = time.monotonic()
        service = self._service
        request = answers.to_request(await _loaded(image), top_k, request_id, with_output)
        try:
            response = await service.Predict(request, timeout=timeout_s, metadata=self._security.metadata())
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None
        return answers.from_response(response, time.monotonic() - started)

    async def predict_stream(
        self,
        images: Iterable[tuple[str, Image]] | AsyncIterable[tuple[str, Image]],
        *,
        top_k: int = 1,
        timeout_s: float | None = 10.0,
        with_output: bool = False,
    ) -> AsyncIterator[tuple[str, Prediction | ClientError]]:
        """Classify ``(request_id, image)`` pairs as they come, each within ``timeout_s``; ids must be unique.

        Yields ``(request_id, answer or error)`` in completion order: an image that fails never ends the stream. Raises
        ClientError when the stream breaks: images without a result by then have none. Raises what ``images`` raises.
        """
        call = self._service.PredictStream(metadata=self._security.metadata())
        results: asyncio.Queue[tuple[str, Prediction | ClientError] | Exception | None] = asyncio.Queue(maxsize=1)
        started: dict[str, float] = {}
        all_sent = False

        async def send() -> None:
            nonlocal all_sent
            try:
                async for request_id, image in _each(images):
                    try:
                        request = answers.to_request(await _loaded(image), top_k, request_id, with_output)
                    except ClientError as error:
                        await results.put((request_id, error))
                        continue
                    started[request_id] = time.monotonic()
                    await call.write(predict_pb2.PredictStreamRequest(request=request, timeout_s=timeout_s or 0))
                all_sent = True
                await call.done_writing()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                pass  # the stream is over, and its reader learns why
            except Exception as error:  # raised by the source, for our caller
                await results.put(error)

        async def read() -> None:
            try:
                async for message in call:
                    latency = time.monotonic() - started.pop(message.request_id, time.monotonic())
                    await results.put((message.request_id, answers.from_stream(message, latency)))
                await results.put(None if all_sent and not started else answers.ended(self.address))
            except grpc.aio.AioRpcError as error:
                await results.put(self._failure(error))

        tasks = asyncio.create_task(send()), asyncio.create_task(read())
        try:
            while (result := await results.get()) is not None:
                if isinstance(result, Exception):
                    raise result
                yield result
        finally:
            for task in tasks:
                task.cancel()
            call.cancel()

    async def health(self, service: str = "", timeout_s: float = 2.0) -> str:
        """``SERVING`` or ``NOT_SERVING``."""
        check = self._open().unary_unary(answers.HEALTH_CHECK, answers.encode_health, answers.decode_health)
        try:
            return await check(service, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None

    async def model(self, timeout_s: float = 2.0) -> ModelInfo | None:
        """The model that a worker serves; None for a process that serves none."""
        try:
            stub = model_pb2_grpc.ModelServiceStub(self._open())
            request = model_pb2.GetModelInfoRequest()
            metadata = self._security.metadata()
            return ModelInfo.from_proto(await stub.GetModelInfo(request, timeout=timeout_s, metadata=metadata))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise self._failure(error) from None

    def _failure(self, error: grpc.aio.AioRpcError) -> ClientError:
        return answers.failure(error, self.address, self._security.encrypted)


async def _loaded(image: Image) -> Image:
    """Images as they are, but files read, off the event loop."""
    return await asyncio.to_thread(answers.content, image) if isinstance(image, Path) else image


async def _each(
    images: Iterable[tuple[str, Image]] | AsyncIterable[tuple[str, Image]],
) -> AsyncIterator[tuple[str, Image]]:
    if isinstance(images, AsyncIterable):
        async for pair in images:
            yield pair
    else:
        for pair in images:
            yield pair
