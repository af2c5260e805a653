"""OpenTelemetry traces, off by default. Only ``Traces`` needs OpenTelemetry's packages, the extra ``traces``."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio

from collage.errors import ServiceError

HEADER = "traceparent"
"""Where a caller tells its W3C trace context: a header field, or metadata."""
incoming: ContextVar[str] = ContextVar("incoming", default="")
"""The trace context of the caller that is served."""
outgoing: ContextVar[str] = ContextVar("outgoing", default="")
"""The trace context that calls to workers carry."""
_EXPORT_S = 2
_AttributeValue = str | bool | int | float


class TracesMissing(OSError):
    """Traces are asked for, and OpenTelemetry's packages are not installed."""


class Span:
    """What happened to one request, or one call of a worker. Times are of the event loop, in seconds."""

    def __init__(self, span: Any, context: str, epoch_ns: int) -> None:
        self._span, self._epoch_ns = span, epoch_ns
        self.context = context
        """Its W3C trace context, for those who serve a part of it."""

    def event(self, name: str, at: float, **attributes: _AttributeValue) -> None:
        """Note that something happened."""
        self._span.add_event(name, attributes, self._epoch_ns + int(1e9 * at))

    def tell(self, **attributes: _AttributeValue) -> None:
        """Note what is known of it as a whole."""
        self._span.set_attributes(attributes)

    @contextmanager
    def during(self, cancelled: str) -> Iterator[None]:
        """It ends with this block, and has failed if the block did; ``cancelled`` says why it would be cancelled."""
        try:
            yield
        except ServiceError as error:
            self._fail(error.code.name, str(error))
            raise
        except asyncio.CancelledError:
            self._fail("CANCELLED", cancelled)
            raise
        finally:
            self._span.end()

    def _fail(self, code: str, text: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_status(Status(StatusCode.ERROR, f"{code}: {text}"))


class Traces:
    """Sends spans to an OTLP/HTTP ``endpoint``, such as http://collector:4318/v1/traces, from a thread.

    OpenTelemetry's own variables count as well: OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG choose the share of
    requests that are traced, OTEL_SERVICE_NAME names the process instead of ``service``.
    """

    def __init__(self, service: str, endpoint: str) -> None:
        """Raises TracesMissing."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            told = f"--traces needs the package {error.name}: install the extra traces (pip install '.[traces]')"
            raise TracesMissing(told) from None
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
        self._provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=_EXPORT_S)))
        self._tracer = self._provider.get_tracer("collage")
        self._propagator = TraceContextTextMapPropagator()
        self._epoch_ns = time.time_ns() - int(1e9 * asyncio.get_running_loop().time())

    def begin(self, name: str, at: float, parent: str = "") -> Span:
        """Begin a span at a time of the event loop; ``parent`` is a W3C trace context, or empty."""
        from opentelemetry.trace import SpanKind

        context = self._propagator.extract({HEADER: parent}) if parent else None
        start = self._epoch_ns + int(1e9 * at)
        span = self._tracer.start_span(name, context, SpanKind.SERVER, start_time=start)
        told = span.get_span_context()
        context_text = f"00-{told.trace_id:032x}-{told.span_id:016x}-{int(told.trace_flags):02x}"
        return Span(span, context_text, self._epoch_ns)

    def close(self) -> None:
        """Send what is left; takes seconds if the endpoint does not answer."""
        self._provider.shutdown()


class CallerTraces(grpc.aio.ServerInterceptor):
    """Keeps the trace context of every gRPC call for those who serve it."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Look at the call's metadata."""
        found = (value for name, value in handler_call_details.invocation_metadata or () if name == HEADER)
        told = next(found, "")
        incoming.set(told if isinstance(told, str) else "")
        return await continuation(handler_call_details)
