"""Faults over real processes: workers and the frontend are killed, frozen and restarted under load."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.cluster.local import Child, Cluster
from collage.client import Client, ClientError, Prediction
from tests.onnx_models import COLOURS, save_collage_cnn, save_s_cnn, solid

SIZE = 8
TIMEOUT_S = 4.0
SERVICE_S = 0.12
EVERY_S = 0.25  # a group of four: about half of what four workers can do


@dataclass
class Load:
    """Groups of four requests at a steady pace, and how each of them ended."""

    client: Client
    sent: int = 0
    answers: list[Prediction] = field(default_factory=list)
    errors: list[ClientError] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    async def run(self, until: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as requests:
            for number in itertools.count():
                for member in range(4):
                    requests.create_task(self._ask(f"r{number}-{member}"))
                try:
                    async with asyncio.timeout(EVERY_S):
                        await until.wait()
                    return
                except TimeoutError:
                    continue

    async def _ask(self, request_id: str) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        colour = COLOURS[self.sent % 3]
        self.sent += 1
        try:
            answer = await self.client.predict(solid(colour, SIZE), request_id=request_id, timeout_s=TIMEOUT_S)
            assert answer.label == colour
            self.answers.append(answer)
        except ClientError as error:
            self.errors.append(error)
        self.waited.append(loop.time() - started)

    def sources(self) -> set[str]:
        return {answer.source for answer in self.answers}


@asynccontextmanager
async def cluster_under_load(tmp_path: Path) -> AsyncIterator[tuple[Cluster, Load]]:
    """Four s-cnn workers and a 2 x 2 collage worker; on exit every request sent must have ended well, and once."""
    s_cnn = save_s_cnn(tmp_path / "s.onnx", size=SIZE)
    collage = save_collage_cnn(tmp_path / "c.onnx", k=2, cell=SIZE)
    flags = ("--deadline-s", "0.3", "--group-wait-s", "0.05", "--extra-load", "1")
    cluster = Cluster(
        s_cnn,
        collage,
        s_cnn_workers=4,
        worker_flags=("--slowdown", f"fixed:{SERVICE_S}"),
        frontend_flags=flags,
        logs=tmp_path / "logs",
    )
    async with cluster, Client(cluster.frontend.address) as client:
        load = Load(client)
        stop = asyncio.Event()
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(load.run(stop))
            await served(load, 8)
            yield cluster, load
            stop.set()
            await running
        assert load.errors == []
        assert len(load.answers) == load.sent
        assert max(load.waited) < TIMEOUT_S + 0.5
        metrics = await cluster.frontend.metrics()
        assert metrics.value("collage_requests_total", code="OK") == load.sent
        assert metrics.value("collage_in_flight") == 0


async def served(load: Load, more: int) -> None:
    """Wait for that many further answers."""
    target = len(load.answers) + more
    async with asyncio.timeout(20):
        while len(load.answers) < target:
            await asyncio.sleep(0.02)


async def used(child: Child, more: int = 2) -> None:
    """Wait until a worker has served some further calls."""

    async def count() -> float:
        return (await child.metrics()).value("collage_worker_requests_total", outcome="ok")

    async with asyncio.timeout(20):
        target = await count() + more
        while await count() < target:
            await asyncio.sleep(0.05)


async def test_a_killed_s_cnn_worker(tmp_path: Path) -> None:
    async with cluster_under_load(tmp_path) as (cluster, load):
        await cluster.s_cnn[0].kill()
        await served(load, 16)
        await cluster.s_cnn[0].start()
        await used(cluster.s_cnn[0])


async def test_a_frozen_s_cnn_worker(tmp_path: Path) -> None:
    async with cluster_under_load(tmp_path) as (cluster, load):
        cluster.s_cnn[0].freeze()
        await served(load, 24)
        assert load.sources() & {"COLLAGE", "REPLICA"}  # somebody was rescued
        cluster.s_cnn[0].resume()
        await used(cluster.s_cnn[0])


async def test_a_killed_collage_worker(tmp_path: Path) -> None:
    async with cluster_under_load(tmp_path) as (cluster, load):
        await cluster.coded[0].kill()
        cluster.s_cnn[0].freeze()  # with stragglers: only replicas can help them
        await served(load, 16)
        assert "REPLICA" in load.sources()
        cluster.s_cnn[0].resume()
        await cluster.coded[0].start()
        await used(cluster.coded[0])


async def test_a_frozen_collage_worker(tmp_path: Path) -> None:
    async with cluster_under_load(tmp_path) as (cluster, load):
        cluster.coded[0].freeze()
        await served(load, 16)
        cluster.coded[0].resume()
        await used(cluster.coded[0])


async def test_all_s_cnn_workers_are_replaced_one_by_one(tmp_path: Path) -> None:
    async with cluster_under_load(tmp_path) as (cluster, _):
        for child in cluster.s_cnn:
            assert await child.stop() == 0  # drained: its calls in flight have finished
            await child.start()
            await used(child, 1)


@pytest.mark.parametrize("policy", ["none", "collage"])
async def test_sigterm_lets_requests_in_flight_finish(tmp_path: Path, policy: str) -> None:
    s_cnn = save_s_cnn(tmp_path / "s.onnx", size=SIZE)
    collage = save_collage_cnn(tmp_path / "c.onnx", k=2, cell=SIZE)
    cluster = Cluster(
        s_cnn,
        collage,
        s_cnn_workers=2,
        worker_flags=("--slowdown", "fixed:0.4"),
        frontend_flags=("--policy", policy, "--deadline-s", "2"),
        logs=tmp_path / "logs",
    )
    async with cluster, Client(cluster.frontend.address) as client:
        asked = [
            asyncio.create_task(client.predict(solid("green", SIZE), request_id=f"r{i}", timeout_s=5)) for i in range(6)
        ]
        async with asyncio.timeout(10):
            while (await cluster.frontend.metrics()).value("collage_in_flight") < 6:
                await asyncio.sleep(0.01)
        assert await cluster.frontend.stop() == 0
        assert [(await answer).label for answer in asked] == ["green"] * 6
        with pytest.raises(ClientError, match="UNAVAILABLE"):
            await client.predict(solid("green", SIZE), timeout_s=1)
