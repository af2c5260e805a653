"""Fleets of another make, as real processes: Triton or MLServer servers, and frontends in front of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bench.cluster.local import HOST, LOGS, S_CNN, ZOO, Child, Metrics, ProcessError, ProcessGroup, until_serving
from models import description

__all__ = ["COLLAGE", "S_CNN", "Child", "Make", "Metrics", "ProcessError", "ServerFleet"]

COLLAGE = ZOO / "fashion-mnist-collage-2x2.onnx"
PEERS = Path(__file__).with_name("peers")
READY_WITHIN_S = 60.0


class Make(NamedTuple):
    """A make of servers, and the Python of the environment that has it."""

    name: str
    python: Path


class ServerFleet(ProcessGroup):
    """Servers of one make with an s-cnn each, and one with its collage-cnn.

    They listen once the ``async with`` block is entered; no process is left after it. A run of a model takes
    ``least_s`` seconds at least. ``folder`` takes the models' descriptions.
    """

    def __init__(
        self,
        make: Make,
        folder: Path,
        s_cnn: Path = S_CNN,
        collage: Path = COLLAGE,
        *,
        servers: int = 4,
        least_s: float = 0.0,
        logs: Path = LOGS,
    ) -> None:
        super().__init__(logs)
        self.make, self._folder = make, folder
        command = [str(make.python), str(PEERS / f"serve_{make.name}.py"), "--least-s", str(least_s)]
        described = self._described(s_cnn), self._described(collage)
        self.info = description.of_file(s_cnn)
        self.s_cnn_description, self.collage_description = described
        self.servers = [
            self.add("s-cnn", f"{make.name}-{i}", [*command, "--onnx", str(s_cnn), "--name", s_cnn.stem])
            for i in range(servers)
        ]
        self.collage = self.add(
            "collage-cnn", f"{make.name}-collage", [*command, "--onnx", str(collage), "--name", collage.stem]
        )

    async def begin(self) -> None:
        """Start the servers."""
        await self.start(self.children)

    def _described(self, model: Path) -> Path:
        """A file that describes the model, as ``python -m models.description`` prints it."""
        info = replace(description.of_file(model), name=model.stem, version="", extra={})
        file = self._folder / f"{model.stem}.json"
        file.write_text(info.to_json())
        return file

    async def frontend(self, name: str, *flags: str) -> Child:
        """A frontend in front of them, which has found all of them ready."""
        settings = (
            *("--s-cnn-workers", ",".join(server.address for server in self.servers)),
            *("--s-cnn-description", str(self.s_cnn_description)),
            *("--coded-workers", self.collage.address),
            *("--coded-descriptions", str(self.collage_description)),
        )
        child = self.add("frontend", name, [sys.executable, "-m", "frontend", "--host", HOST, *settings, *flags])
        await child.start()
        await until_serving(child)
        return child

    async def until_ready(self, frontends: Sequence[Child], within_s: float = READY_WITHIN_S) -> None:
        """Wait until these frontends use all s-cnn servers; ProcessError if they do not in time."""
        try:
            async with asyncio.timeout(within_s):
                for child in frontends:
                    while (await child.metrics()).value("collage_workers", role="s_cnn", state="ready") < len(  # noqa: ASYNC110
                        self.servers
                    ):
                        await asyncio.sleep(0.1)
        except TimeoutError:
            raise ProcessError(f"not all servers are ready after {within_s:.0f} s: see {self.logs}") from None
