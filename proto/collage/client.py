"""The client library: ``Client`` for asyncio, ``SyncClient`` for everything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Self

import grpc

from collage import answers, inputs
from collage.answers import DEFAULT_ADDRESS, Box, ClassProbability, Prediction
from collage.channels import MAX_MESSAGE_BYTES
from collage.errors import ClientError
from collage.inputs import Image
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
        inputs.check_target(address, max_message_bytes, attempts, security)
        self.address = address
        self._security, self._most = security, max_message_bytes
        self._options = answers.client_options(max_message_bytes, attempts)
        self._channels: list[grpc.aio.Channel] = []  # the one in use, and the one before it, whose calls may go on
        self._certificates = 0

    async def __aenter__(self) -> Self:
        if self._channels:
            raise answers.open_already(self.address)
        self._connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        channels, self._channels = self._channels, []
        for channel in channels:
            await channel.close()

    def _connect(self) -> None:
        self._certificates = self._security.stamp()
        self._channels.insert(0, self._security.channel(self.address, self._options))
        self._stub = predict_pb2_grpc.PredictServiceStub(self._channels[0])

    async def _open(self) -> grpc.aio.Channel:
        """The channel in use; another one once the certificates have changed."""
        if not self._channels:
            raise answers.not_open(f"async with Client({self.address!r})")
        if self._security.stamp() != self._certificates:
            self._connect()
            for old in self._channels[2:]:
                self._channels.remove(old)
                await old.close()
        return self._channels[0]

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
        await self._open()
        limit_s = inputs.time_limit(timeout_s)
        request = await self._request(image, top_k, request_id, with_output)
        try:
            response = await self._stub.Predict(request, timeout=limit_s, metadata=self._security.metadata())
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
        await self._open()
        limit_s = inputs.time_limit(timeout_s)
        inputs.check_source(images, Iterable, AsyncIterable)
        call = self._stub.PredictStream(metadata=self._security.metadata())
        results: asyncio.Queue[tuple[str, Prediction | ClientError] | Exception | None] = asyncio.Queue(maxsize=1)
        started: dict[str, float] = {}
        all_sent = False

        async def send() -> None:
            nonlocal all_sent
            try:
                async for request_id, image in _each(images):
                    try:
                        request = await self._request(image, top_k, request_id, with_output)
                    except ClientError as error:
                        await results.put((request_id, error))
                        continue
                    started[request_id] = time.monotonic()
                    await call.write(predict_pb2.PredictStreamRequest(request=request, timeout_s=limit_s or 0))
                all_sent = True
                await call.done_writing()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                pass  # the stream is over, and its reader learns why
            except Exception as error:  # raised by the source, for our caller
                await results.put(error)

        async def read() -> None:
            try:
                async for message in call:
                    request_id = answers.stream_id(message)
                    latency = time.monotonic() - started.pop(request_id, time.monotonic())
                    await results.put((request_id, answers.from_stream(message, latency)))
                await results.put(None if all_sent and not started else answers.ended(self.address))
            except grpc.aio.AioRpcError as error:
                await results.put(self._failure(error))
            except ClientError as error:
                await results.put(error)

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
        check: Any = (await self._open()).unary_unary(answers.HEALTH_CHECK)
        request = inputs.health_request(service)
        try:
            return answers.health_status(await check(request, timeout=inputs.time_limit(timeout_s)))
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None

    async def model(self, timeout_s: float = 2.0) -> ModelInfo | None:
        """The model that a worker serves; None for a process that serves none."""
        stub, limit_s = model_pb2_grpc.ModelServiceStub(await self._open()), inputs.time_limit(timeout_s)
        request, metadata = model_pb2.GetModelInfoRequest(), self._security.metadata()
        try:
            return answers.described(await stub.GetModelInfo(request, timeout=limit_s, metadata=metadata))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise self._failure(error) from None

    async def _request(
        self, image: Image, top_k: int, request_id: str, with_output: bool
    ) -> predict_pb2.PredictRequest:
        if isinstance(image, Path):  # is read off the event loop
            image = await asyncio.to_thread(inputs.content, image, self._most)
        return inputs.to_request(image, top_k, request_id, with_output, self._most)

    def _failure(self, error: grpc.aio.AioRpcError) -> ClientError:
        return answers.failure(error, self.address, self._security.encrypted)


async def _each(
    images: Iterable[tuple[str, Image]] | AsyncIterable[tuple[str, Image]],
) -> AsyncIterator[tuple[str, Image]]:
    if isinstance(images, AsyncIterable):
        async for item in images:
            yield inputs.pair(item)
    else:
        for item in images:
            yield inputs.pair(item)
