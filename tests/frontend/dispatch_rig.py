"""A dispatcher over fake workers, for tests on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from collage.model_info import ModelInfo
from frontend.dispatch import Dispatcher, DispatchSettings
from frontend.jobs import Outcome
from frontend.metrics import FrontendMetrics
from frontend.policy.rules import Rules
from frontend.workers import Pool
from tests.frontend.fakes import (
    COLLAGE,
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

Behaviour = Callable[[FakeCall], Awaitable[Outputs]]


@dataclass
class DispatchRig:
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
    s_cnn_model: ModelInfo = S_CNN,
    accuracy_budget: float | None = None,
    **limits: float,
) -> AsyncIterator[DispatchRig]:
    registry = CollectorRegistry()
    workers = [FakeTransport(s_cnn_model, behaviour) for behaviour in s_cnn]
    redundant = FakeTransport(collage_model, collage or collage_after(0.05))
    base = await pool("s_cnn", {f"s{i}": worker for i, worker in enumerate(workers)})
    redundants = {"c0": redundant, **(more_collage or {})} if collage else {}
    coded = await pool("coded", redundants)
    rules = Rules.named(policy, **{"deadline": 0.2, "group_wait": 0.05, **limits})
    dispatcher = Dispatcher(
        rules,
        base,
        [coded] if collage else [],
        FrontendMetrics(registry),
        executor or InlineExecutor(),
        encoder or InlineExecutor(),
        DispatchSettings(
            max_in_flight=max_in_flight,
            max_bytes=max_bytes,
            default_label=default_label,
            grid=k,
            accuracy_budget=accuracy_budget,
        ),
    )
    await base.start()
    await coded.start()
    await asyncio.sleep(0.01)
    yield DispatchRig(dispatcher, workers, redundant, coded, registry)
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
