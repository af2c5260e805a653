"""The Open Inference Protocol: its messages are the stock client's, and no request gets past the converter wrongly."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given
from hypothesis import strategies as st

from collage.errors import InvalidArgument
from collage.model_info import ModelInfo, ModelKind
from inference import open_inference_pb2 as oip
from inference.service import version_number
from inference.tensors import ImageRows, Wanted, add_output, read_images, read_wanted, whole_number
from tests.triton import triton

SIZE = 2
PIXELS = np.arange(2 * SIZE * SIZE * 3).reshape(2, SIZE, SIZE, 3)
LABELS = ("cat", "dog", "owl")


async def test_names_numbers_and_types_are_those_of_the_stock_client() -> None:
    theirs = await triton("descriptors", 1)  # nobody needs to listen

    def compare(message: Descriptor) -> None:
        for field in message.fields:
            assert theirs[message.full_name][field.name] == [field.number, field.type, field.is_repeated]
        for nested in message.nested_types:
            compare(nested)

    for message in oip.DESCRIPTOR.message_types_by_name.values():
        compare(message)
    for enum in oip.DESCRIPTOR.enum_types_by_name.values():
        assert theirs[enum.full_name].items() >= {value.name: value.number for value in enum.values}.items()
    for method in oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        assert theirs["methods"][method.name] == [method.input_type.name, method.output_type.name]


def request(
    datatype: str, shape: list[int], *raw: bytes, name: str = "image", **contents: Any
) -> oip.ModelInferRequest:
    """A request with one input."""
    tensor = oip.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if contents:
        tensor.contents.CopyFrom(oip.InferTensorContents(**contents))
    return oip.ModelInferRequest(inputs=[tensor], raw_input_contents=raw)


def elements(*files: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


SHAPE = [2, SIZE, SIZE, 3]
FLOATS = PIXELS.astype("<f4") + 0.25


@pytest.mark.parametrize(
    "given_request",
    [
        request("UINT8", SHAPE, PIXELS.astype(np.uint8).tobytes()),
        request("UINT8", SHAPE, uint_contents=PIXELS.ravel().tolist()),
        request("FP32", SHAPE, FLOATS.tobytes()),
        request("FP32", SHAPE, fp32_contents=FLOATS.ravel().tolist()),
    ],
    ids=["raw bytes", "typed integers", "raw floats", "typed floats"],
)
def test_pixels_in_every_form_are_the_same_images(given_request: oip.ModelInferRequest) -> None:
    images = read_images(given_request, SIZE, 2)
    assert images.count == 2
    assert images.quick == bool(given_request.raw_input_contents)
    for row in range(2):
        pixels = images.row(row)
        assert isinstance(pixels, np.ndarray)
        assert pixels.dtype == np.uint8
        assert (pixels == PIXELS[row]).all()


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_encoded_images_in_every_form_are_the_same(shape: list[int]) -> None:
    for made in (
        request("BYTES", shape, elements(b"one", b"")),
        request("BYTES", shape, bytes_contents=[b"one", b""]),
    ):
        images = read_images(made, SIZE, 2)
        assert not images.quick
        assert [images.row(row) for row in range(images.count)] == [b"one", b""]


ONE = [1, SIZE, SIZE, 3]
BLACK = bytes(SIZE * SIZE * 3)
REFUSED = {
    "no input": (oip.ModelInferRequest(), "one input, 'image': got none"),
    "other input": (request("UINT8", ONE, BLACK, name="x"), "got 'x'"),
    "other type": (request("FP64", ONE, BLACK), "FP64: send UINT8 or FP32 pixels, or BYTES"),
    "no type": (request("", ONE, BLACK), "of no data type"),
    "no rows": (request("UINT8", [0, SIZE, SIZE, 3], b""), "1 to 4 rows, this one has 0"),
    "negative rows": (request("BYTES", [-1], b""), "this one has -1"),
    "too many rows": (request("BYTES", [5], elements(*5 * [b""])), "1 to 4 rows, this one has 5"),
    "endless rows": (request("UINT8", [2**62, SIZE, SIZE, 3], BLACK), "1 to 4 rows"),
    "no batch": (request("UINT8", [SIZE, SIZE, 3], BLACK), r"shape \[N, 2, 2, 3\] \(RGB, channels last\), got \[2, 2"),
    "planes": (request("FP32", [1, 3, SIZE, SIZE], 4 * BLACK), r"got \[1, 3, 2, 2\]"),
    "matrix of files": (request("BYTES", [2, 2], elements(*4 * [b"x"])), r"\[N\] or \[N, 1\], got \[2, 2\]"),
    "short raw": (request("UINT8", ONE, BLACK[1:]), "asks for 12 bytes of raw contents, got 11"),
    "long raw": (request("FP32", ONE, 5 * BLACK), "asks for 48 bytes of raw contents, got 60"),
    "raw twice": (request("UINT8", ONE, BLACK, BLACK), "one input has 2 raw_input_contents"),
    "raw and typed": (request("UINT8", ONE, BLACK, uint_contents=[0]), "has both"),
    "nothing": (request("UINT8", ONE), "asks for 12 elements in contents.uint_contents, got 0"),
    "other contents": (request("FP32", ONE, uint_contents=12 * [0]), "contents.fp32_contents, got 0"),
    "fewer files": (request("BYTES", [2], elements(b"x")), "asks for 2 elements, got 1"),
    "more files": (request("BYTES", [1], elements(b"x", b"y", b"z")), "asks for 1 elements, got 2"),
    "cut file": (request("BYTES", [1], elements(b"four")[:-1]), "end within element 0"),
    "cut length": (request("BYTES", [1], b"\x01\x00"), "end within element 0"),
    "lying length": (request("BYTES", [1], b"\xff\xff\xff\xff" + b"x"), "end within element 0"),
}
shared = request("UINT8", ONE)
shared.inputs[0].parameters["shared_memory_region"].string_param = "mine"
REFUSED["shared memory"] = shared, "shared memory is not supported"


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_with_advice(case: str) -> None:
    made, message = REFUSED[case]
    with pytest.raises(InvalidArgument, match=message):
        read_images(made, SIZE, 4)


@pytest.mark.parametrize(
    ("datatype", "contents", "message"),
    [
        ("UINT8", {"uint_contents": [256, *11 * [0]]}, "from 0 to 256: do not normalise"),
        ("FP32", {"fp32_contents": [-0.5, *11 * [7.0]]}, "from 0 to 255"),
        ("FP32", {"fp32_contents": [float("nan"), *11 * [7.0]]}, "from 0 to 255"),
        ("FP32", {"fp32_contents": [float("inf"), *11 * [7.0]]}, "from 0 to 255"),
        ("FP32", {"fp32_contents": [0.5, *11 * [1.0]]}, "not from 0 to 1"),
    ],
)
def test_impossible_and_ambiguous_pixels_are_refused(datatype: str, contents: dict[str, Any], message: str) -> None:
    images = read_images(request(datatype, ONE, **contents), SIZE, 1)
    with pytest.raises(ValueError, match=message):
        images.row(0)


def test_black_is_black_on_any_scale() -> None:
    black = read_images(request("FP32", ONE, 4 * BLACK), SIZE, 1).row(0)
    assert not np.any(np.frombuffer(black, np.uint8))


_tensors = st.builds(
    request,
    st.sampled_from(["UINT8", "FP32", "BYTES", "INT8"]),
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.sampled_from([1, 2, 3]), max_size=5),
    st.binary(max_size=40),
)


@given(_tensors | st.builds(request, st.just("BYTES"), st.sampled_from([[1], [2], [3, 1]]), st.binary(max_size=24)))
def test_any_request_is_read_or_refused(made: oip.ModelInferRequest) -> None:
    try:
        images = read_images(made, SIZE, 3)
    except InvalidArgument:
        return
    for row in range(images.count):
        with contextlib.suppress(ValueError):  # impossible pixels
            assert len(images.row(row)) <= 24


PROBABILITIES = np.array([[0.25, 0.125, 0.625], [0.5, 0.5, 0.0]], np.float32)


def wanted(**parameters: Any) -> Wanted:
    asked = oip.ModelInferRequest()
    output = asked.outputs.add(name="probabilities")
    for key, value in parameters.items():
        field = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[type(value)]
        setattr(output.parameters[key], field, value)
    return read_wanted(asked, "probabilities", len(LABELS))


def test_the_output_is_raw_unless_asked_otherwise() -> None:
    for form in (read_wanted(oip.ModelInferRequest(), "probabilities", 3), wanted(), wanted(binary_data=True)):
        response = oip.ModelInferResponse()
        add_output(response, "probabilities", PROBABILITIES, LABELS, form)
        (output,) = response.outputs
        assert (output.name, output.datatype, list(output.shape)) == ("probabilities", "FP32", [2, 3])
        assert response.raw_output_contents == [PROBABILITIES.tobytes()]
        assert not output.HasField("contents")
    response = oip.ModelInferResponse()
    add_output(response, "probabilities", PROBABILITIES, LABELS, wanted(binary_data=False))
    assert response.outputs[0].contents.fp32_contents == PROBABILITIES.ravel().tolist()
    assert not response.raw_output_contents


def test_classes_are_named_the_most_probable_first() -> None:
    best = [b"0.625000:2:owl", b"0.250000:0:cat", b"0.500000:0:cat", b"0.500000:1:dog"]
    response = oip.ModelInferResponse()
    add_output(response, "probabilities", PROBABILITIES, LABELS, wanted(classification=2, binary_data=False))
    (output,) = response.outputs
    assert (output.datatype, list(output.shape)) == ("BYTES", [2, 2])
    assert list(output.contents.bytes_contents) == best
    response = oip.ModelInferResponse()
    add_output(response, "probabilities", PROBABILITIES, LABELS, wanted(classification=2))
    assert response.raw_output_contents == [elements(*best)]
    assert wanted(classification=99).classes == 3


@pytest.mark.parametrize("classes", [0, -1, "many", "2", True, 2.0])
def test_a_number_of_classes_that_makes_no_sense_is_refused(classes: Any) -> None:
    with pytest.raises(InvalidArgument, match="at least 1"):
        wanted(classification=classes)


@pytest.mark.parametrize("value", [1, "true", 1.0])
def test_binary_data_that_is_neither_true_nor_false_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="binary_data must be true or false: send bool_param"):
        wanted(binary_data=value)


def parameter(**value: Any) -> dict[str, oip.InferParameter]:
    return {"timeout": oip.InferParameter(**value)}


def test_a_whole_number_may_be_signed_or_not() -> None:
    assert whole_number(parameter(int64_param=0), "timeout", 0) == 0
    assert whole_number(parameter(uint64_param=2**63), "timeout", 0) == 2**63


@pytest.mark.parametrize(
    "value", [{}, {"string_param": "5"}, {"double_param": 5.0}, {"bool_param": True}, {"int64_param": -1}]
)
def test_what_is_no_whole_number_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="timeout must be a whole number of at least 0: send int64_param"):
        whole_number(parameter(**value), "timeout", 0)


def test_a_box_has_no_classes() -> None:
    asked = oip.ModelInferRequest()
    output = asked.outputs.add(name="box")
    assert read_wanted(asked, "box", 0) == Wanted()
    output.parameters["classification"].int64_param = 1
    with pytest.raises(InvalidArgument, match="classification is for classifiers: 'box' has no classes"):
        read_wanted(asked, "box", 0)
    with pytest.raises(InvalidArgument, match="one output, 'probabilities': got 'box'"):
        read_wanted(asked, "probabilities", 3)


@pytest.mark.parametrize(("version", "number"), [("", None), ("v1.2", None), ("00ff", "255"), ("7", "7")])
def test_any_version_has_a_number(version: str, number: str | None) -> None:
    found = version_number(ModelInfo.make("m", ModelKind.S_CNN, LABELS, SIZE, version=version))
    assert found.isdecimal()
    assert number in (None, found)


def test_unknown_outputs_are_refused() -> None:
    asked = oip.ModelInferRequest()
    asked.outputs.add(name="logits")
    with pytest.raises(InvalidArgument, match="one output, 'probabilities': got 'logits'"):
        read_wanted(asked, "probabilities", 3)


def test_rows_have_rounded_pixels_and_the_size_that_they_take() -> None:
    pixels = np.array([0.4, 254.6, 98.7, 1.2, 2.0, 3.9], "<f4")
    rows = ImageRows(1, raw=pixels.tobytes(), datatype="FP32", count=2)
    assert [rows.row(number).tolist() for number in range(2)] == [[[[0, 255, 99]]], [[[1, 2, 4]]]]  # type: ignore[union-attr]
    assert rows.size_of(0) == 12
    assert ImageRows(2, raw=bytes(24), datatype="UINT8", count=2).size_of(1) == 12
    assert ImageRows(2, encoded=[b"", b"four"], count=2).size_of(1) == 4
    typed = ImageRows(1, values=pixels.tolist(), datatype="FP32", count=2)
    np.testing.assert_array_equal(typed.row(1), rows.row(1))
