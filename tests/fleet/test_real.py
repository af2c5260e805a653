"""A frontend in front of real Triton and MLServer servers, which ``make test-fleet`` installs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.cluster.fleets import Child, Make, ServerFleet
from collage.client import Client
from frontend.workers import OpenInferenceTransport, Reply, WorkerFailure, read_description
from frontend.workers.streams import Ending
from tests import onnx_models
from tests.frontend.fleet_workers import closing
from tests.onnx_models import COLOURS, solid
from worker.model import ServedModel

ROOT = Path(__file__).parents[2]
PYTHONS = {
    "triton": Path(os.environ.get("TRITON_PYTHON", ROOT / ".venv-triton/bin/python")),
    "mlserver": Path(os.environ.get("MLSERVER_PYTHON", ROOT / ".venv-mlserver/bin/python")),
}
BOUND_S = 30.0


@pytest.fixture(params=PYTHONS)
def make(request: pytest.FixtureRequest) -> Make:
    name: str = request.param
    if not PYTHONS[name].exists():
        pytest.skip(f"there is no {name}: make test-fleet installs it")
    return Make(name, PYTHONS[name])


@asynccontextmanager
async def started(make: Make, folder: Path, least_s: float = 0.0) -> AsyncIterator[tuple[ServerFleet, Child, Client]]:
    """Three servers with the s-cnn, one with the collage-cnn, and a frontend that has found them."""
    s_cnn = onnx_models.save_s_cnn(folder / "colours.onnx")
    collage = onnx_models.save_collage_cnn(folder / "collage.onnx")
    async with ServerFleet(make, folder, s_cnn, collage, servers=3, least_s=least_s, logs=folder / "logs") as fleet:
        frontend = await fleet.frontend("frontend", "--policy", "adaptive", "--extra-load", "2", "--deadline-s", "0.5")
        await fleet.until_ready([frontend])
        async with Client(frontend.address) as client:
            yield fleet, frontend, client


async def ask(client: Client, count: int) -> list[str]:
    """Sources of the answers to images, which must be right, sent together."""
    sent = [client.predict(solid(COLOURS[number % 3], 8), timeout_s=BOUND_S) for number in range(count)]
    answers = await asyncio.gather(*sent)
    assert [answer.label for answer in answers] == [COLOURS[number % 3] for number in range(count)]
    return [answer.source for answer in answers]


@pytest.mark.timeout(300)
async def test_nothing_is_lost_when_a_server_freezes_and_another_is_killed(make: Make, tmp_path: Path) -> None:
    async with started(make, tmp_path, least_s=0.05) as (fleet, frontend, client):
        for _ in range(5):
            await ask(client, 8)
        before = (await frontend.metrics()).value("collage_answers_total", source="s_cnn")
        assert before > 0
        fleet.servers[0].freeze()
        for _ in range(10):
            await ask(client, 8)
        await fleet.servers[1].kill()
        for _ in range(5):
            await ask(client, 8)
        metrics = await frontend.metrics()
        helped = sum(metrics.value("collage_answers_total", source=source) for source in ("collage", "replica"))
        assert helped > 0
        fleet.servers[0].resume()
        await fleet.servers[1].restart()
        await fleet.until_ready([frontend])
        await ask(client, 8)


def plain(folder: Path, **sidecar_of: Any) -> Path:
    return onnx_models.save_plain(folder / "plain.onnx", sidecar={"name": "plain", "kind": "s-cnn", **sidecar_of})


@pytest.mark.timeout(300)
async def test_a_float_model_answers_as_on_a_worker_of_ours(make: Make, tmp_path: Path) -> None:
    said = {"labels": list(COLOURS), "size": 8, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    path = plain(tmp_path, **said)
    collage = onnx_models.save_collage_cnn(tmp_path / "collage.onnx")
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    ours = ServedModel(path)
    want = (await ours.run(image))[0]
    ours.close()
    async with ServerFleet(make, tmp_path, path, collage, servers=1, least_s=0.2, logs=tmp_path / "logs") as fleet:
        description = read_description(fleet.s_cnn_description)
        link = OpenInferenceTransport(fleet.servers[0].address, description, 1 << 20)
        async with closing(link):
            info = await link.ping()
            assert info.version == ("1" if make.name == "triton" else "")
            reply = await answer(link, image)
            assert isinstance(reply, Reply)
            assert info.problem(reply.outputs) is None
            np.testing.assert_allclose(reply.outputs[0], want, rtol=1e-5, atol=1e-5)
            late = await answer(link, image, timeout_s=0.05)
            assert isinstance(late, WorkerFailure)
            assert late.code == "DEADLINE_EXCEEDED"
            told: list[bool] = []
            watching = asyncio.create_task(link.watch(told.append))
            async with asyncio.timeout(BOUND_S):
                while not told:
                    await asyncio.sleep(0.01)
                assert told[0]
                await fleet.servers[0].stop()
                await asyncio.wait([watching])
            watching.exception()  # retrieved: it said that it is not ready, or the connection broke


async def answer(link: OpenInferenceTransport, image: np.ndarray, timeout_s: float = BOUND_S) -> Ending:
    ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
    link.run(image, "mine", 0, timeout_s, ended.set_result)
    return await ended


@pytest.mark.timeout(300)
async def test_a_model_of_another_shape_or_name_is_refused(make: Make, tmp_path: Path) -> None:
    s_cnn = onnx_models.save_s_cnn(tmp_path / "colours.onnx")
    collage = onnx_models.save_collage_cnn(tmp_path / "collage.onnx")
    async with ServerFleet(make, tmp_path, s_cnn, collage, servers=1, logs=tmp_path / "logs") as fleet:
        for change, problem in (
            (('"size": 8', '"size": 9'), "its input is 'image' UINT8"),
            (
                ('"name": "colours"', '"name": "other"'),
                "other",
            ),
        ):
            file = tmp_path / "changed.json"
            file.write_text(fleet.s_cnn_description.read_text().replace(*change))
            link = OpenInferenceTransport(fleet.servers[0].address, read_description(file), 1 << 20)
            async with closing(link):
                with pytest.raises((WorkerFailure, ValueError), match=problem):
                    await link.ping()
