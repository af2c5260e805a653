"""NumPy arrays to and from the wire's Tensor, validated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collage.v1 import tensor_pb2

_TO_WIRE: dict[np.dtype[Any], tensor_pb2.DataType] = {
    np.dtype(np.uint8): tensor_pb2.DATA_TYPE_UINT8,
    np.dtype(np.float32): tensor_pb2.DATA_TYPE_FLOAT32,
}
_FROM_WIRE = {value: dtype.newbyteorder("<") for dtype, value in _TO_WIRE.items()}
_UINT8, _FLOAT32 = np.dtype(np.uint8), np.dtype("<f4")
MAX_DIMENSIONS = 8


class TensorError(ValueError):
    """A tensor is not what was asked for; the message names both."""


def to_tensor(array: NDArray[np.uint8] | NDArray[np.float32]) -> tensor_pb2.Tensor:
    """Pack a uint8 or float32 array."""
    tensor = tensor_pb2.Tensor()
    pack(array, tensor)
    return tensor


def pack(array: NDArray[np.uint8] | NDArray[np.float32], tensor: tensor_pb2.Tensor) -> None:
    """Pack a uint8 or float32 array into an empty tensor in its place in a message, to which it would be copied."""
    tensor.data_type = _TO_WIRE[array.dtype]
    tensor.shape.extend(array.shape)
    tensor.data = array.tobytes()


def image_from_tensor(tensor: tensor_pb2.Tensor, data: bytes, size: int) -> NDArray[np.uint8]:
    """Unpack an RGB image: uint8 ``[size, size, 3]``, read-only. ``data`` is the tensor's: to read it copies it."""
    array: NDArray[np.uint8] = _unpack(tensor, data, _UINT8, (size, size, 3))
    return array


def pixels_from_tensor(tensor: tensor_pb2.Tensor, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Unpack uint8 of the given shape, read-only."""
    array: NDArray[np.uint8] = _unpack(tensor, tensor.data, _UINT8, shape)
    return array


def floats_from_tensor(tensor: tensor_pb2.Tensor, shape: Sequence[int]) -> NDArray[np.float32]:
    """Unpack float32 of the given shape; -1 stands for any extent."""
    array: NDArray[np.float32] = _unpack(tensor, tensor.data, _FLOAT32, shape)
    return array


def array_from_tensor(tensor: tensor_pb2.Tensor) -> NDArray[Any]:
    """Unpack an array of whatever type and shape the tensor says, read-only."""
    dtype, shape = _FROM_WIRE.get(tensor.data_type), tensor.shape
    if dtype is None or len(shape) > MAX_DIMENSIONS:  # before the shape is looked at
        found = dtype.name if dtype else "no data type"
        raise TensorError(f"expected a tensor of at most {MAX_DIMENSIONS} dimensions, got {found} of {len(shape)}")
    return _read(tensor.data, dtype, tuple(shape[:]))  # copied whole: one by one takes twice as long


def _unpack(tensor: tensor_pb2.Tensor, data: bytes, dtype: np.dtype[Any], shape: Sequence[int]) -> NDArray[Any]:
    told = tensor.shape
    if len(told) > MAX_DIMENSIONS:
        raise TensorError(f"expected a tensor of at most {MAX_DIMENSIONS} dimensions, got {len(told)}")
    actual = tuple(told[:])
    if tensor.data_type != _TO_WIRE[dtype] or (actual != shape and not _fits(actual, shape)):
        found = _FROM_WIRE.get(tensor.data_type)
        wanted = ", ".join("any" if extent == -1 else str(extent) for extent in shape)
        raise TensorError(
            f"expected a {dtype.name} tensor of shape [{wanted}], "
            f"got {found.name if found else 'no data type'} of shape {list(actual)}"
        )
    return _read(data, dtype, actual)


def _read(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise TensorError(f"a {dtype.name} tensor of shape {list(shape)} has {expected} bytes, got {len(data)}")
    try:
        return np.frombuffer(data, dtype).reshape(shape)
    except ValueError:  # no elements, and other extents beyond what an array can have
        raise TensorError(f"a tensor of shape {list(shape)} is beyond all bounds") from None


def _fits(actual: Sequence[int], shape: Sequence[int]) -> bool:
    return len(actual) == len(shape) and all(want in (-1, have) for want, have in zip(shape, actual, strict=True))
