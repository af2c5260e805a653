"""Codes at work in the dispatcher, on a virtual clock: linear codes over fake workers whose base model is linear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from collage.model_info import CodeInfo, ModelInfo, ModelKind
from encoder.code import Source
from encoder.linear import mean_weights
from frontend.dispatch import Dispatcher, DispatchSettings
from frontend.fitting import CodingSettings, base_misfit, code_of, misfit
from frontend.jobs import Outcome
from frontend.metrics import FrontendMetrics
from frontend.policy.rules import Rules
from frontend.workers import Pool, WorkerFailure
from tests.frontend.fakes import COLLAGE, LABELS, S_CNN, SIZE, FakeCall, FakeTransport, InlineExecutor, Outputs, pool

pytestmark = pytest.mark.looptime

WEIGHTS = np.random.default_rng(0).integers(-3, 4, (len(LABELS), SIZE * SIZE * 3)).astype(np.float32)
STEP = {(2, 1): 2, (2, 2): 6, (3, 2): 6, (4, 2): 20}
SETTINGS = CodingSettings()
Behaviour = Callable[[FakeCall], Awaitable[Outputs]]


def linear(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The base model, and its own parity model."""
    return WEIGHTS @ pixels.reshape(-1).astype(np.float32)


def parity(members: int, inputs: int, row: int, base: str = "") -> ModelInfo:
    weights = tuple(mean_weights(members, inputs)[row].tolist())
    code = CodeInfo("linear", members, inputs, row, weights=weights, base=base)
    return ModelInfo.make("p", ModelKind.PARITY, LABELS, SIZE, code=code, version=f"p{row}")


def picture(label: int, step: int) -> NDArray[np.uint8]:
    """Pixels that are multiples of ``step``, so that redundant inputs are exact."""
    values = np.random.default_rng(label).integers(0, 255 // step + 1, (SIZE, SIZE, 3))
    return (values * step).astype(np.uint8)


def after(seconds: float | Callable[[FakeCall], float]) -> Behaviour:
    async def behave(call: FakeCall) -> Outputs:
        await asyncio.sleep(seconds(call) if callable(seconds) else seconds)
        return (linear(call.image),)

    return behave


def slow(*names: str, by: float = 3.0) -> Behaviour:
    """Late with the first copies of these requests."""
    return after(lambda call: by if call.request_id in names and call.attempt == 0 else 0.1)


async def broken(call: FakeCall) -> Outputs:
    raise WorkerFailure("UNAVAILABLE", "connection reset")


@dataclass
class Rig:
    dispatcher: Dispatcher
    base: list[FakeTransport]
    parities: list[FakeTransport]
    base_pool: Pool
    pools: list[Pool]
    registry: CollectorRegistry
    members: int
    step: int

    async def group(self, timeout_s: float = 5.0) -> list[Outcome]:
        ask = self.dispatcher.predict
        return list(
            await asyncio.gather(
                *(
                    ask(lambda size, member=member: picture(member, self.step), f"r{member}", timeout_s)
                    for member in range(self.members)
                )
            )
        )

    def check(self, outcomes: Sequence[Outcome], coded: Sequence[int]) -> None:
        """These members' answers come from the code, the others' do not, and all are exact."""
        found = [n for n, outcome in enumerate(outcomes) if outcome.answered.source is Source.PARITY]
        assert found == list(coded)
        for member, outcome in enumerate(outcomes):
            exact = linear(picture(member, self.step))
            np.testing.assert_allclose(outcome.answered.output, exact, atol=0.5, rtol=1e-4)


@asynccontextmanager
async def rig(
    base: Behaviour,
    parities: Sequence[Behaviour],
    members: int = 2,
    policy: str = "collage",
    version: str = "",
    base_model: ModelInfo = S_CNN,
    **limits: float,
) -> AsyncIterator[Rig]:
    registry = CollectorRegistry()
    inputs = len(parities)
    workers = [FakeTransport(base_model, base) for _ in range(4)]
    redundant = [FakeTransport(parity(members, inputs, row, version), behave) for row, behave in enumerate(parities)]
    base_pool = await pool("s_cnn", {f"s{i}": worker for i, worker in enumerate(workers)})
    pools = [await pool("coded", {f"p{row}": each}) for row, each in enumerate(redundant)]
    rules = Rules.named(policy, **{"deadline": 0.2, "extra_load": 1.0, **limits})
    dispatcher = Dispatcher(
        rules,
        base_pool,
        pools,
        FrontendMetrics(registry),
        InlineExecutor(),
        InlineExecutor(),
        DispatchSettings(max_in_flight=100),
    )
    for each in (base_pool, *pools):
        await each.start()
    await asyncio.sleep(0.01)
    yield Rig(dispatcher, workers, redundant, base_pool, pools, registry, members, STEP[members, inputs])
    assert dispatcher.policy.open_requests == 0
    assert dispatcher._coding._runs == {}
    await dispatcher.close()
    for each in (base_pool, *pools):
        await each.close()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


LOSSES = [
    (members, inputs, lost)
    for members, inputs in STEP
    for count in range(1, inputs + 1)
    for lost in combinations(range(members), count)
]


@pytest.mark.parametrize(("members", "inputs", "lost"), LOSSES)
async def test_every_loss_of_up_to_r_answers_is_decoded_exactly(
    members: int, inputs: int, lost: tuple[int, ...]
) -> None:
    late = slow(*(f"r{member}" for member in lost))
    async with rig(late, [after(0.05)] * inputs, members) as cluster:
        outcomes = await cluster.group()
        cluster.check(outcomes, lost)
        assert all(outcomes[member].total_s == pytest.approx(0.2) for member in lost)
        confidence = outcomes[lost[0]].answered.confidence
        assert confidence == pytest.approx(outcomes[lost[0]].answer.max())
        assert [len(each.calls) for each in cluster.parities] == [1] * inputs
        assert [each.calls[0].attempt for each in cluster.parities] == list(range(inputs))


async def test_a_sibling_that_answers_late_makes_a_straggler_decodable() -> None:
    times = {"r0": 3.0, "r1": 0.7}
    base = after(lambda call: times[call.request_id])
    async with rig(base, [after(0.05)], policy="collage-only") as cluster:
        outcomes = await cluster.group()
        cluster.check(outcomes, [0])
        assert [outcome.total_s for outcome in outcomes] == pytest.approx([0.7, 0.7])


async def test_stragglers_that_cannot_be_decoded_together_are_replicated_and_help_each_other() -> None:
    async with rig(slow("r0", "r1"), [after(0.05)]) as cluster:
        outcomes = await cluster.group()
        assert {outcome.answered.source for outcome in outcomes} <= {Source.REPLICA, Source.PARITY}
        assert [outcome.total_s for outcome in outcomes] == pytest.approx([0.3, 0.3])


@pytest.mark.parametrize("failing", [0, 1])
async def test_one_of_two_redundant_runs_fails(failing: int) -> None:
    parities = [broken if row == failing else after(0.05) for row in range(2)]
    async with rig(slow("r1"), parities, members=3) as cluster:
        cluster.check(await cluster.group(), [1])
        assert (
            cluster.registry.get_sample_value(
                "collage_worker_failures_total", {"attempt": "coded", "code": "UNAVAILABLE"}
            )
            == 1
        )


async def test_all_redundant_runs_fail() -> None:
    async with rig(slow("r1"), [broken] * 2, members=3) as cluster:
        outcomes = await cluster.group()
        cluster.check(outcomes, [])
        assert outcomes[1].answered.source is Source.REPLICA


async def test_answers_of_another_version_than_the_codes_base_are_not_decoded_from() -> None:
    """A rolling update: the parity model is of the version that the straggler was sent for, its sibling's is newer."""
    async with rig(slow("r0"), [after(0.05)], version="1", policy="collage-only") as cluster:
        for worker in cluster.base:
            worker.info = replace(S_CNN, version="1")
        asking = asyncio.create_task(cluster.group())
        await asyncio.sleep(0.05)
        newer = replace(S_CNN, version="2")
        for address, worker in cluster.base_pool.workers.items():
            if any(call.request_id == "r1" for call in cluster.base[int(address[1:])].calls):
                worker.info = newer
        outcomes = await asking
        cluster.check(outcomes, [0])  # sent before the change: still an answer of version 1


async def test_a_base_of_another_version_gets_no_parity_workers(caplog: pytest.LogCaptureFixture) -> None:
    async with rig(slow("r0"), [after(0.05)], version="2") as cluster:
        cluster.check(await cluster.group(), [])
        assert cluster.pools[0].ready == 0
    assert "it decodes for version 2 of the base model, not for the s-cnn s 1" in caplog.text


async def test_members_whose_base_changed_are_told_that_they_cannot_be_decoded() -> None:
    """The sibling is answered by another version: its straggler is not left waiting for a code that cannot help."""
    async with rig(slow("r0", by=1.0), [after(0.05)], version="1", policy="collage-only") as cluster:
        job_models = cluster.dispatcher._coding.answered

        def other_version(job: object, own: object) -> None:
            job_models(job, own._replace(model=replace(S_CNN, version="9")))  # type: ignore[arg-type, attr-defined]

        cluster.dispatcher._coding.answered = other_version  # type: ignore[method-assign]
        outcomes = await cluster.group()
        cluster.check(outcomes, [])
        assert outcomes[0].total_s == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("info", "row", "told"),
    [
        (S_CNN, 0, "without a code"),
        (replace(parity(2, 1, 0), labels=LABELS[::-1]), 0, "labels are not those"),
        (parity(2, 2, 1), 0, "runs redundant input 1, and its place in --coded-workers is 0"),
        (parity(2, 1, 0, base="x"), 0, "decodes for version x"),
        (ModelInfo.make("p", ModelKind.PARITY, LABELS, 2 * SIZE, code=CodeInfo("linear", 2, weights=(0.5, 0.5))), 0,
         "another shape"),
        (ModelInfo.make("p", ModelKind.PARITY, LABELS, SIZE, code=CodeInfo("stacked", 2, heads=True)), 0,
         "says heads: true and stacked: false, which is not so of the code stacked"),
        (ModelInfo.make("p", ModelKind.PARITY, LABELS, SIZE, code=CodeInfo("concatenation", 2)), 0, "heads: false"),
        (ModelInfo.make("p", ModelKind.PARITY, LABELS, SIZE, code=CodeInfo("linear", 2, heads=True)), 0, "not so"),
    ],
)  # fmt: skip
def test_models_that_do_not_fit_are_named(info: ModelInfo, row: int, told: str) -> None:
    assert told in (misfit(info, S_CNN, row, SETTINGS) or "")
    assert misfit(info, None, row, SETTINGS) in ("", misfit(info, S_CNN, row, SETTINGS))


def test_models_that_fit() -> None:
    assert misfit(parity(2, 2, 1, base="1"), S_CNN, 1, SETTINGS) is None
    assert misfit(COLLAGE, S_CNN, 0, SETTINGS) is None
    for code in (CodeInfo("stacked", 3, heads=True, stacked=True), CodeInfo("concatenation", 4, heads=True)):
        model = ModelInfo.make("p", ModelKind.PARITY, LABELS, SIZE, code=code)
        assert misfit(model, S_CNN, 0, SETTINGS) is None
        assert code_of([model], SETTINGS).shape.members == code.members
    assert base_misfit(S_CNN) is None
    assert base_misfit(COLLAGE) == "it is a collage-cnn, expected an s-cnn"


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ([S_CNN], "what their code is"),
        ([parity(2, 2, 0)], "2 redundant inputs, workers were given for 1"),
        ([parity(2, 2, 0), parity(3, 2, 1)], "not all of one code"),
        ([parity(2, 2, 0, base="1"), parity(2, 2, 1, base="2")], "not all of one code"),
    ],
)
def test_models_that_make_no_code_are_named(models: list[ModelInfo], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        code_of(models, SETTINGS)


def test_the_operators_threshold_takes_the_place_of_the_models() -> None:
    assert code_of([COLLAGE], CodingSettings(detection_threshold=0.5)).detection_threshold == 0.5  # type: ignore[attr-defined]
    assert code_of([COLLAGE], SETTINGS).detection_threshold == 0.15  # type: ignore[attr-defined]


@pytest.mark.parametrize("quick", [True, False])
async def test_a_group_that_cannot_be_encoded_is_replicated(quick: bool, caplog: pytest.LogCaptureFixture) -> None:
    """As when its inputs are of two sizes, because another model came into use meanwhile."""

    def broken_encoder(inputs: object) -> list[NDArray[np.uint8]]:
        raise ValueError("two sizes")

    async with rig(slow("r0"), [after(0.05)]) as cluster:
        code = cluster.dispatcher._coding.code
        assert code is not None
        code.encode, code.quick = broken_encoder, lambda inputs: quick  # type: ignore[method-assign]
        outcomes = await cluster.group()
        cluster.check(outcomes, [])
        assert outcomes[0].answered.source is Source.REPLICA
    assert "a group could not be encoded" in caplog.text


async def test_groups_end_when_the_redundant_models_make_no_code_any_more(caplog: pytest.LogCaptureFixture) -> None:
    async with rig(slow("r0"), [after(0.05)]) as cluster:
        cluster.parities[0].info = parity(2, 2, 0)  # of a code with two redundant inputs; workers are given for one
        cluster.pools[0].workers["p0"].info = cluster.parities[0].info
        cluster.pools[0].review()
        await asyncio.sleep(0.01)
        cluster.check(await cluster.group(), [])
        assert cluster.parities[0].calls == []
    assert "2 redundant inputs, workers were given for 1" in caplog.text
