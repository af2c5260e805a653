"""The client for code without asyncio."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Self

import grpc

from collage import answers
from collage.answers import DEFAULT_ADDRESS, Image, Prediction
from collage.channels import MAX_MESSAGE_BYTES
from collage.errors import ClientError
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
        self.address = address
        self._security = security
        self._options = answers.client_options(max_message_bytes, attempts)
        self._channel: grpc.Channel | None = None

    def __enter__(self) -> Self:
        self._channel = self._security.sync_channel(self.address, self._options)
        self._stub = predict_pb2_grpc.PredictServiceStub(self._channel)
        return self

    def __exit__(self, *_: object) -> None:
        channel, self._channel = self._open(), None
        channel.close()

    def _open(self) -> grpc.Channel:
        if self._channel is None:
            raise answers.not_open(f"with SyncClient({self.address!r})")
        return self._channel

    @property
    def _service(self) -> predict_pb2_grpc.PredictServiceStub:
        self._open()
        return self._stub

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
        service, request = self._service, answers.to_request(image, top_k, request_id, with_output)
        try:
            response = service.Predict(request, timeout=timeout_s, metadata=self._security.metadata())
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
        service = self._service
        results: queue.SimpleQueue[_Result | Exception | None] = queue.SimpleQueue()
        started: dict[str, float] = {}
        room = threading.Semaphore(AHEAD)
        all_sent = closed = False

        def requests() -> Iterator[predict_pb2.PredictStreamRequest]:
            nonlocal all_sent
            try:
                for request_id, image in images:
                    room.acquire()
                    if closed:
                        return
                    try:
                        request = answers.to_request(image, top_k, request_id, with_output)
                    except ClientError as error:
                        results.put((request_id, error))
                        continue
                    started[request_id] = time.monotonic()
                    yield predict_pb2.PredictStreamRequest(request=request, timeout_s=timeout_s or 0)
                all_sent = True
            except Exception as error:  # raised by the source, for our caller
                results.put(error)

        call = service.PredictStream(requests(), metadata=self._security.metadata())

        def read() -> None:
            try:
                for message in call:
                    latency = time.monotonic() - started.pop(message.request_id, time.monotonic())
                    results.put((message.request_id, answers.from_stream(message, latency)))
                results.put(answers.ended(self.address) if started or not all_sent else None)
            except grpc.RpcError as error:
                results.put(self._failure(error))

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
        check = self._open().unary_unary(answers.HEALTH_CHECK, answers.encode_health, answers.decode_health)
        try:
            return check(service, timeout=timeout_s)
        except grpc.RpcError as error:
            raise self._failure(error) from None

    def model(self, timeout_s: float = 2.0) -> ModelInfo | None:
        """The model that a worker serves; None for a process that serves none."""
        try:
            stub = model_pb2_grpc.ModelServiceStub(self._open())
            request = model_pb2.GetModelInfoRequest()
            metadata = self._security.metadata()
            return ModelInfo.from_proto(stub.GetModelInfo(request, timeout=timeout_s, metadata=metadata))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise self._failure(error) from None

    def _failure(self, error: grpc.RpcError) -> ClientError:
        return answers.failure(error, self.address, self._security.encrypted)
