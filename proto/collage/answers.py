"""What both clients share: the images they take, the answers they give, and what they say when a call fails."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from numpy.typing import NDArray

from collage.channels import channel_options
from collage.errors import ClientError
from collage.tensors import floats_from_tensor, to_tensor
from collage.v1 import predict_pb2

DEFAULT_ADDRESS = "127.0.0.1:50051"

Image = bytes | bytearray | memoryview | Path | NDArray[np.uint8]
"""An encoded image (JPEG, PNG, WebP, BMP), the path of its file, or its RGB pixels: uint8 ``[size, size, 3]``, where
size is that of the s-cnn's input."""

_IMAGES = "an image is the bytes or the Path of a JPEG, PNG, WebP or BMP file, or RGB pixels, uint8 [size, size, 3]"


@dataclass(frozen=True)
class ClassProbability:
    """One class of an answer; ``probability`` is from 0 to 1."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Box:
    """Where an object is: its edges in shares of the image's width and height, from the left upper corner."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Prediction:
    """An answer, and where it came from."""

    request_id: str
    classes: tuple[ClassProbability, ...]
    """The most probable class first; none if the model's task is localisation."""
    source: str
    """S_CNN, COLLAGE, REPLICA, PARITY, CODED or DEFAULT."""
    degraded: bool
    """Whether the answer is an approximation."""
    coded_confidence: float | None
    """For an answer from a code, its confidence from 0 to 1."""
    group_id: str
    cell: int | None
    model_name: str
    model_version: str
    queue_s: float
    """Seconds that the answering worker kept the request waiting."""
    inference_s: float
    """Seconds that the answering model computed."""
    total_s: float
    """Seconds in the frontend, from the request's arrival to its answer."""
    latency_s: float
    """Seconds that the caller waited."""
    box: Box | None = None
    """If the model's task is localisation."""
    output: tuple[float, ...] | None = None
    """If asked for, what the model put out, or what a code decoded in its place: logits, or a box."""

    @property
    def label(self) -> str:
        """Name of the most probable class; empty if the model's task is localisation."""
        return self.classes[0].label if self.classes else ""


def content(file: Path) -> bytes:
    """What is in a file; raises ClientError (INVALID_ARGUMENT) if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise _invalid(f"cannot read {file}: {error.strerror}") from None


def to_request(image: Image, top_k: int, request_id: str, with_output: bool) -> predict_pb2.PredictRequest:
    """The request for one image; raises ClientError (INVALID_ARGUMENT) for anything that is not one."""
    try:
        request = predict_pb2.PredictRequest(top_k=top_k, request_id=request_id, with_output=with_output)
    except (TypeError, ValueError):
        raise _invalid(f"top_k is a whole number and request_id a text, got {top_k!r} and {request_id!r}") from None
    if isinstance(image, Path):
        request.image = content(image)
    elif isinstance(image, bytes | bytearray | memoryview):
        request.image = bytes(image)
    else:
        request.tensor.CopyFrom(to_tensor(_pixels(image)))
    return request


def _pixels(image: Any) -> NDArray[np.uint8]:
    if isinstance(image, str):
        raise _invalid(f"an image is not a text: for the file {image!r} send Path({image!r})")
    if not isinstance(image, np.ndarray):
        raise _invalid(f"{_IMAGES}; got {type(image).__name__}")
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.integer):
        raise _invalid(
            f"pixels are uint8, from 0 to 255, got {image.dtype}: for values from 0 to 1 send "
            "(255 * pixels).round().astype(np.uint8)"
        )
    if image.size and not (image.min() >= 0 and image.max() <= 255):
        raise _invalid(f"pixels are from 0 to 255, these are from {image.min()} to {image.max()}")
    return image.astype(np.uint8)


def _invalid(message: str) -> ClientError:
    return ClientError(grpc.StatusCode.INVALID_ARGUMENT, message)


def from_response(response: predict_pb2.PredictResponse, latency_s: float) -> Prediction:
    """The answer in a response."""
    origin, box = response.provenance, response.box
    return Prediction(
        request_id=origin.request_id,
        classes=tuple(ClassProbability(found.label, found.index, found.probability) for found in response.classes),
        source=predict_pb2.Source.Name(origin.source).removeprefix("SOURCE_"),
        degraded=origin.degraded,
        coded_confidence=origin.coded_confidence if origin.HasField("coded_confidence") else None,
        group_id=origin.group_id,
        cell=origin.cell if origin.HasField("cell") else None,
        model_name=origin.model_name,
        model_version=origin.model_version,
        queue_s=origin.queue_s,
        inference_s=origin.inference_s,
        total_s=origin.total_s,
        latency_s=latency_s,
        box=Box(box.left, box.top, box.right, box.bottom) if response.HasField("box") else None,
        output=tuple(floats_from_tensor(response.output, [-1]).tolist()) if response.HasField("output") else None,
    )


def from_stream(message: predict_pb2.PredictStreamResponse, latency_s: float) -> Prediction | ClientError:
    """The answer, or the error, in a message of a stream."""
    if message.WhichOneof("result") == "response":
        return from_response(message.response, latency_s)
    code = next((code for code in grpc.StatusCode if code.value[0] == message.error.code), grpc.StatusCode.UNKNOWN)
    return ClientError(code, message.error.message)


def client_options(max_message_bytes: int, attempts: int) -> list[tuple[str, Any]]:
    """gRPC options of a client's channel."""
    return [*channel_options(max_message_bytes), ("grpc.service_config", _retries(attempts))]


def _retries(attempts: int) -> str:
    """gRPC's own retries: they obey the server's pushback, and stop while most calls fail (retryThrottling)."""
    if attempts < 2:
        return "{}"
    policy = {
        "maxAttempts": min(attempts, 5),
        **{"initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2},
        "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
    }
    method = {"name": [{"service": "collage.v1.PredictService", "method": "Predict"}], "retryPolicy": policy}
    return json.dumps({"methodConfig": [method], "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1}})


def not_open(entered: str) -> ClientError:
    """The error of a client that was not entered, or was left; ``entered`` is how to enter it."""
    return ClientError(
        grpc.StatusCode.FAILED_PRECONDITION, f"the client has no connection: use it within `{entered} as client:`"
    )


def ended(address: str) -> ClientError:
    """The error of a stream that the server ended before it had answered every image."""
    return ClientError(grpc.StatusCode.UNAVAILABLE, f"{address} ended the stream: try again")


def failure(error: grpc.RpcError, address: str, encrypted: bool) -> ClientError:
    """What a failed call to ``address`` means; ``encrypted`` is whether the client connected by TLS."""
    code, message = error.code(), " ".join((error.details() or "no reason given").split())
    if code is grpc.StatusCode.UNAVAILABLE and message.startswith("failed to connect"):
        message = _unconnected(message, address, encrypted)
    elif code is grpc.StatusCode.CANCELLED and message != "Channel closed!":  # not by us: the server was ending
        code, message = grpc.StatusCode.UNAVAILABLE, f"{address} dropped the call: try again"
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED and message == "Deadline Exceeded":
        message = f"no answer from {address} in time"
    return ClientError(code, message)


def _unconnected(details: str, address: str, encrypted: bool) -> str:
    if "handshake failed" in details:
        reason = details.partition("OPENSSL_internal:")[2].removesuffix(": OK") or details
        return f"no TLS connection to {address}: {reason}"
    if any(sign in details for sign in ("Socket closed", "reset", "Broken pipe", "EOF")):
        wanted = "another client certificate" if encrypted else "TLS"
        return f"{address} closed the connection: does it want {wanted}?"
    return f"nothing answers at {address}: is the cluster up (make up), and the address right?"


# grpc.health.v1, whose stubs are another package. Its request is one text and its response one number, both of them
# field 1, so protobuf's own wrappers have the same bytes.

HEALTH_CHECK = "/grpc.health.v1.Health/Check"


def encode_health(service: str) -> bytes:
    """The request for the status of a service; "" is the process as a whole."""
    return StringValue(value=service).SerializeToString()


def decode_health(response: bytes) -> str:
    """The name of the status: SERVING, NOT_SERVING, SERVICE_UNKNOWN or UNKNOWN."""
    names = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
    status = Int32Value.FromString(response).value
    return names[status] if status < len(names) else "UNKNOWN"
