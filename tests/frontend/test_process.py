"""The frontend as a whole: its arguments, what it records, and tasks other than classification."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from bench.cluster.local import Cluster
from collage.answers import Prediction
from collage.client import Client
from collage.model_info import ErrorRate
from encoder.linear import mean_weights
from encoder.tasks import TASKS
from frontend.__main__ import one_list
from frontend.policy.events import Answered, Arrived, CodedWorkers
from frontend.recorder import read
from models.calibrate import write_sidecar
from tests.onnx_models import linear_outputs, save_collage_cnn, save_linear, save_parity, save_s_cnn, solid

SIZE = 8


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (["--coded-workers", "a:1", "b:2", "--policy", "none"], ["--coded-workers", "a:1 b:2", "--policy", "none"]),
        (["--coded-workers", "a:1,a:2"], ["--coded-workers", "a:1,a:2"]),
        (["--coded-workers"], ["--coded-workers"]),
        (["--policy", "none", "stray"], ["--policy", "none", "stray"]),
        (["--coded-workers", "a:1", "--port", "5", "stray"], ["--coded-workers", "a:1", "--port", "5", "stray"]),
    ],
)
def test_lists_of_coded_workers_are_one_value(given: list[str], taken: list[str]) -> None:
    assert one_list(given) == taken


async def test_events_are_written_on_a_signal_and_at_exit(tmp_path: Path) -> None:
    from collage.tensors import to_tensor
    from collage.v1 import predict_pb2
    from tests.frontend.fakes import image
    from tests.frontend.grpc_workers import cluster

    path = tmp_path / "events.jsonl"
    async with cluster(events_file=path) as (stub, _, _):
        await stub.Predict(predict_pb2.PredictRequest(tensor=to_tensor(image(3)), request_id="a"))
        os.kill(os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(10):
            while not path.exists():
                await asyncio.sleep(0.01)
        header, batches = read(path)
        assert (header["workers"], header["coded_workers"]) == (2, 1)
        assert {type(event) for batch in batches for event in batch} >= {Arrived, Answered, CodedWorkers}
        assert sum(isinstance(event, Arrived) for batch in batches for event in batch) == 1
        await stub.Predict(predict_pb2.PredictRequest(tensor=to_tensor(image(4)), request_id="b"))
    _, batches = read(path)
    assert sum(isinstance(event, Arrived) for batch in batches for event in batch) == 2


async def test_a_localiser_is_served_and_protected_by_a_parity_model(tmp_path: Path) -> None:
    """The caller gets a box; that of a frozen worker's request is decoded from the parity model's and the other's."""
    base = save_linear(tmp_path / "f.onnx", size=SIZE, task="localisation")
    parity = save_parity(
        tmp_path / "p.onnx", size=SIZE, task="localisation", weights=tuple(mean_weights(2, 1)[0].tolist())
    )
    image = np.random.default_rng(0).integers(0, 128, (SIZE, SIZE, 3), np.uint8) * 2
    flags = ("--policy", "collage-only", "--deadline-s", "0.3", "--extra-load", "1")
    cluster = Cluster(base, [parity], s_cnn_workers=2, frontend_flags=flags, logs=tmp_path / "logs")
    async with cluster, Client(cluster.frontend.address) as client:
        answer = await client.predict(image, timeout_s=5)
        exact = TASKS["localisation"].answer(linear_outputs(image, 4))
        assert answer.box is not None
        assert (answer.box.left, answer.box.top, answer.box.right, answer.box.bottom) == pytest.approx(exact, abs=1e-4)
        assert answer.classes == ()
        cluster.s_cnn[0].freeze()
        sources = set()
        for _ in range(20):
            both = await asyncio.gather(*(client.predict(image, timeout_s=5) for _ in range(2)))
            sources |= {each.source for each in both}
            for each in both:
                assert each.box is not None
                assert (each.box.left, each.box.bottom) == pytest.approx((exact[0], exact[3]), abs=1e-3)
            if "PARITY" in sources:
                break
        cluster.s_cnn[0].resume()
        assert "PARITY" in sources


async def test_the_budget_of_accuracy_decides_between_coded_answers_and_replicas(tmp_path: Path) -> None:
    """Its worker is frozen: a request is replicated while the budget is 0, and answered from the collage without one.

    What an answer costs is in the sidecar of the collage-cnn, and travels from its worker to the frontend's metrics.
    """
    collage = save_collage_cnn(tmp_path / "c.onnx", k=2, cell=8)
    write_sidecar(collage, (ErrorRate(0.0, 0.5, 0.125, 0.5),))
    flags = ("--policy", "collage", "--deadline-s", "0.3", "--extra-load", "2")
    cluster = Cluster(
        save_s_cnn(tmp_path / "f.onnx"),
        [collage],
        s_cnn_workers=4,
        frontend_flags=(*flags, "--accuracy-budget", "0"),
        logs=tmp_path / "logs",
    )

    async def rescued_by(source: str) -> tuple[float, float]:
        """How many coded answers there are, and at which cost, when a straggler was answered by this source."""

        async def many(client: Client) -> list[Prediction]:
            return await asyncio.gather(*(client.predict(solid("red", SIZE), timeout_s=5) for _ in range(16)))

        async with Client(cluster.frontend.address) as client:
            await many(client)  # or a frontend that has just started would never use the worker
            cluster.s_cnn[0].freeze()
            for _ in range(20):
                answers = await many(client)
                assert {answer.classes[0].label for answer in answers} == {"red"}
                if source in (sources := {answer.source for answer in answers}):
                    break
        cluster.s_cnn[0].resume()
        told = await cluster.frontend.metrics()
        coded = told.value("collage_answers_total", source="collage")
        assert source in sources
        return coded, told.value("collage_accuracy_spent_total", given="straggler")

    async with cluster:
        assert await rescued_by("REPLICA") == (0, 0)
        await cluster.restart_frontend(flags)
        coded, spent = await rescued_by("COLLAGE")  # a frontend that has just started may not know its worker yet
    assert spent == 0.625 * coded > 0
