"""Workers in this process, with tiny models, on free ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from collage.channels import channel_options
from collage.tensors import to_tensor
from collage.v1 import model_pb2, model_pb2_grpc
from tests import onnx_models
from worker.config import WorkerSettings
from worker.model import ServedModel
from worker.server import WorkerProcess

BOUND_S = 20.0
"""Longest that a test waits for anything; a failsafe, not a measurement."""


async def until(condition: Callable[[], object]) -> None:
    """Poll until the condition holds."""
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.005)


@dataclass
class WorkerClient:
    """A worker in this process and a channel to it."""

    worker: WorkerProcess
    registry: CollectorRegistry

    @cached_property
    def channel(self) -> grpc.aio.Channel:
        """To be used once the server listens."""
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.worker.server.port}", options=channel_options())

    async def close(self) -> None:
        if "channel" in self.__dict__:
            await self.channel.close()
        await self.worker.stop()

    def ask(
        self, image: NDArray[Any] | None = None, request_id: str = "r", timeout: float = BOUND_S, attempt: int = 0
    ) -> grpc.aio.UnaryUnaryCall[model_pb2.RunRequest, model_pb2.RunResponse]:
        size = self.worker.engine.model.info.size
        tensor = to_tensor(np.zeros((size, size, 3), np.uint8) if image is None else image)
        request = model_pb2.RunRequest(input=tensor, request_id=request_id, attempt=attempt)
        return model_pb2_grpc.ModelServiceStub(self.channel).Run(request, timeout=timeout)

    def metric(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(f"collage_worker_{name}", labels)
        assert value is not None, f"no metric {name} {labels}"
        return value

    def count(self, outcome: str) -> float:
        return self.metric("requests_total", outcome=outcome)

    @property
    def started(self) -> float:
        """How many calls have begun their inference."""
        return self.metric("queue_seconds_count")

    @property
    def waiting(self) -> float:
        return self.metric("queue_length")


Launch = Callable[..., Coroutine[Any, Any, WorkerClient]]


@pytest.fixture
async def launch() -> AsyncIterator[Launch]:
    """``await launch(model, **settings)`` makes a worker; ``start=False`` leaves starting it to the test."""
    async with AsyncExitStack() as stack:

        async def make(model: Path, *, start: bool = True, **settings: Any) -> WorkerClient:
            defaults = {"host": "127.0.0.1", "port": 0, "metrics_port": 0, "drain_s": 0.0, "model": model}
            registry = CollectorRegistry()
            client = WorkerClient(WorkerProcess(WorkerSettings(**{**defaults, **settings}), registry), registry)
            stack.push_async_callback(client.close)
            if start:
                await client.worker.start()
            return client

        yield make


@pytest.fixture
def s_cnn(tmp_path: Path) -> Path:
    """An instant s-cnn."""
    return onnx_models.save_s_cnn(tmp_path / "colours.onnx")


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """An s-cnn whose inference would take many minutes."""
    return onnx_models.save_s_cnn(tmp_path / "endless.onnx", loops=onnx_models.ENDLESS)


Load = Callable[[Path], ServedModel]


@pytest.fixture
async def load() -> AsyncIterator[Load]:
    models = []

    def loaded(path: Path) -> ServedModel:
        models.append(ServedModel(path))
        return models[-1]

    yield loaded
    for model in models:
        model.close()
        model.close()
