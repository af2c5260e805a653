"""What both clients give: answers, and what they say when a call fails."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import Int32Value

from collage.channels import channel_options
from collage.errors import ClientError
from collage.model_info import ModelInfo
from collage.tensors import TensorError, floats_from_tensor
from collage.texts import cut, printable
from collage.v1 import model_pb2, predict_pb2

DEFAULT_ADDRESS = "127.0.0.1:50051"
MAX_DETAILS = 2048
"""Longest text of a server that an error repeats, in characters."""
_SOURCES = {number: name.removeprefix("SOURCE_") for name, number in predict_pb2.Source.items()}


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
    """S_CNN, COLLAGE, REPLICA, PARITY, CODED or DEFAULT; UNKNOWN_ and a number for one newer than this client."""
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


def _garbage(reason: object) -> ClientError:
    return ClientError(grpc.StatusCode.INTERNAL, f"the server's response makes no sense: {reason}")


def from_response(response: predict_pb2.PredictResponse | None, latency_s: float) -> Prediction:
    """The answer in a response, of which grpc.aio makes None if it is none. Raises ClientError (INTERNAL)."""
    if response is None:
        raise _garbage("it is no PredictResponse")
    try:
        output = tuple(floats_from_tensor(response.output, [-1]).tolist()) if response.HasField("output") else None
    except TensorError as error:
        raise _garbage(error) from None
    origin, box = response.provenance, response.box
    return Prediction(
        request_id=origin.request_id,
        classes=tuple(ClassProbability(found.label, found.index, found.probability) for found in response.classes),
        source=_SOURCES.get(origin.source, f"UNKNOWN_{origin.source}"),
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
        output=output,
    )


def from_stream(message: predict_pb2.PredictStreamResponse, latency_s: float) -> Prediction | ClientError:
    """The answer, or the error, in a message of a stream."""
    if message.WhichOneof("result") == "response":
        try:
            return from_response(message.response, latency_s)
        except ClientError as error:
            return error
    code = next((code for code in grpc.StatusCode if code.value[0] == message.error.code), grpc.StatusCode.UNKNOWN)
    return ClientError(code, message.error.message)


def stream_id(message: predict_pb2.PredictStreamResponse | None) -> str:
    """Which image a message of a stream is about; raises ClientError (INTERNAL) if grpc.aio could not read it."""
    if message is None:
        raise _garbage("it is no PredictStreamResponse")
    return message.request_id


def described(response: model_pb2.GetModelInfoResponse | None) -> ModelInfo:
    """The model in a worker's description; raises ClientError (INTERNAL) if that makes no sense."""
    if response is None:
        raise _garbage("it is no GetModelInfoResponse")
    try:
        return ModelInfo.from_proto(response)
    except ValueError as error:
        raise _garbage(error) from None


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


def open_already(address: str) -> ClientError:
    """The error of a client that is entered while it is open."""
    return ClientError(
        grpc.StatusCode.FAILED_PRECONDITION, f"the client of {address} is open already: make another one"
    )


def ended(address: str) -> ClientError:
    """The error of a stream that the server ended before it had answered every image."""
    return ClientError(grpc.StatusCode.UNAVAILABLE, f"{address} ended the stream: try again")


def failure(error: grpc.RpcError, address: str, encrypted: bool) -> ClientError:
    """What a failed call to ``address`` means; ``encrypted`` is whether the client connected by TLS.

    No caller of ours gets to see a call that it cancelled itself: CANCELLED is a server that went away.
    """
    code, message = error.code(), printable(cut(" ".join((error.details() or "no reason given").split()), MAX_DETAILS))
    if code is grpc.StatusCode.CANCELLED:
        return ClientError(grpc.StatusCode.UNAVAILABLE, f"{address} ended the call without an answer: try again")
    if code is grpc.StatusCode.INTERNAL and message == "Exception deserializing response!":
        return _garbage("it is no message of this service")
    if code is grpc.StatusCode.UNAVAILABLE and message.startswith("failed to connect"):
        message = _unconnected(message, address, encrypted)
    elif code is grpc.StatusCode.UNAVAILABLE and message.startswith("errors resolving"):
        message = f"there is no address for {address}: is the name right?"
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


HEALTH_CHECK = "/grpc.health.v1.Health/Check"


def health_status(response: bytes) -> str:
    """The name of the status: SERVING, NOT_SERVING, SERVICE_UNKNOWN or UNKNOWN."""
    names = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
    try:
        status = Int32Value.FromString(response).value  # see inputs.health_request
    except DecodeError:
        raise _garbage("it is no HealthCheckResponse") from None
    return names[status] if 0 <= status < len(names) else "UNKNOWN"
