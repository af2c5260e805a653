"""Limits of the operator and of callers, by every way to ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc
import numpy as np
import pytest

from collage.tensors import to_tensor
from collage.v1 import predict_pb2
from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc as oip_grpc
from tests.frontend.fakes import LABELS, image
from tests.frontend.grpc_workers import Slowness, cluster
from tests.triton import png

LATE = "DEADLINE_EXCEEDED"
Ask = Callable[[Any, grpc.aio.Channel], Awaitable[str]]


def request() -> predict_pb2.PredictRequest:
    return predict_pb2.PredictRequest(request_id="late", tensor=to_tensor(image(3)))


async def unary(stub: Any, channel: grpc.aio.Channel) -> str:
    try:
        await stub.Predict(request(), timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "answered"


async def stream(stub: Any, channel: grpc.aio.Channel) -> str:
    message = predict_pb2.PredictStreamRequest(request=request(), timeout_s=60)
    (answer,) = [answer async for answer in stub.PredictStream(iter([message]), timeout=60)]
    return next(code.name for code in grpc.StatusCode if code.value[0] == answer.error.code)


async def open_inference(stub: Any, channel: grpc.aio.Channel, timeout_us: int = 60_000_000) -> str:
    pixels = image(3)
    tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=(1, *pixels.shape))
    asked = oip.ModelInferRequest(model_name="s", id="late", inputs=[tensor], raw_input_contents=[pixels.tobytes()])
    asked.parameters["timeout"].int64_param = timeout_us
    try:
        await oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(asked, timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "answered"


@pytest.mark.parametrize("ask", [unary, stream, open_inference])
async def test_no_caller_gets_longer_than_the_operator_allows(ask: Ask) -> None:
    async with cluster(s_cnn=1, slowness=Slowness(late=50.0), policy="none", timeout_s=0.3) as (stub, _, channel):
        async with asyncio.timeout(20):
            assert await ask(stub, channel) == LATE


async def test_an_image_of_a_stream_gets_no_longer_than_it_asks_for() -> None:
    async with cluster(s_cnn=1, slowness=Slowness(late=50.0), policy="none", timeout_s=60) as (stub, _, _):
        message = predict_pb2.PredictStreamRequest(request=request(), timeout_s=0.3)
        async with asyncio.timeout(20):
            (answer,) = [answer async for answer in stub.PredictStream(iter([message]), timeout=60)]
    assert answer.error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


async def test_a_stream_is_read_at_the_pace_of_its_answers() -> None:
    slowness = Slowness(**{f"r{number}": 0.1 for number in range(6)})
    async with cluster(slowness=slowness, policy="none", max_in_flight=2) as (stub, _, _):
        tensor = to_tensor(image(3))
        messages = [
            predict_pb2.PredictStreamRequest(request=predict_pb2.PredictRequest(request_id=id, tensor=tensor))
            for id in slowness.seconds
        ]
        answers = [answer async for answer in stub.PredictStream(iter(messages), timeout=20)]
    assert sorted(answer.request_id for answer in answers) == sorted(slowness.seconds)
    assert {answer.WhichOneof("result") for answer in answers} == {"response"}, "none is one too many"


async def test_an_id_of_a_stream_is_free_again_once_it_is_answered() -> None:
    async with cluster(policy="none") as (stub, _, _):
        call = stub.PredictStream(timeout=20)
        for _ in range(2):
            await call.write(predict_pb2.PredictStreamRequest(request=request()))
            assert (await call.read()).WhichOneof("result") == "response"
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK


async def test_a_callers_deadline_is_known_before_it_is_over() -> None:
    settings = {"policy": "none", "timeout_s": 60, "default_label": LABELS[2]}
    async with cluster(s_cnn=1, slowness=Slowness(late=50.0), **settings) as (stub, _, _):
        for _ in range(8):  # a busy machine may take longer than the policy's margin to deliver an answer
            with suppress(grpc.aio.AioRpcError):
                answer = await stub.Predict(request(), timeout=1)
                break
        else:
            pytest.fail("no answer came in time")
    assert answer.provenance.source == predict_pb2.SOURCE_DEFAULT
    assert answer.classes[0].label == LABELS[2]


async def test_the_parameter_timeout_is_kept_where_the_operator_allows_more() -> None:
    async with cluster(s_cnn=1, slowness=Slowness(late=50.0), policy="none", timeout_s=60) as (stub, _, channel):
        async with asyncio.timeout(20):
            assert await open_inference(stub, channel, 300_000) == LATE


async def test_the_largest_image_is_the_operators_by_both_protocols() -> None:
    picture = bytes.fromhex(png(np.zeros((10, 10, 3), np.uint8)))
    tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(picture)
    async with cluster(s_cnn=1, policy="none", max_pixels=99) as (stub, _, channel):
        protocol: Any = oip_grpc.GRPCInferenceServiceStub(channel)
        for call in (
            stub.Predict(predict_pb2.PredictRequest(image=picture), timeout=20),
            protocol.ModelInfer(oip.ModelInferRequest(model_name="s", inputs=[tensor]), timeout=20),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match="10 x 10 pixels, more than the 99 allowed"):
                await call
