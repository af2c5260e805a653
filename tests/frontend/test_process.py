"""The frontend as a whole: its arguments, what it records, and tasks other than classification."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from bench.cluster.local import Cluster
from collage.client import Client
from encoder.linear import mean_weights
from frontend.__main__ import one_list
from frontend.policy.events import Answered, Arrived, CodedWorkers
from frontend.recorder import read
from tests.onnx_models import linear_outputs, save_linear, save_parity

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
        exact = linear_outputs(image, 4).clip(0, 1)
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
