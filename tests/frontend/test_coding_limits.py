"""Where a code cannot help as usual: other versions, other labels, lost workers, failures; see test_coding.py."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from collage.errors import Unavailable
from collage.model_info import CodeInfo, ModelInfo, ModelKind
from encoder.code import GroupShape, Source
from encoder.linear import LinearCode, mean_weights
from frontend.fitting import misfit
from frontend.jobs import Job, WorkerAnswer
from frontend.workers import WorkerFailure
from tests.frontend.fakes import LABELS, S_CNN, SIZE, FakeCall, Outputs
from tests.frontend.test_coding import SETTINGS, Behaviour, Rig, after, linear, parity, picture, rig, slow

pytestmark = pytest.mark.looptime

RELABELLED = replace(S_CNN, labels=LABELS[::-1])


def answered_by(model: ModelInfo, *places: int) -> Any:
    """Make answers of these members seem to come from another model than the base's."""

    def change(cluster: Rig) -> None:
        answered = cluster.dispatcher._coding.answered

        def other(job: Job, own: WorkerAnswer) -> None:
            answered(job, own._replace(model=model) if job.place in places else own)

        cluster.dispatcher._coding.answered = other  # type: ignore[method-assign]

    return change


def failing(*names: str, otherwise: Behaviour) -> Behaviour:
    async def behave(call: FakeCall) -> Outputs:
        if call.request_id in names:
            raise WorkerFailure("INTERNAL", "on fire")
        return await otherwise(call)

    return behave


def broken_after(seconds: float) -> Behaviour:
    async def behave(call: FakeCall) -> Outputs:
        await asyncio.sleep(seconds)
        raise WorkerFailure("INTERNAL", "on fire")

    return behave


def faint(seconds: float) -> Behaviour:
    """Logits near each other, so that no class is certain."""

    async def behave(call: FakeCall) -> Outputs:
        late = call.request_id == "r0" and call.attempt == 0
        await asyncio.sleep(3.0 if late else seconds)
        return (linear(call.image) * np.float32(1e-4),)

    return behave


async def asked(cluster: Rig, members: Sequence[int], timeout_s: float = 5.0) -> list[Any]:
    ask = cluster.dispatcher.predict
    calls = (ask(lambda size, n=n: picture(n, cluster.step), f"r{n}", timeout_s) for n in members)
    return list(await asyncio.gather(*calls, return_exceptions=True))


async def test_siblings_of_other_labels_are_not_decoded_from() -> None:
    async with rig(slow("r0", by=1.0), [after(0.05)], policy="collage-only") as cluster:
        answered_by(RELABELLED, 1)(cluster)
        outcomes = await cluster.group()
        cluster.check(outcomes, [])
        assert outcomes[0].total_s == pytest.approx(1.0)


async def test_members_of_other_labels_are_not_decoded() -> None:
    async with rig(slow("r0", by=1.0), [after(0.05)], policy="collage-only") as cluster:
        asking = asyncio.create_task(cluster.group())
        await asyncio.sleep(0.07)
        (job,) = (job for job in cluster.dispatcher._jobs.values() if job.name == "r0")
        job.model = RELABELLED
        cluster.check(await asking, [])


async def test_one_that_will_never_be_decoded_does_not_wait() -> None:
    """Its own copy failed, and its sibling's answer is of another version."""
    base = failing("r0", otherwise=after(0.1))
    async with rig(base, [after(0.05)], version="1", policy="collage-only") as cluster:
        answered_by(replace(S_CNN, version="9"), 1)(cluster)
        started = asyncio.get_running_loop().time()
        first, _ = await asked(cluster, [0, 1])
        assert isinstance(first, Unavailable)
        assert asyncio.get_running_loop().time() - started == pytest.approx(0.1)


async def test_nor_does_one_that_a_redundant_run_was_never_sent_for() -> None:
    base = failing("r0", otherwise=after(0.1))
    async with rig(base, [after(0.05)] * 2, 2, version="1", policy="collage-only") as cluster:
        answered_by(replace(S_CNN, version="9"), 1)(cluster)
        cluster.pools[1].balancer.set_ready("p1", False)
        started = asyncio.get_running_loop().time()
        first, _ = await asked(cluster, [0, 1])
        assert isinstance(first, Unavailable)
        assert asyncio.get_running_loop().time() - started == pytest.approx(0.1)


@pytest.mark.parametrize("then", ["hangs up", "redundant run fails"])
async def test_nor_does_one_whose_hope_ends_later(then: str) -> None:
    """One redundant output more than usual makes up for the sibling's answer of another version, until that is gone."""
    base = failing("r0", otherwise=after(lambda call: 0.1 if call.request_id == "r1" else 3.0))
    fails = then == "redundant run fails"
    members = 2 if fails else 3
    parities = [after(0.05), broken_after(0.5) if fails else after(0.05)]
    async with rig(base, parities, members, version="1", policy="collage-only") as cluster:
        answered_by(replace(S_CNN, version="9"), 1)(cluster)
        started = asyncio.get_running_loop().time()
        asking = [asyncio.create_task(asked(cluster, [n])) for n in range(members)]
        await asyncio.sleep(0.5)
        if not fails:
            asking[2].cancel()
        ((first,), *_) = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(first, Unavailable)
        assert asyncio.get_running_loop().time() - started == pytest.approx(0.5)


async def test_an_answer_of_another_version_does_not_keep_others_from_being_enough() -> None:
    async with rig(slow("r0"), [after(0.05)] * 2, 3, version="1", policy="collage-only") as cluster:
        answered_by(replace(S_CNN, version="9"), 1)(cluster)
        outcomes = await cluster.group()
        cluster.check(outcomes, [0])
        assert (outcomes[0].answered.queue_s, outcomes[0].answered.inference_s) == pytest.approx((0.0, 0.05))


@pytest.mark.parametrize("rows", [2, 3, 4])
async def test_every_redundant_worker_gets_the_input_of_its_row(rows: int) -> None:
    async with rig(after(0.1), [after(0.05)] * 2, rows) as cluster:
        await cluster.group()
        encoded = LinearCode(mean_weights(rows, 2)).encode([picture(n, cluster.step) for n in range(rows)])
        for worker, redundant in zip(cluster.parities, encoded, strict=True):
            np.testing.assert_array_equal(worker.calls[0].image, redundant)


async def test_members_keep_their_places_whoever_came_first() -> None:
    """A later caller gets the place of one who hung up."""
    async with rig(slow("r2"), [after(0.05)] * 2, 3, policy="collage-only", group_wait=1.0) as cluster:
        first = asyncio.create_task(cluster.dispatcher.predict(lambda size: picture(1, cluster.step), "r1", 5.0))
        second = asyncio.create_task(cluster.dispatcher.predict(lambda size: picture(2, cluster.step), "r2", 5.0))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        await asked(cluster, [3, 4])
        outcome = await second
        assert (outcome.answered.source, outcome.place) == (Source.PARITY, 1)
        exact = linear(picture(2, cluster.step))
        np.testing.assert_allclose(outcome.answered.output, exact, atol=0.5, rtol=1e-4)


async def test_without_a_confidence_of_the_code_the_task_tells_how_sure_an_answer_is() -> None:
    async with rig(faint(0.1), [faint(0.05)], policy="collage-only") as cluster:
        outcome, _ = await cluster.group()
        assert outcome.answered.source is Source.PARITY
        assert outcome.answered.confidence == pytest.approx(outcome.answer.max(), rel=1e-3)
        assert 0.05 < outcome.answered.confidence < 0.95


async def test_the_threshold_is_the_models_where_the_operator_sets_none() -> None:
    async with rig(faint(0.1), [faint(0.05)], accept=None) as cluster:  # type: ignore[arg-type]
        outcome, _ = await cluster.group()
        assert outcome.answered.source is Source.REPLICA, "the model accepts from 1.0 on"


async def test_a_code_that_fails_to_decode_leaves_members_to_their_replicas(caplog: pytest.LogCaptureFixture) -> None:
    async with rig(slow("r0"), [after(0.05)]) as cluster:

        def broken(*_: object) -> Any:
            raise ZeroDivisionError

        cluster.dispatcher._coding.code.decode = broken  # type: ignore[method-assign, union-attr]
        outcomes = await cluster.group()
        assert outcomes[0].answered.source is Source.REPLICA
    assert "a group could not be decoded" in caplog.text


async def test_a_run_that_finds_no_worker_costs_nothing_and_the_rest_decode() -> None:
    async with rig(slow("r1"), [after(0.05)] * 2, 3, policy="collage-only") as cluster:
        cluster.pools[1].balancer.set_ready("p1", False)
        cluster.check(await cluster.group(), [1])
        assert [len(worker.calls) for worker in cluster.parities] == [1, 0]
        assert cluster.dispatcher.policy.budget.tokens == 1 + 3 - 1


@pytest.mark.parametrize("empty", [False, True])
async def test_groups_that_the_code_in_use_does_not_fit_cost_nothing(empty: bool) -> None:
    async with rig(after(0.1), [after(0.05)] * 2, 3) as cluster:
        waiting = asyncio.create_task(asked(cluster, [0]))
        await asyncio.sleep(0.01)
        before = cluster.dispatcher.policy.budget.tokens
        jobs = {} if empty else {0: next(iter(cluster.dispatcher._jobs.values()))}
        cluster.dispatcher._coding.send(99, jobs, GroupShape(3, 2, 3, 3) if empty else GroupShape(2, 2, 2, 2))
        await waiting
        assert [len(worker.calls) for worker in cluster.parities] == [0, 0]
        assert cluster.dispatcher.policy.budget.tokens == before + 2


async def test_a_worker_that_changed_its_model_meanwhile_gets_no_run() -> None:
    async with rig(slow("r0"), [after(0.05)]) as cluster:
        cluster.pools[0].workers["p0"].info = replace(parity(2, 1, 0), version="newer")
        cluster.check(await cluster.group(), [])
        assert cluster.parities[0].calls == []


async def test_a_group_that_was_encoded_for_another_code_is_not_sent() -> None:
    async with rig(slow("r0"), [after(0.05)]) as cluster:
        code = cluster.dispatcher._coding.code
        assert code
        encode = code.encode

        def change(inputs: Any) -> Any:
            cluster.pools[0].workers["p0"].info = replace(parity(2, 1, 0), version="newer")
            cluster.pools[0].review()
            return encode(inputs)

        code.encode = change  # type: ignore[method-assign]
        cluster.check(await cluster.group(), [])
        assert cluster.dispatcher._coding.code is not code
        assert cluster.parities[0].calls == []


async def test_a_group_whose_callers_have_all_hung_up_is_forgotten() -> None:
    async with rig(slow("r0", "r1"), [after(0.05)]) as cluster:
        asking = asyncio.create_task(cluster.group())
        await asyncio.sleep(0.07)
        assert len(cluster.dispatcher._coding._runs) == 1
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_redundant_runs_have_as_long_as_the_most_patient_member() -> None:
    async with rig(after(0.1), [after(0.05)]) as cluster:
        given: list[float] = []
        run = cluster.parities[0].run

        def timed(image: Any, request_id: str, attempt: int, timeout_s: float, ended: Any) -> Any:
            given.append(timeout_s)
            return run(image, request_id, attempt, timeout_s, ended)

        cluster.parities[0].run = timed  # type: ignore[method-assign]
        await asyncio.gather(asked(cluster, [0], timeout_s=5.0), asked(cluster, [1], timeout_s=2.0))
        assert given == pytest.approx([5.0])


async def test_as_many_groups_run_at_once_as_the_scarcest_workers_allow() -> None:
    async with rig(after(0.1), [after(0.05)] * 2, 3) as cluster:
        assert cluster.dispatcher.coded_workers == 1
        cluster.dispatcher._coding._pools = [SimpleNamespace(ready=3), SimpleNamespace(ready=2)]  # type: ignore[list-item]
        assert cluster.dispatcher.coded_workers == 2


async def test_redundant_workers_are_judged_again_when_the_base_changes() -> None:
    async with rig(after(0.1), [after(0.05)], version="1") as cluster:
        assert cluster.pools[0].ready == 1
        for worker in cluster.base_pool.workers.values():
            worker.info = replace(S_CNN, version="2")
        cluster.base_pool.review()
        assert cluster.pools[0].ready == 0


def test_a_model_for_another_task_does_not_fit() -> None:
    code = CodeInfo("linear", 2, weights=(0.5, 0.5))
    localiser = ModelInfo.make("p", ModelKind.PARITY, (), SIZE, task="localisation", code=code)
    told = misfit(localiser, S_CNN, 0, SETTINGS)
    assert told == "its task is localisation, that of the s-cnn s 1 is classification"
