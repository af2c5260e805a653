"""Processes of the speed measurement: instant workers, and proxies and frontends before them, each on its core."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from bench.cluster.local import HOST, LOGS, Child, Metrics, ProcessGroup, until_serving
from collage.channels import channel_options
from collage.model_info import ModelKind
from collage.v1 import model_pb2_grpc, predict_pb2_grpc

__all__ = ["Bench", "Child", "Metrics", "SpeedRig", "pin"]

WORKERS = 9
MLSERVER = Path(__file__).parent / "peers" / "instant_mlserver.py"
CORES = sorted(os.sched_getaffinity(0))


def spread(pid: int, cores: Iterable[int]) -> None:
    """Let a process with all its threads run on these cores only."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)


def pin(pid: int, core: int) -> None:
    """Keep a process with all its threads on one core, where there are two."""
    if len(CORES) > 1:
        spread(pid, {CORES[core]})


@dataclass(frozen=True)
class SpeedRig:
    """A bare proxy and a frontend before the same workers, two methods of the proxy, and the frontend's stub."""

    bare: Child
    ours: Child
    classify: Callable[..., Awaitable[object]]
    decoded: Callable[..., Awaitable[object]]
    stub: predict_pb2_grpc.PredictServiceAsyncStub


class Bench(ProcessGroup):
    """The processes: instant workers, proxies, frontends. ``folder`` takes the lists of addresses."""

    def __init__(self, folder: Path, logs: Path = LOGS) -> None:
        super().__init__(logs)
        self.folder = folder
        self._stack = AsyncExitStack()

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        await self.stop()

    async def channel(self, child: Child) -> grpc.aio.Channel:
        """A channel to a child; it is closed with the block."""
        channel = grpc.aio.insecure_channel(child.address, channel_options())
        return await self._stack.enter_async_context(channel)

    async def _launch(self, name: str, core: int, *command: str) -> Child:
        child = self.add(name, name, (sys.executable, "-m", *command))
        await child.start()
        pin(child.pid, core)
        return child

    async def workers(self, name: str, s_cnn: int, size: int, service_s: float = 0.0) -> list[str]:
        """Start ``s_cnn`` s-cnn workers and one collage worker, in one process; returns the addresses of the former."""
        folder = self.folder / name
        folder.mkdir()
        flags = ("--s-cnn", str(s_cnn), "--size", str(size), "--service-s", str(service_s), "--addresses", str(folder))
        await self._launch(f"workers-{name}", 1, "bench", "instant", "workers", *flags)
        return (folder / ModelKind.S_CNN).read_text().split()

    async def proxy(self, name: str, size: int) -> Child:
        """Start a bare proxy for the s-cnn workers of this name."""
        file = self.folder / name / ModelKind.S_CNN
        return await self._launch(
            f"proxy-{name}", 0, "bench", "instant", "proxy", "--workers", str(file), "--size", str(size)
        )

    async def frontend(self, name: str, s_cnn: Sequence[str], *flags: str, title: str = "") -> Child:
        """Start a frontend for these workers and the collage worker of this name; returns when all are ready.

        ``title`` tells it from another one for the same.
        """
        collage = self.folder / name / ModelKind.COLLAGE_CNN
        targets = ("--s-cnn-workers", ",".join(s_cnn), "--coded-workers", f"file://{collage}")
        settings = ("--host", HOST, "--policy", "adaptive", *targets, *flags)
        child = await self._launch(f"frontend-{title or name}-{len(s_cnn)}", 0, "frontend", *settings)
        await until_serving(child)
        async with asyncio.timeout(60):
            while (await child.metrics()).value("collage_workers", role="s_cnn", state="ready") < len(s_cnn):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        pin(child.pid, 0)  # the threads that have come since
        return child

    async def rig(self, name: str, size: int, service_s: float = 0.0) -> SpeedRig:
        """Start workers, a proxy and a frontend."""
        addresses = await self.workers(name, WORKERS, size, service_s)
        bare, ours = await self.proxy(name, size), await self.frontend(name, addresses)
        return SpeedRig(
            bare,
            ours,
            model_pb2_grpc.ModelServiceStub(await self.channel(bare)).Run,
            predict_pb2_grpc.PredictServiceStub(await self.channel(bare)).Predict,
            predict_pb2_grpc.PredictServiceStub(await self.channel(ours)),
        )

    async def mlserver(self, python: Path) -> Child:
        """MLServer with an instant model, by the Python of its environment."""
        child = self.add("mlserver", "mlserver", (str(python), str(MLSERVER)))
        await child.start()
        pin(child.pid, 0)
        return child
