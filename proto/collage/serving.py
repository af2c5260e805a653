"""What every server process shares: settings, errors with a gRPC status, health, reflection, metrics, draining."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Literal, NoReturn, TypeVar
from wsgiref.simple_server import WSGIServer

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, start_http_server
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

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
    max_message_bytes: int = Field(MAX_MESSAGE_BYTES, ge=1024, description="largest gRPC message, either direction")
    drain_delay_s: float = Field(0.0, ge=0, description="seconds between NOT_SERVING and refusing new calls")
    drain_s: float = Field(10.0, ge=0, description="seconds that calls in flight may take to finish on shutdown")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least severe message logged")


_Settings = TypeVar("_Settings", bound=ServerSettings)


def load_settings(settings: type[_Settings], arguments: Sequence[str] | None = None) -> _Settings:
    """Settings from the command line (``sys.argv`` by default) and the environment; sets the log level as well.

    Raises SystemExit with code 2, after one line per mistake on standard error, when a setting is missing or wrong.
    """
    try:
        loaded = CliApp.run(settings, None if arguments is None else list(arguments))
    except ValidationError as error:
        for mistake in error.errors():
            flag = "--" + "-".join(str(part) for part in mistake["loc"]).replace("_", "-")
            given = f", got {mistake['input']!r}" if mistake["type"] != "missing" else ""
            print(f"{flag}: {mistake['msg']}{given}", file=sys.stderr)
        raise SystemExit(2) from None
    logging.basicConfig(level=loaded.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return loaded


class ServiceError(Exception):
    """A failure with a gRPC status; its text is meant for the caller."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL


class InvalidArgument(ServiceError):
    """The request cannot be served, now or later."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class ResourceExhausted(ServiceError):
    """A queue is full; trying again later may succeed."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(ServiceError):
    """No worker can be reached, or this process is draining."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(ServiceError):
    """The caller's time ran out."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """The status and text that a caller is told; logs what is nobody's business but ours."""
    if isinstance(error, ServiceError):
        return error.code, str(error)
    logger.error("unexpected error", exc_info=error)
    return grpc.StatusCode.INTERNAL, "internal error: see the server's log"


_Method = TypeVar("_Method", bound=Callable[..., Awaitable[Any]])


def boundary(method: _Method) -> _Method:
    """Turn exceptions of a unary servicer method into gRPC statuses.

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
            return await _abort(context, error)
        except Exception as error:
            return await _abort(context, error)

    return guarded  # type: ignore[return-value]


async def _abort(context: Any, error: BaseException) -> NoReturn:
    await context.abort(*status_of(error))
    raise AssertionError("abort returned")


def server_options(max_message_bytes: int = MAX_MESSAGE_BYTES) -> list[tuple[str, int]]:
    """gRPC options of every server; clients may ping every 5 s, also while idle."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
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


class Server:
    """A gRPC server with health, reflection and a metrics port. NOT_SERVING until told otherwise."""

    def __init__(self, settings: ServerSettings, registry: CollectorRegistry, services: Sequence[str]) -> None:
        """``services`` are the full names of those that the caller registers on ``grpc``."""
        self.settings = settings
        self.registry = registry
        self.grpc = grpc.aio.server(options=server_options(settings.max_message_bytes))
        self.port = self.metrics_port = 0
        self._health = _Health(("", *services))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        names = (*services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self.grpc)
        self._metrics: WSGIServer | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen, and report NOT_SERVING. Sets ``port`` and ``metrics_port``; raises OSError if one is taken."""
        settings = self.settings
        try:
            self.port = self.grpc.add_insecure_port(f"{settings.host}:{settings.port}")
        except RuntimeError:
            raise OSError(f"cannot listen on {settings.host}:{settings.port}: is the port taken?") from None
        try:
            self._metrics, _ = start_http_server(settings.metrics_port, settings.host, self.registry)
        except OSError as error:
            raise OSError(f"cannot listen on {settings.host}:{settings.metrics_port} for metrics: {error}") from None
        self.metrics_port = self._metrics.server_port
        await self.grpc.start()

    async def set_serving(self, serving: bool) -> None:
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
        await self.grpc.stop(self.settings.drain_s)
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
