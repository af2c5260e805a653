"""Codes of parity models over real processes. Decoding is exact, so that every answer is checked to its last digits."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.cluster.local import Cluster
from collage.client import Client, ClientError, Prediction
from encoder.linear import mean_weights
from encoder.tasks import TASKS
from tests.onnx_models import linear_outputs, save_heads, save_linear, save_parity

SIZE, TIMEOUT_S, SERVICE_S, EVERY_S = 8, 4.0, 0.08, 0.3
STEP = {(2, 1): 2, (3, 2): 6}
"""Pixels that are multiples of it have means that are whole numbers."""


def picture(number: int, step: int) -> NDArray[np.uint8]:
    values = np.random.default_rng(number).integers(0, 255 // step + 1, (SIZE, SIZE, 3))
    return (values * step).astype(np.uint8)


@dataclass
class Offered:
    """Two groups of requests at a time, which keeps all four workers busy, at a steady pace.

    Every answer is held against what the base model says.
    """

    client: Client
    members: int
    step: int
    sent: int = 0
    answers: list[Prediction] = field(default_factory=list)
    errors: list[ClientError] = field(default_factory=list)

    async def run(self, until: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as requests:
            for number in itertools.count():
                for member in range(2 * self.members):
                    requests.create_task(self._ask(f"r{number}-{member}"))
                try:
                    async with asyncio.timeout(EVERY_S):
                        await until.wait()
                    return
                except TimeoutError:
                    continue

    async def _ask(self, request_id: str) -> None:
        image = picture(self.sent % 50, self.step)
        self.sent += 1
        try:
            answer = await self.client.predict(
                image, request_id=request_id, timeout_s=TIMEOUT_S, top_k=3, with_output=True
            )
        except ClientError as error:
            self.errors.append(error)
            return
        exact = linear_outputs(image)
        assert answer.output is not None
        np.testing.assert_allclose(answer.output, exact, rtol=1e-4, atol=1e-3)
        expected = TASKS["classification"].answer(exact)
        assert answer.classes[0].probability == pytest.approx(float(expected.max()), abs=1e-3)
        self.answers.append(answer)

    @property
    def sources(self) -> set[str]:
        return {answer.source for answer in self.answers}

    async def served(self, more: int) -> None:
        target = len(self.answers) + more
        async with asyncio.timeout(30):
            while len(self.answers) < target:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def under_load(
    tmp_path: Path, members: int, inputs: int, policy: str, code: str = "linear"
) -> AsyncIterator[tuple[Cluster, Offered]]:
    """Four base workers and one for each redundant input; on exit every request must have ended well, and once."""
    base = save_linear(tmp_path / "f.onnx", size=SIZE)
    weights = mean_weights(members, inputs)
    parities = [
        save_parity(tmp_path / f"p{row}.onnx", size=SIZE, weights=tuple(weights[row]), inputs=inputs, row=row)
        if code == "linear"
        else save_heads(tmp_path / f"p{row}.onnx", code=code, members=members, size=SIZE)
        for row in range(inputs)
    ]
    cluster = Cluster(
        base,
        parities,
        s_cnn_workers=4,
        worker_flags=("--slowdown", f"fixed:{SERVICE_S}"),
        frontend_flags=("--policy", policy, "--deadline-s", "0.25", "--extra-load", "1"),
        logs=tmp_path / "logs",
    )
    async with cluster, Client(cluster.frontend.address) as client:
        load, stop = Offered(client, members, STEP[members, inputs]), asyncio.Event()
        async with asyncio.timeout(90), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(load.run(stop))
            await load.served(2 * members)
            yield cluster, load
            stop.set()
            await running
        assert load.errors == []
        assert len(load.answers) == load.sent
        metrics = await cluster.frontend.metrics()
        assert metrics.value("collage_requests_total", code="OK") == load.sent
        assert metrics.value("collage_in_flight") == 0


@pytest.mark.parametrize(("members", "inputs"), list(STEP))
async def test_answers_of_a_frozen_worker_are_decoded_exactly(members: int, inputs: int, tmp_path: Path) -> None:
    async with under_load(tmp_path, members, inputs, "collage") as (cluster, load):
        cluster.s_cnn[0].freeze()
        async with asyncio.timeout(30):
            while "PARITY" not in load.sources:
                await asyncio.sleep(0.02)
        cluster.s_cnn[0].resume()
        await load.served(2 * members)


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_no_request_is_lost_when_a_parity_worker_goes(fault: str, tmp_path: Path) -> None:
    """Of two redundant inputs one is left, from which one missing answer still follows."""
    async with under_load(tmp_path, 3, 2, "collage") as (cluster, load):
        victim = cluster.rows[1][0]
        await victim.kill() if fault == "kill" else victim.freeze()
        cluster.s_cnn[0].freeze()
        async with asyncio.timeout(30):
            while not load.sources & {"PARITY", "REPLICA"}:
                await asyncio.sleep(0.02)
        await load.served(9)
        cluster.s_cnn[0].resume()
        await victim.start() if fault == "kill" else victim.resume()
        await load.served(9)


async def test_no_request_is_lost_when_the_worker_of_a_stacked_code_goes(tmp_path: Path) -> None:
    """It decodes whoever is not answered yet, both members of a group too, as soon as its one output is back."""
    async with under_load(tmp_path, 2, 1, "first-come", "stacked") as (cluster, load):
        redundant = cluster.coded[0]
        cluster.s_cnn[0].freeze()
        async with asyncio.timeout(30):
            while "PARITY" not in load.sources:
                await asyncio.sleep(0.02)
        cluster.s_cnn[0].resume()
        redundant.freeze()
        await load.served(8)
        redundant.resume()
        await redundant.kill()
        await load.served(8)
        await redundant.start()
        await load.served(8)


async def test_a_killed_base_worker_is_no_loss(tmp_path: Path) -> None:
    async with under_load(tmp_path, 2, 1, "adaptive") as (cluster, load):
        await cluster.s_cnn[0].kill()
        await load.served(16)
        await cluster.s_cnn[0].start()
        await load.served(8)
