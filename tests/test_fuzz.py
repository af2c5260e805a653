"""Requests that nobody would send: whatever comes in, a status goes out, and nothing of our insides with it.

``FUZZ_EXAMPLES=100000 pytest tests/test_fuzz.py`` looks for longer than CI does.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from collage.channels import channel_options
from collage.v1 import model_pb2, predict_pb2, tensor_pb2
from inference import open_inference_pb2 as oip
from tests.encoder.test_image import bomb
from tests.frontend.fakes import SIZE, image
from tests.frontend.grpc_workers import cluster

SOON_S = 20.0
fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
TOLD = {"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}


def files() -> list[bytes]:
    """Small good images of every kind, and one that unpacks to too much."""
    found = [bomb()]
    for kind, mode in (("PNG", "RGB"), ("PNG", "P"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("BMP", "L")):
        buffer = io.BytesIO()
        Image.fromarray(image(3)).convert(mode).save(buffer, kind)
        found.append(buffer.getvalue())
    return found


FILES = files()


@st.composite
def broken_files(draw: st.DrawFn) -> bytes:
    """A good image with a few bytes changed, cut out or added."""
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, len(data) - 1)) if data else 0
        match draw(st.sampled_from(["change", "cut", "add", "end"])):
            case "change" if data:
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 64))]
            case "add":
                data[at:at] = draw(st.binary(max_size=64))
            case "end":
                del data[at:]
    return bytes(data)


tensors = st.builds(
    tensor_pb2.Tensor,
    data_type=st.sampled_from([0, 1, 2, 7]),
    shape=st.one_of(st.just([SIZE, SIZE, 3]), st.lists(st.integers(0, 2**32 - 1), max_size=6)),
    data=st.one_of(st.just(bytes(3 * SIZE * SIZE)), st.binary(max_size=300)),
)
inputs = st.one_of(
    st.builds(predict_pb2.PredictRequest, image=broken_files()),
    st.builds(predict_pb2.PredictRequest, image=st.binary(max_size=2000)),
    st.builds(predict_pb2.PredictRequest, tensor=tensors, top_k=st.integers(0, 2**32 - 1), request_id=st.text()),
)


oip_parameters = st.dictionaries(
    st.sampled_from(["classification", "binary_data", "timeout", "shared_memory_region", "other"]),
    st.one_of(
        st.builds(oip.InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1)),
        st.builds(oip.InferParameter, bool_param=st.booleans()),
        st.builds(oip.InferParameter, string_param=st.text(max_size=9)),
    ),
    max_size=2,
)
oip_contents = st.one_of(
    st.builds(oip.InferTensorContents, uint_contents=st.lists(st.integers(0, 2**32 - 1), max_size=9)),
    st.builds(oip.InferTensorContents, uint_contents=st.just([9] * 3 * SIZE * SIZE)),
    st.builds(oip.InferTensorContents, fp32_contents=st.lists(st.floats(width=32), max_size=9)),
    st.builds(oip.InferTensorContents, fp32_contents=st.floats(width=32).map(lambda value: [value] * 3 * SIZE * SIZE)),
    st.builds(oip.InferTensorContents, bytes_contents=st.lists(broken_files(), max_size=3)),
)
oip_inputs = st.builds(
    oip.ModelInferRequest.InferInputTensor,
    name=st.sampled_from(["image", "image", "image", "", "other"]),
    datatype=st.sampled_from(["UINT8", "FP32", "BYTES", "", "INT64"]),
    shape=st.one_of(
        st.just([1, SIZE, SIZE, 3]),
        st.integers(-1, 3).map(lambda rows: [rows]),
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    ),
    parameters=oip_parameters,
    contents=st.one_of(st.none(), oip_contents),
)
oip_requests = st.builds(
    oip.ModelInferRequest,
    model_name=st.sampled_from(["s", "s", "s", "", "other"]),
    model_version=st.sampled_from(["", "1", "x"]),
    id=st.text(max_size=200),
    parameters=oip_parameters,
    inputs=st.lists(oip_inputs, min_size=1, max_size=2),
    outputs=st.lists(
        st.builds(
            oip.ModelInferRequest.InferRequestedOutputTensor,
            name=st.sampled_from(["probabilities", "probabilities", "other"]),
            parameters=oip_parameters,
        ),
        max_size=2,
    ),
    raw_input_contents=st.lists(
        st.one_of(
            st.just(bytes(3 * SIZE * SIZE)),
            st.binary(max_size=40),
            broken_files().map(lambda file: len(file).to_bytes(4, "little") + file),
        ),
        max_size=2,
    ),
)


@dataclass
class Target:
    """A frontend and one of its workers, on a loop that goes on from example to example."""

    runner: asyncio.Runner
    frontend: grpc.aio.Channel
    worker: grpc.aio.Channel
    port: int

    def call(self, channel: grpc.aio.Channel, method: str, message: bytes) -> tuple[str, str]:
        """Status and details of one call with these bytes as its message."""

        async def once() -> tuple[str, str]:
            call: Any = channel.unary_unary(method)  # no serialisers: bytes
            try:
                await call(message, timeout=SOON_S)
            except grpc.aio.AioRpcError as error:
                return error.code().name, error.details() or ""
            return "OK", ""

        return self.runner.run(once())

    def stream(self, messages: list[bytes]) -> tuple[str, str, list[predict_pb2.PredictStreamResponse]]:
        """Status, details and responses of one PredictStream."""

        async def once() -> tuple[str, str, list[predict_pb2.PredictStreamResponse]]:
            call: Any = self.frontend.stream_stream("/collage.v1.PredictService/PredictStream")
            responses = []
            try:
                async for response in call(iter(messages), timeout=SOON_S):
                    responses.append(predict_pb2.PredictStreamResponse.FromString(response))
            except grpc.aio.AioRpcError as error:
                return error.code().name, error.details() or "", responses
            return "OK", "", responses

        return self.runner.run(once())

    def alive(self) -> bool:
        """Whether a good request is still answered."""
        good = predict_pb2.PredictRequest(
            tensor=tensor_pb2.Tensor(data_type="DATA_TYPE_UINT8", shape=[SIZE, SIZE, 3], data=bytes(192))
        )
        return self.call(self.frontend, "/collage.v1.PredictService/Predict", good.SerializeToString())[0] == "OK"


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def start() -> Target:
            _, server, frontend = await stack.enter_async_context(cluster(s_cnn=1, max_pixels=100_000))
            address = server.settings.s_cnn_workers  # type: ignore[attr-defined]  # a frontend's settings
            channel = grpc.aio.insecure_channel(address, channel_options())
            await stack.enter_async_context(channel)
            return Target(runner, frontend, channel, server.port)

        yield runner.run(start())
        runner.run(stack.aclose())


def check(status: str, details: str, allowed: set[str] = TOLD) -> None:
    assert status in allowed, (status, details)
    assert "Traceback" not in details
    assert ".py" not in details
    assert len(details) < 1000


@fuzz
@given(request=inputs)
def test_any_request_gets_a_status(target: Target, request: predict_pb2.PredictRequest) -> None:
    check(*target.call(target.frontend, "/collage.v1.PredictService/Predict", request.SerializeToString()))
    assert target.alive()


@fuzz
@given(request=oip_requests)
def test_any_request_of_the_open_inference_protocol_gets_a_status(
    target: Target, request: oip.ModelInferRequest
) -> None:
    method = "/inference.GRPCInferenceService/ModelInfer"
    check(*target.call(target.frontend, method, request.SerializeToString()), TOLD | {"NOT_FOUND"})
    assert target.alive()


@fuzz
@given(message=st.one_of(st.binary(max_size=300), inputs.map(lambda request: request.SerializeToString()[:-1])))
def test_bytes_that_are_no_message_get_a_status(target: Target, message: bytes) -> None:
    for channel, method in (
        (target.frontend, "/collage.v1.PredictService/Predict"),
        (target.frontend, "/inference.GRPCInferenceService/ModelInfer"),
        (target.worker, "/collage.v1.ModelService/Run"),
        (target.worker, "/collage.v1.ModelService/GetModelInfo"),
        (target.frontend, "/grpc.health.v1.Health/Check"),
        (target.frontend, "/no.such.Service/Method"),
    ):
        fake = {"INTERNAL"} if channel is target.worker else set()  # it looks at no tensor before it reads it
        check(*target.call(channel, method, message), TOLD | {"NOT_FOUND", "UNIMPLEMENTED"} | fake)
    assert target.alive()


@fuzz
@given(requests=st.lists(st.tuples(st.one_of(inputs, st.binary(max_size=60)), st.floats(width=64)), max_size=12))
def test_a_stream_answers_every_message(target: Target, requests: list[tuple[Any, float]]) -> None:
    messages, readable = [], 0
    for request, timeout_s in requests:
        if isinstance(request, bytes):
            messages.append(request)
            continue
        readable += 1
        request.request_id = f"r{readable}"
        messages.append(predict_pb2.PredictStreamRequest(request=request, timeout_s=timeout_s).SerializeToString())
    status, _, responses = target.stream(messages)
    assert (status, len(responses)) == ("OK", len(messages))
    assert {response.request_id for response in responses} >= {f"r{i + 1}" for i in range(readable)}
    for response in responses:
        if response.HasField("error"):
            code = next(code.name for code in grpc.StatusCode if code.value[0] == response.error.code)
            check(code, response.error.message)
    assert target.alive()


@fuzz
@given(tensor=tensors, request_id=st.text(max_size=300), attempt=st.integers(0, 2**32 - 1))
def test_any_tensor_gets_a_status_from_a_worker(
    target: Target, tensor: tensor_pb2.Tensor, request_id: str, attempt: int
) -> None:
    request = model_pb2.RunRequest(input=tensor, request_id=request_id, attempt=attempt)
    check(
        *target.call(target.worker, "/collage.v1.ModelService/Run", request.SerializeToString()),
        TOLD | {"INTERNAL"},  # the fake worker looks at the pixels
    )


@fuzz
@given(
    data=st.binary(max_size=500),
    start=st.sampled_from([b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]),
)
def test_bytes_that_are_no_http_2_harm_nobody(target: Target, data: bytes, start: bytes) -> None:
    async def send() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", target.port)
        writer.write(start + data)
        await writer.drain()
        writer.close()

    target.runner.run(send())
    assert target.alive()
