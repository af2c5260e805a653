"""The dispatcher on a virtual clock, over fake workers."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from collage.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable
from collage.model_info import ModelInfo, ModelKind
from encoder.code import Source
from frontend.coding import CodingSettings, base_misfit, misfit
from frontend.dispatch import Dispatcher, DispatchSettings
from frontend.jobs import Outcome
from frontend.metrics import FrontendMetrics
from frontend.policy.ejection import Ejection
from frontend.policy.machine import Policy
from frontend.policy.rules import Rules
from frontend.workers import Pool, WorkerFailure
from tests.frontend.fakes import (
    COLLAGE,
    LABELS,
    S_CNN,
    FakeCall,
    FakeTransport,
    InlineExecutor,
    Outputs,
    classify,
    collage_after,
    image,
    pool,
    s_cnn_after,
)

pytestmark = pytest.mark.looptime

Behaviour = Callable[[FakeCall], Awaitable[Outputs]]


@dataclass
class Rig:
    dispatcher: Dispatcher
    workers: list[FakeTransport]
    collage: FakeTransport
    coded: Pool
    registry: CollectorRegistry

    async def ask(self, label: int, request_id: str = "", timeout_s: float = 5.0) -> Outcome:
        return await self.dispatcher.predict(lambda size: image(label), request_id, timeout_s)

    async def group(self, timeout_s: float = 5.0) -> list[Outcome]:
        """Four requests at once: one full group of the 2 x 2 fake collage."""
        return list(await asyncio.gather(*(self.ask(label, f"r{label}", timeout_s) for label in range(4))))

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def rig(
    policy: str,
    s_cnn: list[Behaviour],
    collage: Callable[[FakeCall], Awaitable[Outputs]] | None = None,
    max_in_flight: int = 100,
    default_label: str = "",
    more_collage: dict[str, FakeTransport] | None = None,
    executor: Executor | None = None,
    encoder: Executor | None = None,
    max_bytes: int = 1000,
    k: int | None = None,
    collage_model: ModelInfo = COLLAGE,
    **limits: float,
) -> AsyncIterator[Rig]:
    registry = CollectorRegistry()
    workers = [FakeTransport(S_CNN, behaviour) for behaviour in s_cnn]
    redundant = FakeTransport(collage_model, collage or collage_after(0.05))
    coding = CodingSettings(grid=k)
    base = await pool("s_cnn", {f"s{i}": worker for i, worker in enumerate(workers)}, base_misfit)
    redundants = {"c0": redundant, **(more_collage or {})} if collage else {}
    coded = await pool("coded", redundants, lambda info: misfit(info, base.info, 0, coding))
    rules = Rules.named(policy, **{"deadline": 0.2, "group_wait": 0.05, **limits})
    dispatcher = Dispatcher(
        Policy(rules),
        base,
        [coded] if collage else [],
        FrontendMetrics(registry),
        executor or InlineExecutor(),
        encoder or InlineExecutor(),
        DispatchSettings(max_in_flight, max_bytes, default_label, coding),
    )
    await base.start()
    await coded.start()
    await asyncio.sleep(0.01)
    yield Rig(dispatcher, workers, redundant, coded, registry)
    assert dispatcher.policy.open_requests == 0
    await dispatcher.close()
    await base.close()
    await coded.close()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


def straggling(*stragglers: str, fast: float = 0.1, slow: float = 3.0) -> Behaviour:
    return s_cnn_after(lambda call: slow if call.request_id in stragglers and call.attempt == 0 else fast)


def one_by_one(seconds: float) -> Behaviour:
    """An s-cnn with one slot."""
    slot = asyncio.Lock()

    async def behave(call: FakeCall) -> Outputs:
        async with slot:
            await asyncio.sleep(seconds)
        return classify(call.image)

    return behave


async def test_without_stragglers_every_answer_is_the_s_cnns() -> None:
    async with rig("collage", [s_cnn_after(0.1)] * 4, collage_after(0.05)) as cluster:
        outcomes = await cluster.group()
        assert [outcome.answered.source for outcome in outcomes] == [Source.S_CNN] * 4
        assert [int(outcome.answer.argmax()) for outcome in outcomes] == [0, 1, 2, 3]
        assert sum(outcomes[0].answer) == pytest.approx(1.0)
        assert [outcome.total_s for outcome in outcomes] == pytest.approx([0.1] * 4)
        assert [len(worker.calls) for worker in cluster.workers] == [1] * 4  # members prefer different workers
        assert cluster.metric("collage_sent_total", attempt="coded") == 1
        assert cluster.metric("collage_sent_total", attempt="replica") == 0


async def test_stragglers_are_answered_from_the_collage_at_the_deadline_and_cancelled() -> None:
    async with rig("collage", [straggling("r1", "r2")] * 4, collage_after(0.05)) as cluster:
        outcomes = await cluster.group()
        assert [o.answered.source for o in outcomes] == [Source.S_CNN, Source.COLLAGE, Source.COLLAGE, Source.S_CNN]
        assert [int(o.answer.argmax()) for o in outcomes] == [0, 1, 2, 3]
        assert outcomes[1].total_s == pytest.approx(0.2)
        assert outcomes[1].answered.confidence == pytest.approx(0.9)
        assert (outcomes[1].group_id, outcomes[1].place) == (outcomes[2].group_id, 1)
        assert outcomes[1].answered.model is COLLAGE
        await asyncio.sleep(0.1)
        assert sorted(name for worker in cluster.workers for name in worker.cancelled) == ["r1", "r2"]
        assert cluster.collage.calls[0].request_id == "collage:r0"
        assert cluster.metric("collage_stragglers_total") == 2
        assert cluster.metric("collage_answers_total", source="collage") == 2
        assert cluster.metric("collage_request_seconds_count", source="collage") == 2
        assert cluster.metric("collage_group_fill_ratio_sum") == 1


async def test_groups_that_close_together_go_to_different_collage_workers() -> None:
    other = FakeTransport(COLLAGE, collage_after(0.1))
    async with rig("collage", [s_cnn_after(0.1)] * 8, collage_after(0.1), more_collage={"c1": other}) as cluster:
        await asyncio.gather(cluster.group(), cluster.group())
        assert [len(worker.calls) for worker in (cluster.collage, other)] == [1, 1]


async def test_a_late_collage_loses_to_the_replica_and_is_cancelled() -> None:
    async with rig("collage", [straggling("r1")] * 5, collage_after(9.0)) as cluster:
        outcomes = await cluster.group()
        assert [o.answered.source for o in outcomes] == [Source.S_CNN, Source.REPLICA, Source.S_CNN, Source.S_CNN]
        assert outcomes[1].total_s == pytest.approx(0.3)
        await asyncio.sleep(0.1)
        assert cluster.collage.cancelled == ["collage:r0"]
        first, second = (call for worker in cluster.workers for call in worker.calls if call.request_id == "r1")
        assert {first.attempt, second.attempt} == {0, 1}


async def test_a_replica_goes_to_another_worker() -> None:
    async with rig("replicate", [straggling("x"), straggling("x")]) as cluster:
        assert (await cluster.ask(3, "x")).answered.source == Source.REPLICA
        assert [len(worker.calls) for worker in cluster.workers] == [1, 1]


async def test_an_unsure_coded_answer_waits_for_the_replica() -> None:
    async with rig("collage", [straggling("r1")] * 5, collage_after(0.05, confidence=0.3), accept=0.5) as cluster:
        assert (await cluster.group())[1].answered.source == Source.REPLICA


async def test_an_unsure_coded_answer_is_better_than_none_when_time_runs_out() -> None:
    slow = s_cnn_after(9.0)
    async with rig("collage", [slow] * 4, collage_after(0.05, confidence=0.3), accept=0.5) as cluster:
        outcomes = await cluster.group(timeout_s=1.0)
        assert {o.answered.source for o in outcomes} == {Source.COLLAGE}
        assert outcomes[0].total_s == pytest.approx(0.98)


async def test_no_request_outlives_its_deadline() -> None:
    async with rig("none", [s_cnn_after(9.0)]) as cluster:
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(DeadlineExceeded):
            await cluster.ask(1, timeout_s=1.0)
        assert loop.time() - started == pytest.approx(0.98)
        assert cluster.metric("collage_requests_total", code="DEADLINE_EXCEEDED") == 1


async def test_a_failed_worker_is_a_straggler_at_once() -> None:
    async def broken(call: FakeCall) -> Outputs:
        raise WorkerFailure("UNAVAILABLE", "connection reset")

    async with rig("replicate", [broken, s_cnn_after(0.1)]) as cluster:
        for label in range(8):
            assert (await cluster.ask(label)).total_s == pytest.approx(0.1)
        assert cluster.metric("collage_worker_failures_total", attempt="s_cnn", code="UNAVAILABLE") > 0


@pytest.mark.parametrize(("policy", "tries"), [("none", 2), ("replicate", 3), ("collage", 3)])
async def test_when_all_workers_fail_the_caller_is_told(policy: str, tries: int) -> None:
    async def broken(call: FakeCall) -> Outputs:
        raise WorkerFailure("UNAVAILABLE", "connection reset")

    async with rig(policy, [broken] * 3) as cluster:
        with pytest.raises(Unavailable, match=r"failed \(UNAVAILABLE\)"):
            await cluster.ask(1)
        assert sum(len(worker.calls) for worker in cluster.workers) == tries


@pytest.mark.parametrize("garbage", [np.zeros(3, np.float32), np.full(10, np.nan, np.float32)])
async def test_garbage_from_an_s_cnn_worker_is_a_failure(garbage: NDArray[np.float32]) -> None:
    async def confused(call: FakeCall) -> Outputs:
        return (garbage,) if call.attempt == 0 else await s_cnn_after(0.1)(call)

    async with rig("replicate", [confused, confused]) as cluster:
        outcome = await cluster.ask(3)
        assert (outcome.answered.source, int(outcome.answer.argmax())) == (Source.REPLICA, 3)
        assert cluster.metric("collage_worker_failures_total", attempt="s_cnn", code="GARBAGE") == 1


async def test_a_worker_whose_answers_are_garbage_is_left_out() -> None:
    async def confused(call: FakeCall) -> Outputs:
        return (np.full(10, np.nan, np.float32),)

    async with rig("adaptive", [confused, *[s_cnn_after(0.1)] * 3], extra_load=1.0) as cluster:
        cluster.dispatcher.base.balancer.judge.rules = Ejection()
        for _ in range(30):
            assert (await cluster.ask(3)).answer.argmax() == 3
        assert cluster.dispatcher.base.balancer.ejected == 1
        assert len(cluster.workers[0].calls) == 3


async def test_callers_without_time_are_no_reason_to_blame_workers() -> None:
    async with rig("adaptive", [s_cnn_after(0.1)] * 3) as cluster:
        cluster.dispatcher.base.balancer.judge.rules = Ejection()
        for _ in range(20):
            with pytest.raises(DeadlineExceeded):
                await cluster.dispatcher.predict(lambda size: image(1), "", 0.0, quick=True)
        assert [len(worker.calls) for worker in cluster.workers] == [0, 0, 0]
        for _ in range(20):
            with pytest.raises((DeadlineExceeded, ResourceExhausted)):
                await cluster.ask(1, timeout_s=0.05)
        assert cluster.dispatcher.base.balancer.ejected == 0


async def test_the_details_of_a_failure_are_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(call: FakeCall) -> Outputs:
        raise WorkerFailure("INTERNAL", "10.1.2.3 is on fire")

    async with rig("none", [broken]) as cluster:
        with pytest.raises(Unavailable) as caught:
            await cluster.ask(1, "mine")
    assert "10.1.2.3" not in str(caught.value)
    (logged,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert logged.getMessage() == "worker s0 failed: INTERNAL: 10.1.2.3 is on fire"
    assert logged.request_id == "mine"  # type: ignore[attr-defined]


async def test_pixels_that_are_ready_do_not_wait_for_images_that_are_not() -> None:
    """Nor are they refused for the sake of those; nor do they make these seem quick."""
    with ThreadPoolExecutor(1) as executor:
        async with rig("none", [s_cnn_after(0.01)], executor=executor) as cluster:
            release = threading.Event()

            def slow(size: int) -> Any:
                release.wait(5)
                return image(1)

            images = [asyncio.create_task(cluster.dispatcher.predict(slow, "", 5.0)) for _ in range(5)]
            await asyncio.sleep(0.01)
            assert cluster.dispatcher._preparing == 5
            await cluster.dispatcher.predict(lambda size: image(2), "", 5.0, quick=True)
            assert cluster.dispatcher._preparing == 5
            release.set()
            await asyncio.gather(*images)


async def test_a_collage_that_was_never_sent_costs_nothing() -> None:
    class Slow(Executor):
        """Never done."""

        def submit(self, *_: Any, **__: Any) -> Any:
            return Future()

    model = ModelInfo.collage("c", LABELS, 8, 2, version="1")
    async with rig(
        "collage", [s_cnn_after(0.1)] * 4, collage_after(0.05), collage_model=model, encoder=Slow()
    ) as cluster:
        budget = cluster.dispatcher.policy.budget
        before = budget.tokens
        await cluster.group()
        await asyncio.sleep(0.01)
        assert budget.tokens == pytest.approx(before + 4 * budget.rate)
        assert cluster.metric("collage_sent_total", attempt="coded") == 0


async def test_detections_over_other_classes_are_a_failure() -> None:
    async def confused(call: FakeCall) -> Outputs:
        boxes, confidences, probabilities = await collage_after(0.05)(call)
        return boxes, confidences, probabilities[:, :4]

    async with rig("collage", [straggling("r0")] * 5, confused) as cluster:
        assert (await cluster.group())[0].answered.source == Source.REPLICA
        assert cluster.metric("collage_worker_failures_total", attempt="coded", code="GARBAGE") == 1


async def test_an_audit_lets_the_late_s_cnn_finish_and_compares() -> None:
    async with rig("collage", [straggling("r1", slow=0.6)] * 4, collage_after(0.05), audit=1.0) as cluster:
        outcomes = await cluster.group()
        assert outcomes[1].answered.source == Source.COLLAGE
        await asyncio.sleep(1.0)
        assert cluster.metric("collage_audits_total", outcome="agree") == 1
        assert [name for worker in cluster.workers for name in worker.cancelled] == []


async def test_garbage_from_a_collage_worker_means_replicas() -> None:
    async def broken(call: FakeCall) -> Outputs:
        raise WorkerFailure("GARBAGE", "wrong shape")

    async with rig("collage", [straggling("r0")] * 5, broken) as cluster:
        assert (await cluster.group())[0].answered.source == Source.REPLICA
        assert cluster.metric("collage_worker_failures_total", attempt="coded", code="GARBAGE") == 1


async def test_without_workers_the_caller_is_told() -> None:
    async with rig("collage", []) as cluster:
        with pytest.raises(Unavailable, match="no s-cnn worker is ready"):
            await cluster.ask(1)


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
