"""The worker's services over real gRPC, with tiny models."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from numpy.typing import NDArray

from collage.model_info import ModelInfo
from collage.tensors import floats_from_tensor, to_tensor
from collage.v1 import model_pb2, model_pb2_grpc
from tests import onnx_models
from tests.onnx_models import COLOURS, solid
from tests.worker.conftest import BOUND_S, Launch, until
from worker.server import ATTEMPT_HEADER, proxied_attempt
from worker.slowdown import Slowdown

LONG = "fixed:600"


@pytest.mark.parametrize("colour", COLOURS)
async def test_an_image_gets_its_scores(launch: Launch, s_cnn: Path, colour: str) -> None:
    client = await launch(s_cnn)
    response = await client.ask(solid(colour, 8))
    scores = floats_from_tensor(response.outputs[0], [3])
    assert scores.tolist() == [float(name == colour) for name in COLOURS]
    assert 0 <= response.queue_s < BOUND_S
    assert 0 < response.inference_s < BOUND_S
    assert client.count("ok") == client.metric("inference_seconds_count") == 1
    assert client.metric("busy_seconds_total") > 0


async def test_a_collage_gets_its_detections(launch: Launch, tmp_path: Path) -> None:
    client = await launch(onnx_models.save_collage_cnn(tmp_path / "collage.onnx", k=2, cell=4))
    collage = np.full((8, 8, 3), 128, np.uint8)
    collage[:4, 4:] = solid("green", 4)
    response = await client.ask(collage)
    assert floats_from_tensor(response.outputs[0], [4, 4])[1].tolist() == [0.5, 0, 1, 0.5]
    assert floats_from_tensor(response.outputs[1], [4]).tolist() == [0, 1, 0, 0]
    probabilities = floats_from_tensor(response.outputs[2], [4, 3])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert probabilities[1].argmax() == COLOURS.index("green")


async def test_a_worker_describes_its_model(launch: Launch, tmp_path: Path) -> None:
    file = onnx_models.save_collage_cnn(tmp_path / "m.onnx", k=3, detection_threshold=0.25, accept_threshold=0.75)
    client = await launch(file)
    stub = model_pb2_grpc.ModelServiceStub(client.channel)
    info = ModelInfo.from_proto(await stub.GetModelInfo(model_pb2.GetModelInfoRequest()))
    version = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    expected = ModelInfo.collage("colour-collages", COLOURS, 12, 3, 0.25, accept_threshold=0.75, version=version)
    assert info == replace(expected, outputs=info.outputs)
    assert [(spec.name, spec.shape) for spec in info.outputs] == [
        ("boxes", (9, 4)),
        ("confidences", (9,)),
        ("class_probabilities", (9, 3)),
    ]


@pytest.mark.parametrize("kind", ["s-cnn", "collage-cnn", "parity"])
async def test_every_kind_is_served_by_one_service(launch: Launch, tmp_path: Path, kind: str) -> None:
    save = {
        "s-cnn": onnx_models.save_s_cnn,
        "collage-cnn": onnx_models.save_collage_cnn,
        "parity": onnx_models.save_parity,
    }
    client = await launch(save[kind](tmp_path / "m.onnx"))
    stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    names = {service.name for service in (await call.read()).list_services_response.service}
    call.cancel()
    assert names == {
        "collage.v1.ModelService",
        *(["inference.GRPCInferenceService"] if kind == "s-cnn" else []),
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (solid("red", 9), "[9, 9, 3]"),
        (np.zeros((8, 8), np.uint8), "[8, 8]"),
        (np.zeros((8, 8, 3), np.float32), "float32"),
    ],
)
async def test_a_wrong_tensor_is_refused(launch: Launch, s_cnn: Path, image: NDArray[Any], told: str) -> None:
    client = await launch(s_cnn)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.ask(image)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert told in str(caught.value.details())
    assert "uint8 tensor of shape [8, 8, 3]" in str(caught.value.details())
    assert (client.count("invalid"), client.started) == (1, 0)
    await client.ask(solid("red", 8))


async def test_a_request_without_a_tensor_is_refused(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await model_pb2_grpc.ModelServiceStub(client.channel).Run(model_pb2.RunRequest())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_failing_model_tells_the_caller_nothing_of_its_insides(
    launch: Launch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = await launch(onnx_models.save_fragile(tmp_path / "fragile.onnx"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.ask(solid("red", 8))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "internal error: see the server's log"
    assert "Gather" in caplog.text
    assert client.count("failed") == 1
    await client.ask(solid("green", 8))
    assert client.count("ok") == 1


async def test_a_message_over_the_limit_is_refused(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, max_message_bytes=4096)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.ask(np.zeros((64, 64, 3), np.uint8))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "4096" in str(caught.value.details())
    await client.ask()


async def test_a_full_queue_refuses_at_once(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, queue_size=2, slowdown=LONG)
    waiting = [client.ask() for _ in range(3)]
    await until(lambda: client.waiting == 2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.ask()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2 calls are waiting here already: send to another worker, or try again later" in str(caught.value.details())
    assert (client.count("rejected"), client.started, client.waiting) == (1, 1, 2)
    for call in waiting:
        call.cancel()
    await until(lambda: client.count("dropped") + client.count("cancelled") == 3)
    assert client.waiting == 0
    waiting = [client.ask() for _ in range(3)]
    await until(lambda: client.waiting == 2)
    for call in waiting:
        call.cancel()


async def test_a_queue_too_long_for_the_callers_deadline_refuses_at_once(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, slowdown="fixed:0.2")
    await client.ask()  # so that it is known how long one takes
    waiting = [client.ask() for _ in range(3)]
    await until(lambda: client.waiting == 2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.ask(timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "leaves no time for this call: send to another worker" in str(caught.value.details())
    pushback = dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"]
    assert 200 <= int(pushback) < 1000 * BOUND_S
    assert (client.count("rejected"), client.waiting) == (1, 2)
    for call in waiting:
        await call


async def test_an_idle_worker_takes_whatever_comes(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, slowdown="fixed:0.2")
    await client.ask()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.ask(timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_queue_of_size_0_lets_nobody_wait(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, queue_size=0, slowdown=LONG)
    running = client.ask()
    await until(lambda: client.started == 1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.ask()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    running.cancel()


async def test_waiting_calls_are_served_in_order_one_at_a_time(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, slowdown="fixed:0.05")
    finished: list[int] = []

    async def call(number: int) -> model_pb2.RunResponse:
        response = await client.ask(request_id=str(number))
        finished.append(number)
        return response

    calls: list[asyncio.Task[model_pb2.RunResponse]] = []
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            calls.append(group.create_task(call(number)))
            await until(lambda: client.started + client.waiting == len(calls))
    assert finished == [0, 1, 2]
    assert calls[2].result().queue_s >= 0.05
    assert client.metric("busy_seconds_total") >= 0.15


async def test_work_of_a_caller_who_is_gone_never_starts(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, slowdown=LONG)
    running = client.ask()
    await until(lambda: client.started == 1)
    waiting = client.ask()
    await until(lambda: client.waiting == 1)
    waiting.cancel()
    await until(lambda: client.count("dropped") == 1)
    running.cancel()
    await until(lambda: client.count("cancelled") == 1)
    assert client.started == client.metric("slowdown_seconds_count") == 1
    assert client.waiting == 0


async def test_work_whose_deadline_passes_in_the_queue_never_starts(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, slowdown=LONG)
    running = client.ask()
    await until(lambda: client.started == 1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.ask(timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: client.count("dropped") == 1)
    assert client.started == 1
    running.cancel()


async def test_metrics_are_on_their_port(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn)
    await client.ask()
    reader, writer = await asyncio.open_connection("127.0.0.1", client.worker.server.metrics_port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    async with asyncio.timeout(BOUND_S):
        page = (await reader.read()).decode()
    writer.close()
    assert 'collage_worker_requests_total{outcome="ok"} 1.0' in page


@pytest.mark.parametrize(
    ("value", "expected"), [("1", 0), ("2", 1), ("100", 99), ("0", 0), ("-3", 0), ("many", 0), ("9" * 99, 0), (b"2", 0)]
)
def test_a_proxy_counts_copies_from_one_and_anything_else_is_made_up(value: str | bytes, expected: int) -> None:
    assert proxied_attempt((("other", "7"), (ATTEMPT_HEADER, value))) == expected
    assert proxied_attempt(()) == proxied_attempt(None) == 0


async def test_a_copy_that_a_proxy_sends_draws_slowness_of_its_own(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, slowdown="bimodal:0.001,0.05,0.5", slowdown_seed=3)
    draw = Slowdown("bimodal:0.001,0.05,0.5", seed=3).draw
    stub = model_pb2_grpc.ModelServiceStub(client.channel)
    request = model_pb2.RunRequest(input=to_tensor(np.zeros((8, 8, 3), np.uint8)), request_id="r")
    total = 0.0
    for metadata, attempt in (((), 0), ((("x-envoy-attempt-count", "2"),), 1), ((("x-envoy-attempt-count", "3"),), 2)):
        await stub.Run(request, timeout=BOUND_S, metadata=metadata)
        total += draw("r", attempt)
        assert client.metric("slowdown_seconds_sum") == pytest.approx(total)
    assert len({draw("r", attempt) for attempt in range(3)}) == 3
