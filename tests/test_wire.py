"""What is known of a message before it is parsed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collage.errors import InvalidArgument
from collage.v1 import model_pb2, predict_pb2
from collage.wire import MAX_PARTS, check, limit
from inference import open_inference_pb2 as oip

INFER = oip.ModelInferRequest.DESCRIPTOR


def request(**fields: object) -> bytes:
    return oip.ModelInferRequest(**fields).SerializeToString()


@pytest.mark.parametrize(
    "raw",
    [
        b"\x2a\x00" * (MAX_PARTS + 1),  # inputs
        b"\x32\x00" * (MAX_PARTS + 1),  # outputs
        b"\x22\x00" * (MAX_PARTS + 1),  # parameters
        b"\x08\x01" * (MAX_PARTS + 1),  # unknown numbers
        b"\x0b\x0c" * (MAX_PARTS // 2 + 1),  # empty groups
        request(inputs=[oip.ModelInferRequest.InferInputTensor()] * MAX_PARTS, id="x"),
        b"\x2a\xa2\x9c\x01" + b"\x22\x00" * (MAX_PARTS + 1),  # parameters of an input
        (b"\x2a\xc8\x01" + b"\x22\x00" * 100) * 100,  # parameters of many inputs
    ],
)
def test_messages_of_too_many_fields_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidArgument, match="more than 10000 fields: send pixels as raw bytes, or fewer rows"):
        check(raw, INFER)


def test_what_many_good_images_need_is_taken() -> None:
    contents = oip.InferTensorContents(bytes_contents=[b"x" * 100] * 1024)
    tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1024, 1], contents=contents)
    check(request(model_name="m", inputs=[tensor]), INFER)
    numbers = oip.InferTensorContents(fp32_contents=[0.5] * 200_000)
    tensor = oip.ModelInferRequest.InferInputTensor(name="image", contents=numbers)
    check(request(inputs=[tensor], raw_input_contents=[bytes(1_000_000)]), INFER)
    check(
        predict_pb2.PredictRequest(image=b"\x2a\x00" * 100_000).SerializeToString(),
        predict_pb2.PredictRequest.DESCRIPTOR,
    )
    check(b"\x2a\x00" * (MAX_PARTS - 1), INFER)


def test_numbers_end() -> None:
    check(b"\x80" * 1_000_000, INFER)
    check(b"\x80" * 11 + b"\x01" + b"\x2a\x00" * (MAX_PARTS + 1), INFER)  # no message: parsing will say so


def test_a_tensor_has_few_dimensions() -> None:
    tensor = oip.ModelInferRequest.InferInputTensor(shape=[1] * 1025)
    with pytest.raises(InvalidArgument, match="a shape has 1025 bytes"):
        check(request(inputs=[tensor]), INFER)
    tensor = oip.ModelInferRequest.InferInputTensor(shape=[1] * 1024)
    check(request(inputs=[tensor]), INFER)


@pytest.mark.parametrize(
    "message", [oip.ModelInferRequest, predict_pb2.PredictStreamRequest, model_pb2.RunStreamRequest]
)
@given(raw=st.binary(max_size=200))
def test_bytes_that_are_no_message_are_left_to_the_parser(message: type, raw: bytes) -> None:
    check(raw, message.DESCRIPTOR)  # type: ignore[attr-defined]


def test_only_messages_that_may_hold_an_image_may_be_large() -> None:
    large = (
        predict_pb2.PredictRequest,
        predict_pb2.PredictStreamRequest,
        model_pb2.RunStreamRequest,
        oip.ModelInferRequest,
    )
    assert [limit(message.DESCRIPTOR, 4096) for message in large] == [None] * 4
    small = (model_pb2.GetModelInfoRequest, oip.ServerLiveRequest, oip.ModelReadyRequest, oip.RepositoryIndexRequest)
    assert [limit(message.DESCRIPTOR, 4096) for message in small] == [4096] * 4
