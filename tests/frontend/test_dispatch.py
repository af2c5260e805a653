"""The dispatcher on a virtual clock, over fake workers: stragglers, failures, garbage."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from collage.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from collage.model_info import ModelInfo
from encoder.code import Source
from frontend.policy.ejection import Ejection
from frontend.workers import WorkerFailure
from tests.frontend.dispatch_rig import rig, straggling
from tests.frontend.fakes import (
    COLLAGE,
    LABELS,
    FakeCall,
    FakeTransport,
    Outputs,
    collage_after,
    image,
    s_cnn_after,
)

pytestmark = pytest.mark.looptime


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
            assert cluster.dispatcher._decoding.waiting == 5
            await cluster.dispatcher.predict(lambda size: image(2), "", 5.0, quick=True)
            assert cluster.dispatcher._decoding.waiting == 5
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
