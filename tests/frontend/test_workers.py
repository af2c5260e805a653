"""The worker pool on a virtual clock, over fake workers."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from collage.model_info import ModelInfo, ModelKind
from encoder.image import Pixels
from frontend.policy.ejection import Ejection
from frontend.workers import Pool, PoolSettings, Reply, WorkerFailure
from tests.frontend.fakes import COLLAGE, S_CNN, FakeCall, FakeTransport, Outputs, image, s_cnn_after

pytestmark = pytest.mark.looptime

Transports = dict[str, FakeTransport]


def transports(*models: ModelInfo, seconds: float = 1.0) -> Transports:
    return {f"w{i}": FakeTransport(model, s_cnn_after(seconds)) for i, model in enumerate(models)}


def fits(info: ModelInfo) -> str | None:
    return None if info.kind is ModelKind.S_CNN else f"it is a {info.kind}"


@asynccontextmanager
async def started(
    workers: Transports, ejection: Ejection | None = None, ejected: Callable[[], object] = lambda: None
) -> AsyncIterator[Pool]:
    settings = PoolSettings(ejection=ejection, seed=0)
    pool = Pool("s_cnn", ", ".join(workers), workers.__getitem__, settings, ejected=ejected)
    pool.fits = fits
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
            worker.call(image(1), "", 0, 5.0, ended=lambda _: None)
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
        call = worker.call(image(1), "", 0, 5.0, ended=lambda _: None)
        assert pool.balancer.outstanding("w0") == 1
        call.cancel()  # before it has begun
        await asyncio.sleep(0.1)
        assert pool.balancer.outstanding("w0") == 0


async def test_a_worker_of_the_wrong_kind_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with started(transports(S_CNN, COLLAGE)) as pool:
        assert (pool.ready, pool.info) == (1, S_CNN)
        assert "no requests for workers with c 1: it is a collage-cnn" in caplog.text


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
    pool = Pool("s_cnn", "w0", workers.__getitem__, changed=lambda: heard.append(pool.ready))
    pool.listeners.append(lambda: heard.append(10 * pool.ready))
    await pool.start()
    await asyncio.sleep(0.01)
    assert heard[-2:] == [1, 10]
    await pool.close()


def workers_of(pool: Pool) -> dict[str, bool]:
    return {address: worker.ready for address, worker in pool.workers.items()}


def update(pool: Pool, address: str, info: ModelInfo | None) -> None:
    """A worker stops serving (None), or begins to serve this model."""
    worker = pool.workers[address]
    worker.info, worker.serving = info or worker.info, info is not None
    pool.review()


async def test_a_rolling_update_converges_without_ever_mixing_versions(caplog: pytest.LogCaptureFixture) -> None:
    """One worker after the other: the old version serves while more workers have it, then all traffic moves at once."""
    caplog.set_level("INFO")
    newer = dataclasses.replace(S_CNN, version="2")
    async with started(transports(*[S_CNN] * 5)) as pool:
        ready = []
        for i in range(5):
            update(pool, f"w{i}", None)
            update(pool, f"w{i}", newer)
            used = [worker.info for worker in pool.workers.values() if worker.ready]
            assert used == [pool.info] * pool.ready
            assert pool.ready + pool.refused == 5
            ready.append((pool.ready, pool.info))
        assert ready == [(4, S_CNN), (3, S_CNN), (3, newer), (4, newer), (5, newer)]
        assert pool.refused == 0
        assert caplog.text.count("using s 2 of 3") == 1
        assert "no requests for workers with s 2: more workers serve s 1" in caplog.text
        assert "no requests for workers with s 1: more workers serve s 2" in caplog.text


async def test_a_tie_changes_nothing() -> None:
    newer = dataclasses.replace(S_CNN, version="2")
    async with started(transports(*[S_CNN] * 4)) as pool:
        update(pool, "w0", newer)
        update(pool, "w1", newer)
        assert (pool.info, pool.ready, pool.refused) == (S_CNN, 2, 2)
        update(pool, "w2", None)
        assert (pool.info, pool.ready, pool.refused) == (newer, 2, 1)


async def test_the_same_version_with_other_labels_is_another_model() -> None:
    relabelled = dataclasses.replace(S_CNN, labels=S_CNN.labels[::-1])
    async with started(transports(S_CNN, S_CNN, relabelled)) as pool:
        assert workers_of(pool) == {"w0": True, "w1": True, "w2": False}


@dataclasses.dataclass
class Starting(FakeTransport):
    """A worker that listens, and serves later."""

    warm: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    async def watch(self, changed: Callable[[bool], None]) -> None:
        changed(False)
        await self.warm.wait()
        await super().watch(changed)


async def test_a_worker_gets_traffic_only_when_it_serves() -> None:
    cold = Starting(S_CNN, s_cnn_after(1.0))
    async with started({"w0": cold}) as pool:
        assert (pool.ready, pool.pick()) == (0, None)
        cold.warm.set()
        await asyncio.sleep(0.01)
        assert pool.pick() is pool.workers["w0"]


async def test_workers_come_and_go_and_what_they_have_is_finished(tmp_path: Path) -> None:
    workers = transports(S_CNN, S_CNN, S_CNN)
    file = tmp_path / "workers"
    file.write_text("w0:1\nw1:1")
    pool = Pool("s_cnn", f"file://{file}", lambda address: workers[address[:2]], PoolSettings(0.5, seed=0))
    await pool.start()
    await poll(lambda: pool.ready == 2)
    leaving = pool.workers["w0:1"]
    call = asyncio.create_task(leaving.ask(image(1), "", 5.0))
    await asyncio.sleep(0)
    file.write_text("w1:1\nw2:1")
    await poll(lambda: workers_of(pool) == {"w1:1": True, "w2:1": True})
    assert not leaving.ready
    assert pool.pick(["w1:1", "w2:1"]) is None
    assert (await call).outputs[0].argmax() == 1
    await pool.close()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def poll(condition: Callable[[], bool]) -> None:
    """Files are read by real threads, for which virtual time does not wait: many short waits."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_worker_that_is_full_is_not_ejected_and_one_that_fails_is(caplog: pytest.LogCaptureFixture) -> None:
    codes = {"w0": "RESOURCE_EXHAUSTED", "w1": "INTERNAL"}

    def failing(code: str) -> FakeTransport:
        async def behave(call: FakeCall) -> Outputs:
            raise WorkerFailure(code, "no")

        return FakeTransport(S_CNN, behave)

    workers = {name: failing(code) for name, code in codes.items()} | {"w2": FakeTransport(S_CNN, s_cnn_after(0.1))}
    ejections: list[None] = []
    async with started(workers, Ejection(), lambda: ejections.append(None)) as pool:
        for name in codes:
            for _ in range(5):
                with pytest.raises(WorkerFailure):
                    await pool.workers[name].ask(image(1), "", 5.0)
        assert (pool.balancer.ejected, len(ejections)) == (1, 1)
        assert "s_cnn worker w1 is left out for a while: it fails" in caplog.text


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply((np.zeros(10, np.float32),), 0.5, 0.5), None),
        (Reply((np.zeros(10, np.float32),), 0.51, 0.51), None),  # by a clock that is a little faster
        (Reply((np.zeros(9, np.float32),), 0.0, 0.1), r"cannot be that of s: scores is float32 \[9\]"),
        (Reply((np.zeros(10, np.float32),) * 2, 0.0, 0.1), "there are 2 outputs instead of 1"),
        (Reply((np.zeros(10, np.float32),), -0.1, 0.1), r"it took 0.1 s after -0.1 s of waiting"),
        (Reply((np.zeros(10, np.float32),), 0.0, math.nan), "it took nan s"),
        (Reply((np.zeros(10, np.float32),), math.inf, 0.1), "after inf s of waiting"),
        (Reply((np.zeros(10, np.float32),), math.nan, 0.1), "after nan s of waiting"),
        (Reply((np.zeros(10, np.float32),), 0.0, 1e200), r"it took 1e\+200 s"),
        (Reply((np.zeros(10, np.float32),), 0.0, 1.03), r"it took 1.03 s .*, and was back after 1.000 s"),
        (Reply((np.zeros(10, np.float32),), 1.03, 0.0), r"it took 0.0 s after 1.03 s of waiting"),
        (Reply((np.zeros(10, np.float32),), 0.6, 0.6), r"it took 0.6 s after 0.6 s of waiting"),
        (Reply((np.full(10, math.nan, np.float32),), 0.0, 0.1), "a score is no number"),
    ],
)
async def test_an_answer_that_cannot_be_its_models_is_garbage(reply: Reply, told: str | None) -> None:
    class Said(FakeTransport):
        async def _run(self, image: Pixels, request_id: str, attempt: int) -> Reply:
            await asyncio.sleep(1.0)
            return reply

    async with started({"w0": Said(S_CNN, s_cnn_after(0.1))}) as pool:
        asked = pool.workers["w0"].ask(image(1), "", 5.0)
        if told is None:
            assert await asked is reply
        else:
            with pytest.raises(WorkerFailure, match=told) as caught:
                await asked
            assert caught.value.code == "GARBAGE"


async def test_a_worker_that_is_away_is_no_news() -> None:
    gone = Away(S_CNN, s_cnn_after(0.1))
    async with started({"w0": gone, "w1": FakeTransport(S_CNN, s_cnn_after(0.1))}) as pool:
        heard: list[int] = []
        pool.listeners.append(lambda: heard.append(pool.ready))
        await asyncio.sleep(10)
        assert gone.pings > 10
        assert heard == []


class Away(FakeTransport):
    """Nobody there."""

    pings = 0

    async def ping(self) -> ModelInfo:
        self.pings += 1
        raise WorkerFailure("UNAVAILABLE", "nobody there")
