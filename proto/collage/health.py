"""Whether a process serves, for probes and for clients that choose between servers: grpc.health.v1."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from collage.texts import cut

LIVENESS = "liveness"
"""The name to ask whether a process lives. A frontend without workers is not ready, but a restart would not help it."""
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """The servicer of grpc.health.v1. Its Watch streams end when the process drains, which grpcio's do not."""

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
        """Change the status of every service. A call with ``closed`` is the last that changes anything."""
        if not self._closed:
            self._status = _SERVING if serving else _NOT_SERVING
            self._closed = closed
            self._changed.set()
            self._changed = asyncio.Event()

    def _of(self, service: str) -> int:
        if service == LIVENESS:
            return int(_SERVING)
        return int(self._status if service in self._services else _UNKNOWN)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        """The status of one service; NOT_FOUND for a service that is not here."""
        if (status := self._of(request.service)) == _UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {cut(request.service, 100)!r} here")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: health_pb2.HealthListRequest, context: Any) -> health_pb2.HealthListResponse:
        """The status of every service here."""
        names = (*self._services, LIVENESS)
        statuses = {name: health_pb2.HealthCheckResponse(status=self._of(name)) for name in names}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """The status of one service now, and after every change, until the process drains."""
        sent, closed = None, False
        while not closed:
            changed, closed = self._changed, self._closed
            status = self._of(request.service)
            if status != sent:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                sent = status
            if not closed:
                await changed.wait()
