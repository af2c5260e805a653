"""The worker pool on a virtual clock, over fake workers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from collage.model_info import ModelInfo, ModelKind
from frontend.workers import Pool
from tests.frontend.fakes import COLLAGE, S_CNN, FakeTransport, image, s_cnn_after

pytestmark = pytest.mark.looptime

Transports = dict[str, FakeTransport[NDArray[np.float32]]]


def transports(*models: ModelInfo, seconds: float = 1.0) -> Transports:
    return {f"w{i}": FakeTransport(model, s_cnn_after(seconds)) for i, model in enumerate(models)}


@asynccontextmanager
async def started(workers: Transports) -> AsyncIterator[Pool[NDArray[np.float32]]]:
    pool = Pool(ModelKind.S_CNN, ", ".join(workers), workers.__getitem__, seed=0)
    await pool.start()
    await asyncio.sleep(0.01)
    yield pool
    await pool.close()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_the_least_loaded_worker_is_picked() -> None:
    async with started(transports(*[S_CNN] * 3)) as pool:
        picked = []
        for _ in range(6):
            worker = pool.pick()
            assert worker is not None
            worker.call(image(1), "", 0, 5.0)
            picked.append(worker.address)
        assert sorted(picked[:3]) == sorted(picked[3:]) == ["w0", "w1", "w2"]
        await asyncio.sleep(2)
        assert [pool.balancer.outstanding(f"w{i}") for i in range(3)] == [0, 0, 0]


async def test_avoided_workers_are_not_picked() -> None:
    async with started(transports(S_CNN, S_CNN)) as pool:
        for _ in range(20):
            worker = pool.pick(avoid=["w0"])
            assert worker is not None
            assert worker.address == "w1"
        assert pool.pick(avoid=["w0", "w1"]) is None


async def test_calls_count_as_outstanding_from_the_moment_they_are_made() -> None:
    async with started(transports(S_CNN)) as pool:
        worker = pool.workers["w0"]
        call = worker.call(image(1), "", 0, 5.0)
        assert pool.balancer.outstanding("w0") == 1
        call.cancel()  # before it has begun
        await asyncio.sleep(0.1)
        assert pool.balancer.outstanding("w0") == 0


async def test_a_worker_of_the_wrong_kind_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with started(transports(S_CNN, COLLAGE)) as pool:
        assert (pool.ready, pool.info) == (1, S_CNN)
        assert "is a collage-cnn, expected a s-cnn" in caplog.text


async def test_versions_are_not_mixed_and_a_new_one_takes_over_when_the_old_has_left() -> None:
    newer = dataclasses.replace(S_CNN, version="2")
    workers = transports(S_CNN, newer)
    async with started(workers) as pool:
        assert [worker.ready for worker in pool.workers.values()] == [True, False]
        pool.workers["w0"].serving = False
        pool.review()
        pool.review()
        assert [worker.ready for worker in pool.workers.values()] == [False, True]
        assert pool.info is newer


async def test_listeners_hear_of_every_change() -> None:
    heard: list[int] = []
    workers = transports(S_CNN)
    pool = Pool(ModelKind.S_CNN, "w0", workers.__getitem__)
    pool.listeners.append(lambda: heard.append(pool.ready))
    await pool.start()
    await asyncio.sleep(0.01)
    assert heard[-1] == 1
    await pool.close()
