"""What every server process shares: settings, errors with a gRPC status, health, reflection, metrics, draining."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, Self, TypeVar
from wsgiref.simple_server import WSGIServer

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, start_http_server
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from collage.logs import JsonFormatter, TextFormatter
from collage.security import ServerTls, TokenCheck, Tokens

logger = logging.getLogger("collage")

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
LIVENESS = "liveness"
"""Health name to Check whether the process lives: a server without workers is not ready, yet needs no restart."""
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class ServerSettings(BaseSettings):
    """Settings of any process: command-line flags, or environment variables with the prefix ``COLLAGE_``."""

    model_config = SettingsConfigDict(env_prefix="COLLAGE_", cli_kebab_case=True, cli_avoid_json=True)

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 - pods listen on all interfaces
    port: int = Field(50051, ge=0, le=65535, description="gRPC port; 0 takes a free one")
    metrics_port: int = Field(9090, ge=0, le=65535, description="Prometheus port; 0 takes a free one")
    metrics_host: str = Field("", description="address that metrics listen on (plain HTTP); the same as host if empty")
    health_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="further gRPC port with health only and no TLS, for probes that know none, like the kubelet's",
    )
    tls_cert: Path | None = Field(None, description="certificate chain, PEM; turns on TLS; read again when it changes")
    tls_key: Path | None = Field(None, description="private key of tls-cert, PEM")
    tls_client_ca: Path | None = Field(
        None, description="CA certificates, PEM; turns on mutual TLS: clients need a certificate signed by one of them"
    )
    token_file: Path | None = Field(
        None, description="file with bearer tokens, one a line; every call but health needs one; read again on change"
    )
    reflection: bool = Field(True, description="whether gRPC reflection tells what services there are")
    max_message_bytes: int = Field(MAX_MESSAGE_BYTES, ge=1024, description="largest gRPC message, either direction")
    drain_delay_s: float = Field(0.0, ge=0, description="seconds between NOT_SERVING and refusing new calls")
    drain_s: float = Field(10.0, ge=0, description="seconds that calls in flight may take to finish on shutdown")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least severe message logged")
    log_format: Literal["text", "json"] = Field("text", description="json writes one object a line")

    @model_validator(mode="after")
    def _tls_is_complete(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("--tls-cert and --tls-key belong together: give both or neither")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("--tls-client-ca needs --tls-cert and --tls-key as well")
        return self


_Settings = TypeVar("_Settings", bound=ServerSettings)


def load_settings(settings: type[_Settings], arguments: Sequence[str] | None = None) -> _Settings:
    """Settings from the command line (``sys.argv`` by default) and the environment; sets the log level as well.

    Raises SystemExit with code 2, after one line per mistake on standard error, when a setting is missing or wrong.
    """
    try:
        loaded = CliApp.run(settings, None if arguments is None else list(arguments))
    except ValidationError as error:
        for mistake in error.errors():
            if not mistake["loc"]:  # of several settings, which the message names
                print(mistake["msg"].removeprefix("Value error, "), file=sys.stderr)
                continue
            flag = "--" + "-".join(str(part) for part in mistake["loc"]).replace("_", "-")
            given = f", got {mistake['input']!r}" if mistake["type"] != "missing" else ""
            print(f"{flag}: {mistake['msg']}{given}", file=sys.stderr)
        raise SystemExit(2) from None
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if loaded.log_format == "json" else TextFormatter())
    logging.basicConfig(level=loaded.log_level, handlers=[handler])
    return loaded


class ServiceError(Exception):
    """A failure with a gRPC status; its text is meant for the caller.

    ``retry_after_s`` says when trying again may succeed; gRPC clients with a retry policy obey it.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    def __init__(self, message: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class InvalidArgument(ServiceError):
    """The request cannot be served, now or later."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class AlreadyExists(ServiceError):
    """The name is taken."""

    code = grpc.StatusCode.ALREADY_EXISTS


class ResourceExhausted(ServiceError):
    """A queue is full, or too long for the caller's deadline; trying again later may succeed."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(ServiceError):
    """No worker can be reached, or this process is draining."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(ServiceError):
    """The caller's time ran out."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


def status_of(error: BaseException, request_id: str = "") -> tuple[grpc.StatusCode, str]:
    """The status and text that a caller is told; logs what is nobody's business but ours."""
    if isinstance(error, ServiceError):
        level = logging.INFO if isinstance(error, Unavailable | DeadlineExceeded) else logging.DEBUG  # or refused
        logger.log(level, "not answered: %s %s", error.code.name, error, extra={"request_id": request_id})
        return error.code, str(error)
    logger.error("unexpected error", exc_info=error, extra={"request_id": request_id})
    return grpc.StatusCode.INTERNAL, "internal error: see the server's log"


_Method = TypeVar("_Method", bound=Callable[..., Awaitable[Any]])


def boundary(method: _Method) -> _Method:
    """Turn exceptions of a servicer method into gRPC statuses.

    A cancellation that is not the caller's must not leak, or the caller would wait forever without a status.
    """

    @functools.wraps(method)
    async def guarded(self: object, request: object, context: Any) -> object:
        try:
            return await method(self, request, context)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return await _abort(context, error, request)
        except Exception as error:
            return await _abort(context, error, request)

    return guarded  # type: ignore[return-value]


async def _abort(context: Any, error: BaseException, request: object) -> NoReturn:
    id = getattr(request, "request_id", "") or getattr(request, "id", "")  # "id" in the Open Inference Protocol
    code, text = status_of(error, id)
    await context.abort(code, text, pushback(error))
    raise AssertionError("abort returned")


def pushback(error: BaseException) -> tuple[tuple[str, str], ...]:
    """Trailing metadata that tells gRPC's retries when to come again, in milliseconds."""
    after = error.retry_after_s if isinstance(error, ServiceError) else None
    return () if after is None else (("grpc-retry-pushback-ms", str(max(1, math.ceil(1000 * after)))),)


def server_options(max_message_bytes: int = MAX_MESSAGE_BYTES) -> list[tuple[str, int]]:
    """gRPC options of every server; clients may ping as often as they like, also while idle."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.so_reuseport", 0),
    ]


def channel_options(max_message_bytes: int = MAX_MESSAGE_BYTES) -> list[tuple[str, int]]:
    """gRPC options of every channel; a dead peer is noticed within 15 s and looked for again every second."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.use_local_subchannel_pool", 1),
    ]


class _Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """grpc.health.v1. Watch streams end when the process drains; grpcio's own servicer would hold the drain up."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = frozenset(services)
        self._status = _NOT_SERVING
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def serving(self) -> bool:
        """Whether the process is ready for calls."""
        return bool(self._status == _SERVING)

    def set(self, serving: bool, *, closed: bool = False) -> None:
        """Change the status of every service; nothing changes any more after ``closed``."""
        if not self._closed:
            self._status = _SERVING if serving else _NOT_SERVING
            self._closed = closed
            self._changed.set()
            self._changed = asyncio.Event()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        if request.service == LIVENESS:
            return health_pb2.HealthCheckResponse(status=_SERVING)
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
        return health_pb2.HealthCheckResponse(status=self._status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        told, closed = None, False
        while not closed:
            changed, closed = self._changed, self._closed
            status = self._status if request.service in self._services else _UNKNOWN
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            if not closed:
                await changed.wait()


def new_server(options: Sequence[tuple[str, int]], interceptors: Sequence[Any] = ()) -> grpc.aio.Server:
    """A gRPC server that looks methods up by their names.

    Generated code also registers them, and then gRPC goes through tasks that wait for each of them with every call.
    """
    server = grpc.aio.server(interceptors=interceptors, options=options)
    server.add_registered_method_handlers = lambda *_: None  # type: ignore[method-assign]
    return server


class Server:
    """A gRPC server with health, reflection and a metrics port. NOT_SERVING until told otherwise."""

    def __init__(
        self,
        settings: ServerSettings,
        registry: CollectorRegistry,
        services: Sequence[str],
        options: Sequence[tuple[str, int]] = (),
    ) -> None:
        """``services`` are the full names of those that the caller registers on ``grpc``, ``options`` more of gRPC's.

        Raises SecurityError for certificates, keys or tokens that cannot be used.
        """
        self.settings = settings
        self.registry = registry
        self.draining = asyncio.Event()  # set from when on new calls are refused; streams are to end themselves
        interceptors = [TokenCheck(Tokens(settings.token_file))] if settings.token_file else []
        self.grpc = new_server([*server_options(settings.max_message_bytes), *options], interceptors)
        self._credentials: grpc.ServerCredentials | None = None
        if settings.tls_cert and settings.tls_key:
            self._credentials = ServerTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca).credentials()
        self.port = self.metrics_port = 0
        self.health_port: int | None = None
        self._health = _Health(("", *services))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        self._probes: grpc.aio.Server | None = None
        if settings.health_port is not None:
            self._probes = new_server(server_options())
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._probes)
        if settings.reflection:
            names = (*services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self.grpc)
        self._metrics: WSGIServer | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen, and report NOT_SERVING. Sets ``port`` and ``metrics_port``; raises OSError if one is taken."""
        settings = self.settings
        self.port = _listen(self.grpc, settings.host, settings.port, self._credentials)
        metrics_host = settings.metrics_host or settings.host
        try:
            self._metrics, _ = start_http_server(settings.metrics_port, metrics_host, self.registry)
        except OSError as error:
            raise OSError(f"cannot listen on {metrics_host}:{settings.metrics_port} for metrics: {error}") from None
        self.metrics_port = self._metrics.server_port
        if self._probes and settings.health_port is not None:
            self.health_port = _listen(self._probes, settings.host, settings.health_port, None)
            await self._probes.start()
        await self.grpc.start()

    @property
    def serving(self) -> bool:
        """Whether SERVING is reported."""
        return self._health.serving

    def set_serving(self, serving: bool) -> None:
        """Report SERVING or NOT_SERVING for every service; no effect once stopping."""
        self._health.set(serving)

    async def stop(self) -> None:
        """Report NOT_SERVING, refuse new calls, let those in flight finish. Idempotent; returns when drained."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._drain())
        await asyncio.shield(self._stopping)

    async def _drain(self) -> None:
        self._health.set(False, closed=True)
        await asyncio.sleep(self.settings.drain_delay_s)
        self.draining.set()
        await self.grpc.stop(self.settings.drain_s)
        if self._probes:
            await self._probes.stop(None)
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.shutdown)  # waits for its thread, up to half a second
            self._metrics.server_close()

    async def run_until_signal(self) -> None:
        """Announce the ports on standard output, serve until SIGTERM or SIGINT, then drain."""
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked.set)
        print(f"ready port={self.port} metrics_port={self.metrics_port}", flush=True)
        await asked.wait()
        await self.stop()


def _listen(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
    try:
        if credentials is None:
            return server.add_insecure_port(f"{host}:{port}")
        return server.add_secure_port(f"{host}:{port}", credentials)
    except RuntimeError:
        raise OSError(f"cannot listen on {host}:{port}: is the port taken?") from None
