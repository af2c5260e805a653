"""The dispatcher on a virtual clock, over fake workers: admission, images, models that change."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from collage.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted
from collage.model_info import ModelInfo, ModelKind
from encoder.code import Source
from frontend.jobs import Outcome
from frontend.workers import WorkerFailure
from tests.frontend.dispatch_rig import one_by_one, rig, straggling
from tests.frontend.fakes import (
    LABELS,
    S_CNN,
    FakeCall,
    FakeTransport,
    InlineExecutor,
    Outputs,
    collage_after,
    image,
    s_cnn_after,
)

pytestmark = pytest.mark.looptime


async def test_admission_is_bounded() -> None:
    async with rig("none", [s_cnn_after(0.1)], max_in_flight=3) as cluster:
        results = await asyncio.gather(*(cluster.ask(1) for _ in range(5)), return_exceptions=True)
        assert [type(result) for result in results] == [Outcome] * 3 + [ResourceExhausted] * 2
        assert (await cluster.ask(1)).answered.source == Source.S_CNN
        assert cluster.metric("collage_in_flight") == 0


async def test_what_cannot_be_in_time_is_refused_at_once_and_told_when_to_come_again() -> None:
    async with rig("none", [one_by_one(0.1), one_by_one(0.1)]) as cluster:
        loop = asyncio.get_running_loop()
        await asyncio.gather(cluster.ask(1), cluster.ask(1))
        started = loop.time()
        asked = [asyncio.create_task(cluster.ask(1, timeout_s=0.5)) for _ in range(20)]
        refused = []
        for task in asked:
            try:
                await task
            except ResourceExhausted as error:
                refused.append(error)
        assert len(refused) == 20 - 2 * 4  # four in a row take .4 s, five would take .5
        assert loop.time() - started == pytest.approx(0.4)
        assert [error.retry_after_s for error in refused] == pytest.approx([0.1] * 12)
        assert "too long for an answer within 0.5 s: try again later" in str(refused[0])
        assert cluster.metric("collage_refused_total", reason="deadline") == 12
        assert cluster.metric("collage_requests_total", code="RESOURCE_EXHAUSTED") == 12
        assert cluster.metric("collage_requests_total", code="OK") == 2 + 8


async def test_full_workers_mean_try_again_later() -> None:
    async def full(call: FakeCall) -> Outputs:
        raise WorkerFailure("RESOURCE_EXHAUSTED", "16 calls are waiting here already")

    async with rig("replicate", [full, full]) as cluster:
        with pytest.raises(ResourceExhausted, match="try again") as caught:
            await cluster.ask(1)
        assert caught.value.retry_after_s is not None


async def test_the_default_answers_when_time_runs_out() -> None:
    async with rig("none", [s_cnn_after(9.0)], default_label="d") as cluster:
        outcome = await cluster.ask(1, timeout_s=1.0)
        assert (outcome.answered.source, int(outcome.answer.argmax()), outcome.degraded) == (Source.DEFAULT, 3, True)
        assert outcome.total_s == pytest.approx(0.98)
        assert cluster.metric("collage_answers_total", source="default") == 1
    async with rig("none", [s_cnn_after(9.0)], default_label="no such label") as cluster:
        with pytest.raises(DeadlineExceeded):
            await cluster.ask(1, timeout_s=1.0)


async def test_the_default_is_the_first_of_two_classes_of_one_name() -> None:
    twice = dataclasses.replace(S_CNN, labels=("a", "b", "c", "crane", "e", "crane", "g", "h", "i", "j"))
    async with rig("none", [s_cnn_after(9.0)], default_label="crane", s_cnn_model=twice) as cluster:
        outcome = await cluster.ask(1, timeout_s=1.0)
        assert (outcome.answered.source, int(outcome.answer.argmax())) == (Source.DEFAULT, 3)
        assert outcome.answer.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]


async def test_a_bad_image_is_the_callers_fault() -> None:
    def bad(size: int) -> Any:
        raise ValueError("not an image")

    async with rig("collage", [s_cnn_after(0.1)], collage_after(0.05)) as cluster:
        with pytest.raises(InvalidArgument, match="not an image"):
            await cluster.dispatcher.predict(bad, "", 5.0)
        assert cluster.metric("collage_in_flight") == 0


async def test_the_callers_time_is_over_while_the_image_is_still_being_prepared() -> None:
    with ThreadPoolExecutor(1) as executor:
        async with rig("none", [s_cnn_after(0.1)], executor=executor, default_label="d") as cluster:
            go = threading.Event()
            held = executor.submit(go.wait)
            outcome = await cluster.ask(1, timeout_s=1.0)
            assert (outcome.answered.source, outcome.total_s) == (Source.DEFAULT, pytest.approx(0.98))
            go.set()
            held.result()
            assert cluster.workers[0].calls == []
    with ThreadPoolExecutor(1) as executor:
        async with rig("none", [s_cnn_after(0.1)], executor=executor) as cluster:
            go = threading.Event()
            held = executor.submit(go.wait)
            both = await asyncio.gather(*(cluster.ask(1, timeout_s=1.0) for _ in range(2)), return_exceptions=True)
            assert [type(error) for error in both] == [DeadlineExceeded] * 2
            waiting = asyncio.create_task(cluster.ask(1, timeout_s=5.0))
            await asyncio.sleep(0)
            with pytest.raises(ResourceExhausted, match="too long for an answer within"):
                await cluster.ask(1, timeout_s=0.5)  # what took so long is known, though it never ended
            waiting.cancel()
            go.set()
            held.result()
            assert cluster.workers[0].calls == []


async def test_what_requests_in_flight_hold_is_bounded_but_one_is_always_admitted() -> None:
    async with rig("none", [s_cnn_after(1.0)] * 4, max_bytes=100) as cluster:
        predict = cluster.dispatcher.predict
        large = asyncio.create_task(predict(lambda size: image(1), "", 5.0, size=150))
        await asyncio.sleep(0.1)
        with pytest.raises(ResourceExhausted, match="150 bytes"):
            await predict(lambda size: image(1), "", 5.0, size=1)
        assert cluster.metric("collage_refused_total", reason="bytes") == 1
        await large
        outcomes = await asyncio.gather(*(predict(lambda size: image(1), "", 5.0, size=50) for _ in range(2)))
        assert [outcome.answered.source for outcome in outcomes] == [Source.S_CNN] * 2


@pytest.mark.parametrize(("collage_size", "threads"), [(16, 0), (8, 1)], ids=["copied", "reduced"])
async def test_collages_that_take_more_than_copying_are_made_in_a_thread(collage_size: int, threads: int) -> None:
    model, executor = ModelInfo.collage("c", LABELS, collage_size, 2, version="1"), InlineExecutor()
    async with rig(
        "collage", [s_cnn_after(3.0)] * 4, collage_after(0.05), collage_model=model, encoder=executor
    ) as cluster:
        ask = functools.partial(cluster.dispatcher.predict, timeout_s=5.0, quick=True)
        outcomes = await asyncio.gather(*(ask(lambda size, label=label: image(label), "") for label in range(4)))
        told = [(outcome.answered.source, int(outcome.answer.argmax())) for outcome in outcomes]
        assert told == [(Source.COLLAGE, label) for label in range(4)]
        assert executor.submitted == threads
        assert cluster.collage.calls[0].image.shape[0] == collage_size


async def test_a_model_of_another_size_that_comes_into_use_meanwhile_gets_images_of_its_size() -> None:
    larger = ModelInfo.make("s", ModelKind.S_CNN, LABELS, 16, version="2")
    async with rig("replicate", [s_cnn_after(1.0)], extra_load=1.0) as cluster:
        pool = cluster.dispatcher.base

        def switch(size: int) -> Any:
            if size == 8:
                pool.workers["s0"].info = larger
                pool.review()
            return np.full((size, size, 3), 80, np.uint8)

        early = asyncio.create_task(cluster.ask(1))  # prepared for the old model
        await asyncio.sleep(0.1)
        assert (await cluster.dispatcher.predict(switch, "", 5.0)).answered.model is larger
        assert [call.image.shape[0] for call in cluster.workers[0].calls] == [8, 16], "the replica had no worker"
        assert (await early).answered.source is Source.S_CNN


async def test_a_caller_who_hangs_up_stops_the_work() -> None:
    async with rig("collage", [s_cnn_after(3.0)] * 4, collage_after(1.0)) as cluster:
        tasks = [asyncio.create_task(cluster.ask(label, f"r{label}")) for label in range(4)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 4
        await asyncio.sleep(0.1)
        assert sorted(name for worker in cluster.workers for name in worker.cancelled) == ["r0", "r1", "r2", "r3"]
        assert cluster.collage.cancelled == ["collage:r0"]
        assert cluster.metric("collage_requests_total", code="CANCELLED") == 4


async def test_a_frozen_worker_does_not_look_idle() -> None:
    """Cancelled calls stay outstanding until the worker acknowledges, or it would attract all traffic."""
    frozen = s_cnn_after(100.0)
    async with rig("replicate", [frozen, s_cnn_after(0.01)], extra_load=1.0) as cluster:
        cluster.workers[0].frozen = True
        for _ in range(20):
            await cluster.ask(1)
        assert len(cluster.workers[0].calls) <= 2
        cluster.workers[0].thawed.set()
        await asyncio.sleep(0.2)
        assert [cluster.dispatcher.base.balancer.outstanding(f"s{i}") for i in range(2)] == [0, 0]


async def test_a_partial_group_shows_empty_cells_as_black() -> None:
    async with rig("collage", [straggling("r0", "r1")] * 4, collage_after(0.02)) as cluster:
        outcomes = await asyncio.gather(cluster.ask(0, "r0"), cluster.ask(1, "r1"))
        assert [outcome.answered.source for outcome in outcomes] == [Source.COLLAGE] * 2
        collage = cluster.collage.calls[0].image
        assert not collage[8:].any()
        assert cluster.metric("collage_group_fill_ratio_sum") == 0.5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"labels": S_CNN.labels[::-1]}, "its labels are not those of the s-cnn s 1"),
        ({"k": 1, "size": 8}, "its grid is 1 x 1: a collage has at least 2 x 2 cells"),
        ({"size": 18}, "2 x 2 cells in 18 pixels do not go with the s-cnn s 1 of 8 pixels"),
        ({"k": 3, "size": 2}, "3 x 3 cells in 2 pixels do not go with"),
    ],
)
async def test_a_collage_cnn_that_does_not_go_with_the_s_cnn_is_not_used(
    changes: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    told_model = {"labels": LABELS, "size": 16, "k": 2, **changes}
    odd = FakeTransport(ModelInfo.collage("odd", version="1", **told_model), collage_after(0.05))
    async with rig("collage", [straggling("r1")] * 5, collage_after(0.05), more_collage={"c1": odd}) as cluster:
        assert [outcome.answered.source for outcome in await cluster.group()][1] == Source.COLLAGE
        assert odd.calls == []
        assert (cluster.coded.ready, cluster.coded.refused) == (1, 1)
        assert f"no requests for workers with odd 1: {told}" in caplog.text


async def test_a_grid_that_was_not_asked_for_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    async with rig("collage-only", [s_cnn_after(0.1)] * 4, collage_after(0.05), k=3) as cluster:
        assert (cluster.coded.ready, cluster.coded.refused) == (0, 1)
        assert "its grid is 2 x 2, and this frontend is set to 3 x 3" in caplog.text


async def test_an_answer_names_the_model_that_gave_it_though_another_one_is_in_use_by_then() -> None:
    newer = dataclasses.replace(S_CNN, version="2")
    async with rig("none", [s_cnn_after(1.0)]) as cluster:
        asked = asyncio.create_task(cluster.ask(3))
        await asyncio.sleep(0.5)
        pool = cluster.dispatcher.base
        pool.workers["s0"].info = newer
        pool.review()
        assert pool.info is newer
        assert (await asked).answered.model is S_CNN
