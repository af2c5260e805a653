"""The dispatcher where workers, models and callers change meanwhile, and what it counts; see test_dispatch.py."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from collage.errors import Unavailable
from collage.model_info import ErrorRate, ModelInfo, ModelKind
from encoder.code import Source
from frontend.jobs import Outcome, WorkerAnswer
from frontend.policy import events as e
from frontend.recorder import Recorder
from frontend.workers import WorkerFailure
from tests.frontend.dispatch_rig import rig, straggling
from tests.frontend.fakes import COLLAGE, LABELS, S_CNN, FakeCall, Outputs, collage_after, image, s_cnn_after

pytestmark = pytest.mark.looptime


async def broken(call: FakeCall) -> Outputs:
    raise WorkerFailure("UNAVAILABLE", "connection reset")


async def test_an_answer_says_how_long_it_waited_and_ran_and_is_counted_in_seconds() -> None:
    async with rig("none", [s_cnn_after(0.25)]) as cluster:
        answered = (await cluster.ask(1)).answered
        assert (answered.queue_s, answered.inference_s) == (0.0, 0.1)
        assert cluster.metric("collage_request_seconds_sum", source="s_cnn") == pytest.approx(0.25)


async def test_replicas_are_counted_apart_and_are_no_approximation() -> None:
    async with rig("replicate", [straggling("x"), straggling("x")]) as cluster:
        outcome = await cluster.ask(3, "x")
        assert (outcome.answered.source, outcome.degraded) == (Source.REPLICA, False)
        assert cluster.metric("collage_sent_total", attempt="s_cnn") == 1
        assert cluster.metric("collage_sent_total", attempt="replica") == 1


async def test_the_only_worker_may_get_a_request_again_that_it_failed() -> None:
    async def once(call: FakeCall) -> Outputs:
        return await (broken if call.attempt == 0 else s_cnn_after(0.1))(call)

    async with rig("replicate", [once]) as cluster:
        assert (await cluster.ask(1)).answered.source is Source.REPLICA


async def test_an_input_does_not_go_to_a_worker_of_another_shape_and_costs_nothing() -> None:
    larger = ModelInfo.make("s", ModelKind.S_CNN, LABELS, 16, version="2")
    async with rig("replicate", [s_cnn_after(1.0)] * 2, extra_load=1.0) as cluster:
        asked = asyncio.create_task(cluster.ask(1))
        await asyncio.sleep(0.1)
        for worker in cluster.dispatcher.base.workers.values():
            worker.info = larger
        cluster.dispatcher.base.review()
        outcome = await asked
        assert (outcome.answered.source, outcome.total_s) == (Source.S_CNN, pytest.approx(1.0))
        assert sum(len(worker.calls) for worker in cluster.workers) == 1
        assert cluster.dispatcher.policy.budget.tokens == 2


async def test_events_of_one_turn_reach_the_policy_and_the_ring_together_and_in_order() -> None:
    async with rig("none", [s_cnn_after(0.1)]) as cluster:
        dispatcher = cluster.dispatcher
        recorder = Recorder()
        dispatcher._record = recorder.add
        at = asyncio.get_running_loop().time()
        gone = [e.Gone(at, 1001), e.Gone(at, 1002)]
        for each in gone:
            dispatcher._feed(each)
        await dispatcher.predict(lambda size: image(1), "", 5.0, quick=True)
        first, *_ = [events for _, events in recorder.batches()]
        assert first[:2] == gone
        assert isinstance(first[2], e.Arrived)


async def test_unsure_answers_are_counted() -> None:
    async with rig("collage", [s_cnn_after(9.0)] * 4, collage_after(0.05, confidence=0.3), accept=0.5) as cluster:
        await cluster.group(timeout_s=1.0)
        assert cluster.metric("collage_unsure_answers_total") == 4
    async with rig("collage", [s_cnn_after(9.0)] * 4, collage_after(0.05), accept=0.5) as cluster:
        await cluster.group(timeout_s=1.0)
        assert cluster.metric("collage_unsure_answers_total") == 0


async def test_the_default_is_not_for_requests_whose_copies_failed() -> None:
    async with rig("none", [broken], default_label="d") as cluster:
        with pytest.raises(Unavailable):
            await cluster.ask(1)


async def test_an_audit_tells_when_the_answers_differ() -> None:
    async def wrong(call: FakeCall) -> Outputs:
        boxes, confidences, probabilities = await collage_after(0.05)(call)
        return boxes, confidences, np.roll(probabilities, 1, axis=1)

    async with rig("collage", [straggling("r1", slow=0.6)] * 4, wrong, audit=1.0) as cluster:
        assert (await cluster.group())[1].answered.source is Source.COLLAGE
        await asyncio.sleep(1.0)
        assert cluster.metric("collage_audits_total", outcome="differ") == 1
        assert cluster.metric("collage_audits_total", outcome="agree") == 0


async def test_a_call_has_as_long_as_its_caller_and_ends_with_the_dispatcher() -> None:
    async with rig("none", [s_cnn_after(9.0)]) as cluster:
        given: list[float] = []
        run = cluster.workers[0].run

        def timed(pixels: Any, request_id: str, attempt: int, timeout_s: float, ended: Any) -> Any:
            given.append(timeout_s)
            return run(pixels, request_id, attempt, timeout_s, ended)

        cluster.workers[0].run = timed  # type: ignore[method-assign]
        asked = asyncio.create_task(cluster.ask(1, "mine", timeout_s=3.0))
        await asyncio.sleep(0.1)
        await cluster.dispatcher.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert given == [3.0]
        assert cluster.workers[0].cancelled == ["mine"]
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


def test_an_outcome_is_what_its_task_makes_of_the_output() -> None:
    answered = WorkerAnswer(np.array([-0.5, 0.25, 1.5, 0.75], np.float32), S_CNN, Source.S_CNN)
    outcome = Outcome("r", answered, "localisation", (), "", None, 0.1)
    np.testing.assert_array_equal(outcome.answer, [0, 0.25, 1, 0.75])


async def test_labels_are_those_of_the_model_that_answered() -> None:
    relabelled = replace(S_CNN, labels=LABELS[::-1], version="2")
    async with rig("none", [s_cnn_after(1.0)]) as cluster:
        asked = asyncio.create_task(cluster.ask(1))
        await asyncio.sleep(0.1)
        (job,) = cluster.dispatcher._jobs.values()
        job.model = relabelled
        assert (await asked).labels == LABELS


# What coded answers cost

CAREFUL = replace(COLLAGE, name="careful", errors=(ErrorRate(0.0, 0.5, 0.125, 0.5), ErrorRate(0.75, 0.25, 0.0625, 0.5)))


async def test_the_cost_of_coded_answers_is_counted_by_when_they_were_given() -> None:
    async with rig("collage", [straggling("r1")] * 4, collage_after(0.05), collage_model=CAREFUL) as cluster:
        await cluster.group()
        assert cluster.metric("collage_accuracy_spent_total", given="straggler") == 0.3125
        assert cluster.metric("collage_accuracy_spent_total", given="early") == 0
    early = rig("adaptive", [s_cnn_after(0.1)] * 4, collage_after(0.05), collage_model=CAREFUL, accept=0.5)
    async with early as cluster:
        await cluster.group()
        assert cluster.metric("collage_answers_total", source="collage") == 4
        assert cluster.metric("collage_accuracy_spent_total", given="early") == 4 * 0.3125
        assert cluster.metric("collage_accuracy_spent_total", given="straggler") == 0


async def test_a_budget_of_accuracy_that_is_short_leads_to_replicas() -> None:
    slow = [straggling("r1")] * 4
    async with rig("collage", slow, collage_after(0.05), collage_model=CAREFUL, accuracy=0.0) as cluster:
        assert (await cluster.group())[1].answered.source is Source.REPLICA
        assert cluster.metric("collage_accuracy_spent_total", given="straggler") == 0


async def test_an_audit_that_finds_a_difference_makes_answers_cost_more() -> None:
    async def wrong(call: FakeCall) -> Outputs:
        boxes, confidences, probabilities = await collage_after(0.05)(call)
        return boxes, confidences, np.roll(probabilities, 1, axis=1)

    slow = [straggling("r1", slow=0.6)] * 4
    async with rig("collage", slow, wrong, audit=1.0, collage_model=CAREFUL) as cluster:
        await cluster.group()
        await asyncio.sleep(1.0)
        scale = 21 / 20.5
        assert cluster.dispatcher.policy._flights.accuracy.scale == scale
        await cluster.group()
        await asyncio.sleep(1.0)
        assert cluster.metric("collage_accuracy_spent_total", given="straggler") == 0.3125 * (1 + scale)


@pytest.mark.parametrize(
    ("budget", "model", "warns"), [(0.0, COLLAGE, True), (0.0, CAREFUL, False), (None, COLLAGE, False)]
)
async def test_a_budget_that_a_model_cannot_keep_is_told(
    budget: float | None, model: ModelInfo, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    collage = collage_after(0.05)
    async with rig("collage", [s_cnn_after(0.1)], collage, collage_model=model, accuracy_budget=budget):
        pass
    assert ("--accuracy-budget has no effect: c says nothing of its errors" in caplog.text) is warns
