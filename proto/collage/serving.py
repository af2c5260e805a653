"""Every server process: settings, reflection, metrics, draining."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, Counter, Info
from pydantic import Field, field_validator, model_validator

from collage import flags, logs
from collage.channels import MAX_MESSAGE_BYTES, join, server_options
from collage.flags import FlagSettings
from collage.health import Health
from collage.intake import MAX_HELD_BYTES, REASONS, SMALL_BYTES, Guarded, Intake
from collage.metrics_port import MetricsPort
from collage.security import ServerTls, TokenCheck, Tokens
from collage.texts import discard
from collage.traces import CallerTraces, Traces

logger = logging.getLogger("collage")

LULL_S = 2.0
"""Longest wait, when draining begins, for a moment without new calls."""


class ServerSettings(FlagSettings):
    """Settings of any process: command-line flags, or environment variables with the prefix ``COLLAGE_``."""

    sections: ClassVar[Mapping[str, str]] = {
        "host": "ports",
        "tls_cert": "security towards callers",
        "max_message_bytes": "limits and shutdown",
        "log_level": "logs",
    }

    host: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104 - pods listen on all interfaces
    port: int = Field(50051, ge=0, le=65535, description="gRPC port; 0 takes a free one")
    metrics_port: int = Field(9090, ge=0, le=65535, description="Prometheus port; 0 takes a free one")
    metrics_host: str = Field("", description="address of the metrics port, which is plain HTTP; empty: --host")
    health_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="second gRPC port: health only, no TLS, for probes such as the kubelet's",
    )
    tls_cert: Path | None = Field(None, description="certificate chain, PEM; turns on TLS; reread on change")
    tls_key: Path | None = Field(None, description="private key of --tls-cert, PEM")
    tls_client_ca: Path | None = Field(
        None, description="CA certificates, PEM; turns on mutual TLS: clients need a certificate signed by one of them"
    )
    token_file: Path | None = Field(
        None, description="file of bearer tokens, one per line; every call except health needs one; reread on change"
    )
    reflection: bool = Field(True, description="serve gRPC reflection, which lists the services and their messages")
    max_message_bytes: int = Field(MAX_MESSAGE_BYTES, ge=1024, description="largest gRPC message, either direction")
    traces: str = Field(
        "", description="where OpenTelemetry traces go, by OTLP/HTTP: http://HOST:4318/v1/traces; none if empty"
    )
    drain_delay_s: float = Field(0.0, ge=0, description="seconds from NOT_SERVING until new calls are refused")
    drain_s: float = Field(10.0, ge=0, description="seconds that calls in flight may take to finish on shutdown")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least severe message logged")
    log_format: Literal["text", "json"] = Field("text", description="text, or json: one object per line")

    @field_validator("host", "metrics_host")
    @classmethod
    def _without_brackets(cls, host: str) -> str:
        return host.removeprefix("[").removesuffix("]")

    @model_validator(mode="after")
    def _tls_is_complete(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("--tls-cert and --tls-key belong together: give both or neither")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("--tls-client-ca needs --tls-cert and --tls-key as well")
        return self


_Settings = TypeVar("_Settings", bound=ServerSettings)


def load_settings(settings: type[_Settings], arguments: Sequence[str] | None = None) -> _Settings:
    """Settings as ``flags.parse`` reads them, or raises SystemExit; starts logging as well."""
    loaded = flags.parse(settings, arguments)
    logs.start(loaded.log_level, loaded.log_format)
    return loaded


def new_server(
    options: Sequence[tuple[str, int]], interceptors: Sequence[Any] = (), intake: Intake | None = None
) -> grpc.aio.Server:
    """A gRPC server that looks methods up by their names, behind an ``intake`` if there is one.

    Generated code would also register each method with gRPC, which then keeps one waiting task per method and wakes
    them with every call.
    """
    connections = ("grpc.max_allowed_incoming_connections", max_connections())
    server = grpc.aio.server(interceptors=interceptors, options=[connections, *options])
    if intake is not None:
        guarded = Guarded(intake)
        server.add_generic_rpc_handlers((guarded,))
        server.add_generic_rpc_handlers = guarded.add  # type: ignore[method-assign,assignment]
    server.add_registered_method_handlers = lambda *_: None  # type: ignore[method-assign]
    return server


def max_connections() -> int:
    """How many connections a port accepts: half of the files that the process may open, at most 4,096."""
    return min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


class OtherPort(Protocol):
    """A port that serves what gRPC does, in another way; it is open while it is among a server's ``other_ports``."""

    name: str
    port: int

    async def stop(self, grace_s: float) -> None:
        """Refuse new requests; those in flight have ``grace_s`` seconds to finish."""


class Server:
    """A gRPC server with health, reflection and a metrics port. It reports NOT_SERVING until ``set_serving(True)``."""

    def __init__(
        self,
        settings: ServerSettings,
        registry: CollectorRegistry,
        services: Sequence[str],
        options: Sequence[tuple[str, int]] = (),
        held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        """``services`` are the full names of the services that the caller adds to ``grpc``; ``options`` go to gRPC.

        ``held_bytes`` is what the process may hold more than now, before calls with unfinished messages are ended.
        Raises SecurityError for certificates, keys or tokens that cannot be used.
        """
        self.settings = settings
        self.registry = registry
        self.draining = asyncio.Event()  # set when new calls are refused; open streams must end then
        self.tokens = Tokens(settings.token_file) if settings.token_file else None
        interceptors: list[Any] = [TokenCheck(self.tokens)] if self.tokens else []
        self.traces = Traces(services[0], settings.traces) if settings.traces else None
        if self.traces:
            interceptors.append(CallerTraces())
        refused = Counter(
            "collage_calls_refused_total", "Calls and messages refused unread, by reason", ["reason"], registry=registry
        )
        Info("collage_build", "The release that runs", registry=registry).info({"version": flags.version()})
        children = {reason: refused.labels(reason) for reason in REASONS}
        self.intake = Intake(self.draining, lambda reason: children[reason].inc(), limit=held_bytes)
        self.grpc = new_server([*server_options(settings.max_message_bytes), *options], interceptors, self.intake)
        self._credentials: grpc.ServerCredentials | None = None
        if settings.tls_cert and settings.tls_key:
            self._credentials = ServerTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca).credentials()
        self.port = self.metrics_port = 0
        self.health_port: int | None = None
        self._health = Health(("", *services))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        self._probes: grpc.aio.Server | None = None
        if settings.health_port is not None:
            self._probes = new_server(server_options(SMALL_BYTES), (), self.intake)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._probes)
        if settings.reflection:
            names = (*services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self.grpc)
        registry.register(logs.DroppedLines())
        self._metrics = MetricsPort(registry)
        self.other_ports: list[OtherPort] = []
        self._stopping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen, and report NOT_SERVING. Sets ``port`` and ``metrics_port``; raises OSError if a port is taken."""
        settings = self.settings
        self.port = _listen(self.grpc, settings.host, settings.port, self._credentials)
        metrics_host = settings.metrics_host or settings.host
        try:
            self.metrics_port = await self._metrics.start(metrics_host, settings.metrics_port)
        except OSError as error:
            address = join(metrics_host, settings.metrics_port)
            raise OSError(f"cannot listen on {address} for metrics: {error}") from None
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
        """Report NOT_SERVING, refuse new calls, let the calls in flight finish. Idempotent; returns when drained."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._drain())
        await asyncio.shield(self._stopping)

    async def _drain(self) -> None:
        self._health.set(False, closed=True)
        await asyncio.sleep(self.settings.drain_delay_s)
        self.draining.set()
        # When gRPC stops it drops the calls that it has not handed over yet: there should be none.
        await self.intake.lull(min(LULL_S, self.settings.drain_s))
        ports: list[Any] = [self.grpc, *self.other_ports]
        stopping = [asyncio.create_task(port.stop(self.settings.drain_s)) for port in ports]
        await asyncio.sleep(0.01)
        self.intake.stopped()
        await asyncio.gather(*stopping)
        if self._probes:
            await self._probes.stop(None)
        await self._metrics.close()
        if self.traces:
            await asyncio.to_thread(self.traces.close)

    async def run_until_signal(self) -> None:
        """Announce the ports on standard output, serve until SIGTERM or SIGINT, then drain."""
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked.set)
        others = "".join(f" {port.name}_port={port.port}" for port in self.other_ports)
        _announce(f"ready port={self.port} metrics_port={self.metrics_port}{others}")
        await asked.wait()
        await self.stop()


def _announce(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError as error:  # nobody has to read it
        logger.warning("standard output cannot be written to: %s", error)
        discard(sys.stdout)


def _listen(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
    address = join(host, port)
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        raise OSError(f"cannot listen on {address}: is the port taken?") from None
