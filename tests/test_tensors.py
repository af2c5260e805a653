"""Arrays to the wire and back. A tensor of another type or shape is refused, and the error names both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from collage.tensors import (
    MAX_DIMENSIONS,
    TensorError,
    array_from_tensor,
    floats_from_tensor,
    image_from_tensor,
    to_tensor,
)
from collage.v1 import tensor_pb2

UINT8, FLOAT32 = tensor_pb2.DATA_TYPE_UINT8, tensor_pb2.DATA_TYPE_FLOAT32


@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_images_come_back(size: int, random: Any) -> None:
    image = np.frombuffer(random.randbytes(size * size * 3), np.uint8).reshape(size, size, 3)
    tensor = tensor_pb2.Tensor.FromString(to_tensor(image).SerializeToString())
    np.testing.assert_array_equal(image_from_tensor(tensor, tensor.data, size), image)


@given(st.lists(st.integers(0, 4), max_size=4), st.floats(width=32))
def test_floats_come_back(shape: list[int], value: float) -> None:
    array = np.full(shape, value, np.float32)
    tensor = tensor_pb2.Tensor.FromString(to_tensor(array).SerializeToString())
    for wanted in (shape, [-1] * len(shape)):
        found = floats_from_tensor(tensor, wanted)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, array)


@given(st.lists(st.integers(0, 4), max_size=MAX_DIMENSIONS), st.sampled_from([np.uint8, np.float32]))
def test_arrays_come_back_whatever_they_are(shape: list[int], dtype: Any) -> None:
    array = np.arange(math.prod(shape)).astype(dtype).reshape(shape)
    found = array_from_tensor(tensor_pb2.Tensor.FromString(to_tensor(array).SerializeToString()))
    assert found.dtype == dtype
    assert not found.flags.writeable
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (tensor_pb2.Tensor(), "got no data type of 0"),
        (tensor_pb2.Tensor(data_type=9, data=b"1"), "got no data type of 0"),  # type: ignore[arg-type]
        (tensor_pb2.Tensor(data_type=FLOAT32, shape=[1] * 9, data=bytes(4)), "at most 8 dimensions, got float32 of 9"),
        (tensor_pb2.Tensor(data_type=FLOAT32, shape=[2, 3], data=bytes(20)), "has 24 bytes, got 20"),
        (tensor_pb2.Tensor(data_type=UINT8, shape=[2**32 - 1] * 8, data=bytes(8)), "got 8"),
        (tensor_pb2.Tensor(data_type=UINT8, shape=[0, *[2**32 - 1] * 7]), "beyond all bounds"),
    ],
)
def test_what_is_no_array_is_refused(tensor: tensor_pb2.Tensor, told: str) -> None:
    with pytest.raises(TensorError, match=told):
        array_from_tensor(tensor)


def test_views_are_packed_in_row_major_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(floats_from_tensor(to_tensor(array.T), [3, 2]), array.T)


def test_floats_are_little_endian_on_the_wire() -> None:
    assert to_tensor(np.array([1], np.float32)).data == b"\x00\x00\x80\x3f"


def test_an_unpacked_image_is_read_only() -> None:
    tensor = to_tensor(np.zeros((2, 2, 3), np.uint8))
    image = image_from_tensor(tensor, tensor.data, 2)
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (tensor_pb2.Tensor(), "no data type of shape []"),
        (tensor_pb2.Tensor(data_type=UINT8, data=bytes(12)), "uint8 of shape []"),
        (tensor_pb2.Tensor(data_type=UINT8, shape=[2, 2, 3]), "has 12 bytes, got 0"),
        (tensor_pb2.Tensor(data_type=UINT8, shape=[2, 2, 3], data=bytes(13)), "has 12 bytes, got 13"),
        (tensor_pb2.Tensor(data_type=UINT8, shape=[2, 3, 2], data=bytes(12)), "got uint8 of shape [2, 3, 2]"),
        (tensor_pb2.Tensor(data_type=UINT8, shape=[1, 2, 2, 3], data=bytes(12)), "of shape [1, 2, 2, 3]"),
        (tensor_pb2.Tensor(data_type=FLOAT32, shape=[2, 2, 3], data=bytes(48)), "got float32"),
        (tensor_pb2.Tensor(data_type=9, shape=[2, 2, 3], data=bytes(12)), "got no data type"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_image_is_named(tensor: tensor_pb2.Tensor, told: str) -> None:
    with pytest.raises(TensorError) as caught:
        image_from_tensor(tensor, tensor.data, 2)
    assert told in str(caught.value)


@pytest.mark.parametrize("array", [np.zeros((2, 3), np.float32), np.zeros(4, np.float32), np.zeros((3, 4), np.uint8)])
def test_wrong_floats_are_named(array: NDArray[Any]) -> None:
    with pytest.raises(TensorError, match=r"expected a float32 tensor of shape \[any, 4\]"):
        floats_from_tensor(to_tensor(array), [-1, 4])


def test_a_lie_about_the_extent_allocates_nothing() -> None:
    tensor = tensor_pb2.Tensor(data_type=FLOAT32, shape=[2**32 - 1, 2**32 - 1], data=bytes(8))
    with pytest.raises(TensorError, match=str(4 * math.prod([2**32 - 1] * 2))):
        floats_from_tensor(tensor, [-1, -1])
