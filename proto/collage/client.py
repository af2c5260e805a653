"""The client library, and the ``collage`` command: ``collage predict photo.jpg``, ``collage health``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from collage.model_info import ModelInfo
from collage.security import PLAINTEXT, ClientSecurity, SecurityError
from collage.serving import MAX_MESSAGE_BYTES, channel_options
from collage.tensors import to_tensor
from collage.v1 import model_pb2, model_pb2_grpc, predict_pb2, predict_pb2_grpc

DEFAULT_ADDRESS = "127.0.0.1:50051"
CLUSTER_FILE = Path("out/cluster.json")
AT_ONCE = 16  # files in flight in `collage predict`

Image = bytes | NDArray[np.uint8]
"""An encoded image (JPEG, PNG, WebP, BMP), or RGB pixels uint8 ``[size, size, 3]`` at the s-cnn's input size."""


class ClientError(Exception):
    """A call failed: ``code`` is its gRPC status, ``message`` says why and what to do about it."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code, self.message = code, message


@dataclass(frozen=True)
class Classification:
    """One class of an answer; ``probability`` is from 0 to 1."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Prediction:
    """An answer: the most probable class first, and where it came from.

    ``source`` is S_CNN, COLLAGE, REPLICA, PARITY or DEFAULT; ``degraded`` answers are approximations, and
    ``coded_confidence`` (0 to 1) says how far to trust one from a code. Queue, inference and total are seconds in the
    cluster, ``latency_s`` is what the caller waited.
    """

    request_id: str
    classes: tuple[Classification, ...]
    source: str
    degraded: bool
    coded_confidence: float | None
    group_id: str
    cell: int | None
    model_name: str
    model_version: str
    queue_s: float
    inference_s: float
    total_s: float
    latency_s: float

    @property
    def label(self) -> str:
        """Name of the most probable class."""
        return self.classes[0].label


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
        self._options: list[tuple[str, Any]] = [
            *channel_options(max_message_bytes),
            ("grpc.service_config", _retries(attempts)),
        ]

    async def __aenter__(self) -> Self:
        self._channel = self._security.channel(self.address, self._options)
        self._stub = predict_pb2_grpc.PredictServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def predict(
        self, image: Image, *, top_k: int = 1, request_id: str = "", timeout_s: float | None = 10.0
    ) -> Prediction:
        """Classify one image; ``timeout_s`` None leaves the time limit to the server."""
        started = time.monotonic()
        try:
            response = await self._stub.Predict(
                _request(image, top_k, request_id), timeout=timeout_s, metadata=self._security.metadata()
            )
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None
        return _prediction(response, time.monotonic() - started)

    async def predict_stream(
        self,
        images: Iterable[tuple[str, Image]] | AsyncIterable[tuple[str, Image]],
        *,
        top_k: int = 1,
        timeout_s: float | None = 10.0,
    ) -> AsyncIterator[tuple[str, Prediction | ClientError]]:
        """Classify ``(request_id, image)`` pairs as they come, each within ``timeout_s``; ids must be unique.

        Yields ``(request_id, answer or error)`` in completion order: an image that fails never ends the stream. Raises
        ClientError when the stream breaks, which no image without a result by then has survived.
        """
        started: dict[str, float] = {}
        call = self._stub.PredictStream(metadata=self._security.metadata())
        all_sent = False

        async def send() -> None:
            nonlocal all_sent
            try:
                async for request_id, image in _each(images):
                    started[request_id] = time.monotonic()
                    request = _request(image, top_k, request_id)
                    await call.write(predict_pb2.PredictStreamRequest(request=request, timeout_s=timeout_s or 0))
                all_sent = True
                await call.done_writing()
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                pass  # the stream is over, and whoever reads it is told why
            except Exception:
                call.cancel()
                raise

        sending = asyncio.create_task(send())
        try:
            async for message in call:
                latency = time.monotonic() - started.pop(message.request_id, time.monotonic())
                if message.WhichOneof("result") == "response":
                    yield message.request_id, _prediction(message.response, latency)
                else:
                    yield message.request_id, ClientError(_status(message.error.code), message.error.message)
            if started or not all_sent:
                raise ClientError(grpc.StatusCode.UNAVAILABLE, f"{self.address} ended the stream: try again")
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None
        except asyncio.CancelledError:
            if sending.done() and not sending.cancelled() and (broken := sending.exception()):
                raise broken from None
            raise
        finally:
            sending.cancel()
            call.cancel()

    async def health(self, service: str = "", timeout_s: float = 2.0) -> str:
        """``SERVING`` or ``NOT_SERVING``."""
        try:
            stub: Any = health_pb2_grpc.HealthStub(self._channel)
            response: health_pb2.HealthCheckResponse = await stub.Check(
                health_pb2.HealthCheckRequest(service=service), timeout=timeout_s
            )
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    async def model(self, timeout_s: float = 2.0) -> ModelInfo | None:
        """The model that a worker serves; None for a process that serves none."""
        try:
            stub = model_pb2_grpc.ModelServiceStub(self._channel)
            request = model_pb2.GetModelInfoRequest()
            metadata = self._security.metadata()
            return ModelInfo.from_proto(await stub.GetModelInfo(request, timeout=timeout_s, metadata=metadata))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise self._failure(error) from None

    def _failure(self, error: grpc.aio.AioRpcError) -> ClientError:
        message = " ".join((error.details() or "no reason given").split())
        if error.code() is grpc.StatusCode.UNAVAILABLE and message.startswith("failed to connect"):
            message = self._unconnected(message)
        elif error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and message == "Deadline Exceeded":
            message = f"no answer from {self.address} in time"
        return ClientError(error.code(), message)

    def _unconnected(self, details: str) -> str:
        if "handshake failed" in details:
            reason = details.partition("OPENSSL_internal:")[2].removesuffix(": OK") or details
            return f"no TLS connection to {self.address}: {reason}"
        if any(sign in details for sign in ("Socket closed", "reset", "Broken pipe", "EOF")):
            wanted = "another client certificate" if self._security.encrypted else "TLS"
            return f"{self.address} closed the connection: does it want {wanted}?"
        return f"nothing answers at {self.address}: is the cluster up (make up), and the address right?"


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


def _request(image: Image, top_k: int, request_id: str) -> predict_pb2.PredictRequest:
    if isinstance(image, bytes):
        return predict_pb2.PredictRequest(image=image, top_k=top_k, request_id=request_id)
    return predict_pb2.PredictRequest(tensor=to_tensor(image), top_k=top_k, request_id=request_id)


def _prediction(response: predict_pb2.PredictResponse, latency_s: float) -> Prediction:
    origin = response.provenance
    return Prediction(
        request_id=origin.request_id,
        classes=tuple(Classification(found.label, found.index, found.probability) for found in response.classes),
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
    )


def _status(code: int) -> grpc.StatusCode:
    return next((status for status in grpc.StatusCode if status.value[0] == code), grpc.StatusCode.UNKNOWN)


async def _each(
    images: Iterable[tuple[str, Image]] | AsyncIterable[tuple[str, Image]],
) -> AsyncIterator[tuple[str, Image]]:
    if isinstance(images, AsyncIterable):
        async for pair in images:
            yield pair
    else:
        for pair in images:
            yield pair


# The command.


def show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: by rich on a terminal, if it is installed, else as aligned plain text."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        except ImportError:
            pass
        else:
            table = Table(*columns, box=None, header_style="bold")
            for row in rows:
                table.add_row(*map(Text, row))
            Console().print(table)
            return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _complain(message: str) -> None:
    print(f"collage: {message}", file=sys.stderr)


async def _predict(args: argparse.Namespace) -> int:
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(client: Client, file: Path) -> Prediction | ClientError | OSError:
        async with limit:
            try:
                image = await asyncio.to_thread(file.read_bytes)
                return await client.predict(image, top_k=args.top_k, timeout_s=args.timeout)
            except (ClientError, OSError) as error:
                return error

    async with Client(args.address, security=_security(args)) as client, asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(client, file)) for file in args.files]
    results = [(file, task.result()) for file, task in zip(args.files, tasks, strict=True)]
    errors = [(file, result) for file, result in results if isinstance(result, Exception)]
    if args.json:
        for file, result in results:
            print(json.dumps({"file": str(file), **_as_json(result)}))
    else:
        rows = [row for file, result in results if isinstance(result, Prediction) for row in _rows(file, result)]
        if rows:
            show(("file", "label", "probability", "source", "latency"), rows)
        said = {str(error): f"{file}: {_reason(error)}" for file, error in reversed(errors)}
        for line in reversed(said.values()):  # the same error of many files once
            _complain(line)
    return 1 if errors else 0


def _reason(error: ClientError | OSError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _as_json(result: Prediction | ClientError | OSError) -> dict[str, Any]:
    if isinstance(result, Prediction):
        return asdict(result)
    code = result.code.name if isinstance(result, ClientError) else "UNREADABLE"
    message = result.message if isinstance(result, ClientError) else _reason(result)
    return {"error": {"code": code, "message": message}}


def _rows(file: Path, prediction: Prediction) -> list[Sequence[str]]:
    source = prediction.source
    if prediction.coded_confidence is not None:
        source += f" (confidence {prediction.coded_confidence:.2f})"
    rows: list[Sequence[str]] = []
    for found in prediction.classes:
        rows.append(
            (str(file), found.label, f"{found.probability:6.1%}", source, f"{1000 * prediction.latency_s:.0f} ms")
        )
    return rows[:1] + [("", row[1], row[2], "", "") for row in rows[1:]]


def _processes(args: argparse.Namespace) -> list[dict[str, str]]:
    if args.addresses:
        return [{"role": "", "address": address, "metrics": ""} for address in args.addresses]
    listed: list[dict[str, str]] = json.loads(CLUSTER_FILE.read_text()) if CLUSTER_FILE.exists() else []
    if listed and args.address in (None, *(process["address"] for process in listed)):
        return listed
    return [{"role": "frontend", "address": args.address or DEFAULT_ADDRESS, "metrics": ""}, *listed]


async def _health(args: argparse.Namespace) -> int:
    processes = _processes(args)
    security = _security(args)

    async def one(address: str) -> tuple[str, str]:
        async with Client(address, security=security) as client:
            try:
                model = await client.model()
                return await client.health(), f"{model.name} {model.version}" if model else ""
            except ClientError as error:
                return ("UNREACHABLE" if error.code is grpc.StatusCode.UNAVAILABLE else str(error)), ""

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(process["address"])) for process in processes]
    states = [task.result() for task in tasks]
    show(
        ("role", "address", "status", "model", "metrics"),
        [
            (process["role"], process["address"], *state, process["metrics"])
            for process, state in zip(processes, states, strict=True)
        ],
    )
    return 0 if all(status == "SERVING" for status, _ in states) else 1


def _security(args: argparse.Namespace) -> ClientSecurity:
    return ClientSecurity(
        tls=args.tls,
        ca=args.ca,
        cert=args.cert,
        key=args.key,
        token=os.environ.get("COLLAGE_TOKEN", ""),
        token_file=args.token_file,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ``collage`` command: 0 if all went well, 1 if something failed, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="collage", description="Classify images with a collage cluster.")
    secure = argparse.ArgumentParser(add_help=False)
    group = secure.add_argument_group("security")
    group.add_argument("--tls", action="store_true", help="connect by TLS, trusting the system's CAs")
    group.add_argument("--ca", type=Path, metavar="FILE", help="connect by TLS, trusting these CAs (PEM)")
    group.add_argument("--cert", type=Path, metavar="FILE", help="own certificate, for mutual TLS (PEM)")
    group.add_argument("--key", type=Path, metavar="FILE", help="its private key (PEM)")
    group.add_argument("--token-file", type=Path, metavar="FILE", help="bearer token; else the variable COLLAGE_TOKEN")
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict", help="classify image files", parents=[secure])
    predict.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JPEG, PNG, WebP or BMP")
    predict.add_argument("--address", default=DEFAULT_ADDRESS, help="the frontend, host:port (%(default)s)")
    predict.add_argument("--top-k", type=int, default=1, metavar="N", help="classes per image (%(default)s)")
    predict.add_argument("--timeout", type=float, default=10.0, metavar="S", help="seconds per image (%(default)s)")
    predict.add_argument("--json", action="store_true", help="one JSON object per line and file, errors included")
    predict.set_defaults(run=_predict)
    health = commands.add_parser("health", help="show whether every process serves", parents=[secure])
    health.add_argument("addresses", nargs="*", metavar="ADDRESS", help=f"host:port; else all of {CLUSTER_FILE}")
    health.add_argument("--address", help=f"the frontend, host:port ({DEFAULT_ADDRESS} without such a file)")
    health.set_defaults(run=_health)
    args = parser.parse_args(arguments)
    if args.command == "predict" and (args.top_k < 1 or args.timeout <= 0):
        parser.error("--top-k and --timeout must be positive")
    run: Coroutine[Any, Any, int] = args.run(args)
    try:
        code = asyncio.run(run)
        sys.stdout.flush()  # now, where a reader that has left is noticed, and not when the interpreter ends
        return code
    except SecurityError as error:
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has left, like head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
