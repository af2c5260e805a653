"""The Open Inference Protocol on an s-cnn worker, by a stock client in its own process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import numpy as np
import pytest

from collage.model_info import LOCALISATION
from encoder.tasks import TASKS
from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc as oip_grpc
from tests import onnx_models
from tests.onnx_models import COLOURS, solid
from tests.triton import png, triton
from tests.worker.conftest import BOUND_S, Launch, until


async def test_a_stock_client_needs_no_frontend(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, queue_size=0)
    port = client.worker.server.port
    many = 11 * COLOURS[:3]
    told = await triton("describe", port)
    answers = await triton(
        "infer",
        port,
        [
            {"model": "colours", "data": [solid(colour, 8).tolist() for colour in many]},
            {"model": "colours", "data": [png(solid("blue", 20))], "datatype": "BYTES", "classes": 1},
            {"model": "colours", "data": [solid("green", 8).tolist()], "datatype": "FP32", "typed": True},
            {"model": "colours", "data": [png(solid("red", 8)), "00"], "datatype": "BYTES"},
            {"model": "colours", "data": [solid("red", 9).tolist()]},
            {"model": "color", "data": [solid("red", 8).tolist()]},
        ],
    )
    version = str(int(client.worker.engine.model.info.version, 16))
    assert told["ready"] is told["model_ready"] is True
    assert told["metadata"]["name"] == "colours"
    assert told["metadata"]["versions"] == [version]
    assert [COLOURS[int(np.argmax(row))] for row in answers[0]["values"]] == list(many)
    assert answers[0]["parameters"]["source"] == ",".join(33 * ["S_CNN"])
    assert answers[0]["model"] == ["colours", version]
    assert answers[1]["values"] == [[f"{np.e / (np.e + 2):f}:2:blue"]]
    assert int(np.argmax(answers[2]["values"][0])) == COLOURS.index("green")
    assert [answer["status"].removeprefix("StatusCode.") for answer in answers[3:]] == [
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
    ]
    assert "row 1: not a JPEG" in answers[3]["message"]
    assert client.count("ok") == 33 + 1 + 1 + 1


async def test_a_stock_client_gets_boxes(launch: Launch, tmp_path: Path) -> None:
    client = await launch(onnx_models.save_linear(tmp_path / "boxes.onnx", task=LOCALISATION))
    port = client.worker.server.port
    pixels = np.random.default_rng(3).integers(0, 256, (2, 8, 8, 3), np.uint8)
    told = await triton("describe", port)
    plain, named, classes = await triton(
        "infer",
        port,
        [
            {"model": "linear", "data": pixels.tolist()},
            {"model": "linear", "data": pixels.tolist(), "outputs": ["box"]},
            {"model": "linear", "data": pixels.tolist(), "outputs": ["box"], "classes": 2},
        ],
    )
    assert told["metadata"]["outputs"] == [{"name": "box", "datatype": "FP32", "shape": ["-1", "4"]}]
    assert told["config"]["output"] == [{"name": "box", "data_type": "TYPE_FP32", "dims": ["4"]}]
    assert plain["output"] == named["output"] == "box"
    expected = [TASKS[LOCALISATION].answer(onnx_models.linear_outputs(image, 4)).tolist() for image in pixels]
    assert plain["values"] == named["values"] == expected
    assert "'box' has no classes" in classes["message"]


def images(count: int) -> oip.ModelInferRequest:
    pixels = np.stack(count * [solid("red", 8)])
    shape = oip.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=pixels.shape)
    return oip.ModelInferRequest(model_name="colours", inputs=[shape], raw_input_contents=[pixels.tobytes()])


async def test_a_batch_takes_one_place_in_the_queue(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, queue_size=1, slowdown="fixed:0.1")
    batch = asyncio.ensure_future(oip_grpc.GRPCInferenceServiceStub(client.channel).ModelInfer(images(4)))
    await until(lambda: client.started == 1)
    await client.ask()  # goes in between
    assert client.started < 4
    assert list((await batch).outputs[0].shape) == [4, 3]


async def test_no_more_requests_than_may_queue_are_taken_in(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, queue_size=2, slowdown="fixed:0.2")
    stub = oip_grpc.GRPCInferenceServiceStub(client.channel)
    ended = await asyncio.gather(*(stub.ModelInfer(images(1)) for _ in range(8)), return_exceptions=True)
    refused = [error for error in ended if isinstance(error, grpc.aio.AioRpcError)]
    assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len(refused) == 5  # one runs, two wait
    assert all("3 requests are here already" in (error.details() or "") for error in refused), "before any is decoded"


async def test_a_timeout_of_the_wrong_type_is_refused(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn)
    request = images(1)
    request.parameters["timeout"].string_param = "500000"
    with pytest.raises(grpc.aio.AioRpcError, match="timeout must be a whole number") as caught:
        await oip_grpc.GRPCInferenceServiceStub(client.channel).ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("given", ["gRPC deadline", "parameter"])
async def test_a_batch_ends_with_its_callers_time(launch: Launch, s_cnn: Path, given: str) -> None:
    client = await launch(s_cnn, slowdown="fixed:0.2")
    request = images(100)
    if given == "parameter":
        request.parameters["timeout"].int64_param = 500_000
    stub = oip_grpc.GRPCInferenceServiceStub(client.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(request, timeout=BOUND_S if given == "parameter" else 0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: client.count("cancelled") == 1)
    assert client.started <= 3
    await client.ask()


async def test_a_draining_worker_lives_and_is_not_ready(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, drain_delay_s=1.0)
    stub = oip_grpc.GRPCInferenceServiceStub(client.channel)
    assert (await stub.ServerReady(oip.ServerReadyRequest())).ready
    stopping = asyncio.create_task(client.worker.stop())
    await until(lambda: not client.worker.server.serving)
    assert not (await stub.ServerReady(oip.ServerReadyRequest())).ready
    assert not (await stub.ModelReady(oip.ModelReadyRequest(name="colours"))).ready
    assert (await stub.RepositoryIndex(oip.RepositoryIndexRequest())).models[0].state == "UNAVAILABLE"
    assert not (await stub.RepositoryIndex(oip.RepositoryIndexRequest(ready=True))).models
    assert (await stub.ServerLive(oip.ServerLiveRequest())).live
    await stopping


async def test_a_failing_model_tells_the_caller_nothing_of_its_insides(launch: Launch, tmp_path: Path) -> None:
    client = await launch(onnx_models.save_fragile(tmp_path / "fragile.onnx"))
    request = images(2)
    request.model_name = "fragile"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await oip_grpc.GRPCInferenceServiceStub(client.channel).ModelInfer(request, timeout=BOUND_S)
    assert (caught.value.code(), caught.value.details()) == (
        grpc.StatusCode.INTERNAL,
        "internal error: see the server's log",
    )


async def test_an_image_with_too_many_pixels_is_refused(launch: Launch, s_cnn: Path) -> None:
    client = await launch(s_cnn, max_pixels=99)
    told = await triton(
        "infer",
        client.worker.server.port,
        [{"model": "colours", "data": [png(solid("red", side))], "datatype": "BYTES"} for side in (9, 10)],
    )
    assert "values" in told[0]
    assert "10 x 10 pixels, more than the 99 allowed" in told[1]["message"]


@pytest.mark.parametrize("scores", [(np.nan, 0, 0), (0, np.inf, 0), (-np.inf,) * 3])
async def test_scores_that_make_no_sense_are_no_answer_by_either_protocol(
    launch: Launch, tmp_path: Path, scores: tuple[float, ...]
) -> None:
    client = await launch(onnx_models.save_fragile(tmp_path / "m.onnx", scores=((0, 1, 2), scores)))
    pixels = solid("blue", 8)
    pixels[0, 0, 0] = 1
    shape = oip.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[1, *pixels.shape])
    asked = oip.ModelInferRequest(model_name="fragile", inputs=[shape], raw_input_contents=[pixels.tobytes()])
    for call in (client.ask(pixels), oip_grpc.GRPCInferenceServiceStub(client.channel).ModelInfer(asked)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "makes no sense: a score is no number, or all are minus infinity" in str(caught.value.details())
    assert (client.count("failed"), client.count("ok")) == (2, 0)
    await client.ask(solid("blue", 8))
