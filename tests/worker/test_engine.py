"""The engine: who gets the slot and for how long, with real inference and with injected slowness."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from collage.errors import DeadlineExceeded, ResourceExhausted
from tests import onnx_models
from tests.onnx_models import solid
from tests.worker.conftest import BOUND_S, Launch, until

LONG = "fixed:600"


async def test_expired_work_is_dropped_even_when_nobody_cancels_it(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn)
    with pytest.raises(DeadlineExceeded):
        await client.worker.engine.infer(solid("red", 8), time_remaining=0.0)
    assert (client.count("dropped"), client.started) == (1, 0)


async def test_the_engine_refuses_with_a_status_of_its_own(launch: Launch, s_cnn: Path) -> None:
    engine = (client := await launch(s_cnn, queue_size=0, slowdown=LONG)).worker.engine
    running = asyncio.create_task(engine.infer(solid("red", 8)))
    await until(lambda: client.started == 1)
    with pytest.raises(ResourceExhausted):
        await engine.infer(solid("red", 8))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("how", ["cancel", "disconnect", "deadline"])
async def test_a_running_session_stops_when_its_caller_goes(launch: Launch, endless: Path, how: str) -> None:
    client = await launch(endless, start=False)
    await client.worker.server.start()  # without the warm-up, which would take forever
    call = client.ask(timeout=0.3 if how == "deadline" else BOUND_S)
    await until(lambda: client.started == 1)
    if how == "cancel":
        call.cancel()
    elif how == "disconnect":
        await client.channel.close()
        del client.channel
    loop = asyncio.get_running_loop()
    gone = loop.time() + (0.3 if how == "deadline" else 0)
    await until(lambda: client.count("cancelled") == 1)
    assert loop.time() - gone < 2.0, "the session went on"

    following = client.ask()
    await until(lambda: client.started == 2)
    assert client.metric("queue_seconds_sum") < 2.0
    following.cancel()
    await until(lambda: client.count("cancelled") == 2)


async def test_cancelling_twice_still_runs_one_inference_at_a_time(launch: Launch, endless: Path) -> None:
    engine = (client := await launch(endless, start=False)).worker.engine
    first = asyncio.create_task(engine.infer(solid("red", 8)))
    await until(lambda: client.started == 1)
    for _ in range(2):
        first.cancel()
        await asyncio.sleep(0)
    second = asyncio.create_task(engine.infer(solid("red", 8)))
    await until(lambda: client.started == 2)
    with pytest.raises(asyncio.CancelledError):
        await first
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert client.count("cancelled") == 2


async def test_cancelling_frees_a_slot_held_by_injected_slowness(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, slowdown=LONG)
    running = client.ask()
    await until(lambda: client.started == 1)
    following = client.ask()
    await until(lambda: client.waiting == 1)
    running.cancel()
    await until(lambda: client.started == 2)
    assert (client.count("cancelled"), client.waiting) == (1, 0)
    assert client.metric("busy_seconds_total") < BOUND_S
    following.cancel()


async def test_injected_slowness_is_a_lower_bound_of_the_service_time(launch: Launch, tmp_path: Path) -> None:
    quick = await launch(onnx_models.save_s_cnn(tmp_path / "quick.onnx"), slowdown="fixed:0.4", slowdown_scale=0.5)
    response = await quick.ask()
    assert 0.2 <= response.inference_s < 0.4
    assert quick.metric("slowdown_seconds_sum") == pytest.approx(0.2)
    assert quick.metric("inference_seconds_sum") == pytest.approx(response.inference_s)


async def test_real_inference_counts_towards_injected_slowness(launch: Launch, tmp_path: Path) -> None:
    file = onnx_models.save_s_cnn(tmp_path / "slow.onnx", loops=5_000)
    short = await launch(file, slowdown="fixed:0.0001")
    real = min([(await short.ask()).inference_s for _ in range(5)])
    assert real > 0.001
    long = await launch(file, slowdown=f"fixed:{2 * real}")
    served = min([(await long.ask()).inference_s for _ in range(5)])  # the least disturbed by other processes
    assert 2 * real <= served < 2.5 * real


async def test_a_collage_worker_is_a_tenth_faster(launch: Launch, tmp_path: Path) -> None:
    client = await launch(onnx_models.save_collage_cnn(tmp_path / "m.onnx"), slowdown="fixed:0.1")
    response = await client.ask(solid("red", 8))
    assert client.metric("slowdown_seconds_sum") == pytest.approx(0.09)
    assert response.inference_s >= 0.09


async def test_draws_follow_request_and_attempt(launch: Launch, s_cnn: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "trace.npy", np.linspace(0.001, 0.01, 1000, dtype=np.float32))
    drawn = []
    for seed in (1, 1, 2):
        client = await launch(s_cnn, slowdown=f"trace:{tmp_path}/trace.npy", slowdown_seed=seed)
        sums = [0.0]
        for request_id, attempt in (("a", 0), ("a", 1), ("b", 0), ("a", 0)):
            await client.ask(request_id=request_id, attempt=attempt)
            sums.append(client.metric("slowdown_seconds_sum"))
        drawn.append(np.diff(sums).round(9).tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0][0] == drawn[0][3]
    assert len(set(drawn[0])) == 3


async def test_nothing_is_drawn_when_slowness_is_off(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn)
    await client.ask()
    assert client.metric("slowdown_seconds_count") == 0
