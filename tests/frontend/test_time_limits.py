"""The operator's time limit holds whatever callers ask for, by every way to ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from collage.tensors import to_tensor
from collage.v1 import predict_pb2
from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc as oip_grpc
from tests.frontend.fakes import image
from tests.frontend.grpc_workers import Slowness, cluster

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


async def open_inference(stub: Any, channel: grpc.aio.Channel) -> str:
    pixels = image(3)
    tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=(1, *pixels.shape))
    asked = oip.ModelInferRequest(model_name="s", id="late", inputs=[tensor], raw_input_contents=[pixels.tobytes()])
    asked.parameters["timeout"].int64_param = 60_000_000
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
