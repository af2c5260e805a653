"""The client for code without asyncio."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Self

import grpc

from collage import answers, inputs
from collage.answers import DEFAULT_ADDRESS, Prediction
from collage.channels import MAX_MESSAGE_BYTES
from collage.errors import ClientError
from collage.inputs import Image
from collage.model_info import ModelInfo
from collage.security import PLAINTEXT, ClientSecurity
from collage.v1 import model_pb2, model_pb2_grpc, predict_pb2, predict_pb2_grpc

AHEAD = 1024  # images taken from a stream's source whose results our caller has not taken yet
_Result = tuple[str, Prediction | ClientError]


class SyncClient:
    """``Client`` without asyncio: ``with SyncClient("host:port") as client: client.predict(image)``.

    Its methods, arguments and errors are those of ``Client``. Any number of threads may use it at once.
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
        self._channels: list[grpc.Channel] = []  # the one in use, and the one before it, whose calls may go on
        self._certificates = 0
        self._changing = threading.Lock()

    def __enter__(self) -> Self:
        if self._channels:
            raise answers.open_already(self.address)
        self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        channels, self._channels = self._channels, []
        for channel in channels:
            channel.close()

    def _connect(self) -> None:
        self._certificates = self._security.stamp()
        self._channels.insert(0, self._security.sync_channel(self.address, self._options))
        self._stub = predict_pb2_grpc.PredictServiceStub(self._channels[0])

    def _open(self) -> grpc.Channel:
        """The channel in use; another one once the certificates have changed."""
        if not self._channels:
            raise answers.not_open(f"with SyncClient({self.address!r})")
        if self._security.stamp() != self._certificates:
            with self._changing:
                if self._security.stamp() != self._certificates:
                    self._connect()
                    for old in self._channels[2:]:
                        self._channels.remove(old)
                        old.close()
        return self._channels[0]

    def predict(
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
        self._open()
        limit_s = inputs.time_limit(timeout_s)
        request = inputs.to_request(image, top_k, request_id, with_output, self._most)
        try:
            response = self._stub.Predict(request, timeout=limit_s, metadata=self._security.metadata())
        except grpc.RpcError as error:
            raise self._failure(error) from None
        return answers.from_response(response, time.monotonic() - started)

    def predict_stream(
        self,
        images: Iterable[tuple[str, Image]],
        *,
        top_k: int = 1,
        timeout_s: float | None = 10.0,
        with_output: bool = False,
    ) -> Iterator[_Result]:
        """Classify ``(request_id, image)`` pairs as they come, each within ``timeout_s``; ids must be unique.

        A thread of gRPC takes the images. Yields ``(request_id, answer or error)`` in completion order: an image that
        fails never ends the stream. Raises ClientError when the stream breaks: images without a result by then have
        none. Raises what ``images`` raises.
        """
        self._open()
        limit_s = inputs.time_limit(timeout_s)
        inputs.check_source(images, Iterable)
        results: queue.SimpleQueue[_Result | Exception | None] = queue.SimpleQueue()
        started: dict[str, float] = {}
        room = threading.Semaphore(AHEAD)
        all_sent = closed = False

        def requests() -> Iterator[predict_pb2.PredictStreamRequest]:
            nonlocal all_sent
            try:
                for request_id, image in map(inputs.pair, images):
                    room.acquire()
                    if closed:
                        return
                    try:
                        request = inputs.to_request(image, top_k, request_id, with_output, self._most)
                    except ClientError as error:
                        results.put((request_id, error))
                        continue
                    started[request_id] = time.monotonic()
                    yield predict_pb2.PredictStreamRequest(request=request, timeout_s=limit_s or 0)
                all_sent = True
            except Exception as error:  # raised by the source, for our caller
                results.put(error)

        call = self._stub.PredictStream(requests(), metadata=self._security.metadata())

        def read() -> None:
            try:
                for message in call:
                    request_id = answers.stream_id(message)
                    latency = time.monotonic() - started.pop(request_id, time.monotonic())
                    results.put((request_id, answers.from_stream(message, latency)))
                results.put(answers.ended(self.address) if started or not all_sent else None)
            except grpc.RpcError as error:
                results.put(self._failure(error))
            except ClientError as error:
                results.put(error)

        threading.Thread(target=read, name="collage stream", daemon=True).start()
        try:
            while (result := results.get()) is not None:
                if isinstance(result, Exception):
                    raise result
                room.release()
                yield result
        finally:
            closed = True
            room.release()
            call.cancel()

    def health(self, service: str = "", timeout_s: float = 2.0) -> str:
        """``SERVING`` or ``NOT_SERVING``."""
        check: Any = self._open().unary_unary(answers.HEALTH_CHECK)
        request = inputs.health_request(service)
        try:
            return answers.health_status(check(request, timeout=inputs.time_limit(timeout_s)))
        except grpc.RpcError as error:
            raise self._failure(error) from None

    def model(self, timeout_s: float = 2.0) -> ModelInfo | None:
        """The model that a worker serves; None for a process that serves none."""
        stub, limit_s = model_pb2_grpc.ModelServiceStub(self._open()), inputs.time_limit(timeout_s)
        request, metadata = model_pb2.GetModelInfoRequest(), self._security.metadata()
        try:
            return answers.described(stub.GetModelInfo(request, timeout=limit_s, metadata=metadata))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise self._failure(error) from None

    def _failure(self, error: grpc.RpcError) -> ClientError:
        return answers.failure(error, self.address, self._security.encrypted)
