"""What both clients take, checked: for anything that cannot be sent they raise a ClientError in plain words."""

from __future__ import annotations

from numbers import Integral, Real
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.wrappers_pb2 import StringValue
from numpy.typing import NDArray

from collage.errors import ClientError
from collage.security import ClientSecurity
from collage.tensors import to_tensor
from collage.texts import printable
from collage.v1 import predict_pb2

Image = bytes | bytearray | memoryview | Path | NDArray[np.uint8]
"""An encoded image (JPEG, PNG, WebP, BMP), the path of its file, or its RGB pixels: uint8 ``[size, size, 3]``, where
size is that of the s-cnn's input."""

MAX_TIMEOUT_S = 1e6
_MAX_INT = 2**31 - 1
_MAX_TOP_K = 2**32 - 1
_WEB = ("http:", "https:", "grpc:", "grpcs:", "tcp:")
_IMAGES = "an image is the bytes or the Path of a JPEG, PNG, WebP or BMP file, or RGB pixels, uint8 [size, size, 3]"


def _invalid(message: str) -> ClientError:
    return ClientError(grpc.StatusCode.INVALID_ARGUMENT, message)


def check_target(address: object, max_message_bytes: object, attempts: object, security: object) -> None:
    """Raises ClientError (INVALID_ARGUMENT) if no client can be made of these."""
    if not isinstance(security, ClientSecurity):
        raise _invalid(f"security is a ClientSecurity, got {type(security).__name__}")
    if not isinstance(address, str) or [address] != printable(address).split() or address.startswith(_WEB):
        raise _invalid(f"an address is host:port, such as '127.0.0.1:50051', got {address!r}")
    for name, number in (("max_message_bytes", max_message_bytes), ("attempts", attempts)):
        if not isinstance(number, int) or not -1 <= number <= _MAX_INT:
            raise _invalid(f"{name} is a whole number of at most {_MAX_INT}, got {number!r}")


def time_limit(timeout_s: float | None) -> float | None:
    """Seconds that gRPC can count, None for no limit.

    Raises ClientError: INVALID_ARGUMENT for what is no time, DEADLINE_EXCEEDED if there is none left.
    """
    if timeout_s is None:
        return None
    if not isinstance(timeout_s, Real) or not float(timeout_s) <= MAX_TIMEOUT_S:  # which catches NaN, too
        raise _invalid(f"timeout_s is a number of seconds up to {MAX_TIMEOUT_S:,.0f}, or None, got {timeout_s!r}")
    if timeout_s <= 0:
        raise ClientError(grpc.StatusCode.DEADLINE_EXCEEDED, f"timeout_s is {timeout_s}: there is no time left")
    return float(timeout_s)


def check_source(images: object, *kinds: type) -> None:
    """Raises ClientError (INVALID_ARGUMENT) unless a stream of images can be taken from it: it is one of ``kinds``."""
    if not isinstance(images, kinds):
        raise _invalid(f"images are an iterable of (request_id, image) pairs, got {type(images).__name__}")


def pair(item: Any) -> tuple[str, Image]:
    """An item of a stream; raises ClientError (INVALID_ARGUMENT) if it is none."""
    try:
        request_id, image = item
    except (TypeError, ValueError):
        raise _invalid(f"a stream takes (request_id, image) pairs, got {type(item).__name__}") from None
    if not isinstance(request_id, str):
        raise _invalid(f"a request_id is a text, got {request_id!r}")
    return request_id, image


def beginning(file: Path, most: int) -> bytes:
    """What is in a file, but no more than one byte more than ``most``, as more cannot be sent; -1 is no limit."""
    with file.open("rb") as opened:
        return opened.read(most + 1 if most >= 0 else -1)


def content(file: Path, most: int) -> bytes:
    """The ``beginning`` of a file; raises ClientError (INVALID_ARGUMENT) if it cannot be read."""
    try:
        return beginning(file, most)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _invalid(f"cannot read {printable(str(file))}: {reason}") from None


def to_request(image: Image, top_k: int, request_id: str, with_output: bool, most: int) -> predict_pb2.PredictRequest:
    """The request for one image; raises ClientError (INVALID_ARGUMENT) for anything that is not one."""
    try:
        if not isinstance(top_k, Integral) or not isinstance(request_id, str):
            raise TypeError
        request = predict_pb2.PredictRequest(top_k=int(top_k), request_id=request_id, with_output=with_output)
    except (TypeError, ValueError):
        raise _invalid(
            f"top_k is a whole number and request_id a text, got {top_k!r} and {request_id!r}; top_k is from 0 to "
            f"{_MAX_TOP_K}, with_output True or False"
        ) from None
    data = _data(image, most)
    if isinstance(data, bytes):
        request.image = data
    else:
        request.tensor.CopyFrom(to_tensor(data))
    if 0 <= most < request.ByteSize():
        raise _invalid(f"the image is too large for a message, which may have {most} bytes")
    return request


def _data(image: Any, most: int) -> bytes | NDArray[np.uint8]:
    """The bytes of an encoded image, or its pixels."""
    if isinstance(image, Path):
        return content(image, most)
    if isinstance(image, memoryview):
        try:
            image = bytes(image) if image.ndim == 1 and image.itemsize == 1 else np.asarray(image)
        except ValueError as error:
            raise _invalid(f"the memoryview cannot be read: {error}") from None
    return bytes(image) if isinstance(image, bytes | bytearray) else _pixels(image)


def _pixels(image: Any) -> NDArray[np.uint8]:
    if isinstance(image, str):
        raise _invalid(f"an image is not a text: for the file {image!r} send Path({image!r})")
    if not isinstance(image, np.ndarray):
        raise _invalid(f"{_IMAGES}; got {type(image).__name__}")
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind == "f":
        rounded = "values up to 255 send pixels" if (image > 1).any() else "values from 0 to 1 send (255 * pixels)"
        raise _invalid(f"pixels are uint8, from 0 to 255, got {image.dtype}: for {rounded}.round().astype(np.uint8)")
    if not np.issubdtype(image.dtype, np.integer):
        raise _invalid(f"{_IMAGES}; got an array of {image.dtype}")
    if image.size and not (image.min() >= 0 and image.max() <= 255):
        raise _invalid(f"pixels are from 0 to 255, these are from {image.min()} to {image.max()}")
    return image.astype(np.uint8)


# grpc.health.v1, whose stubs are another package. Its request is one text and its response one number, both of them
# field 1, so protobuf's own wrappers have the same bytes.


def health_request(service: str) -> bytes:
    """The request for the status of a service; "" is the process as a whole. Raises ClientError (INVALID_ARGUMENT)."""
    try:
        return StringValue(value=service).SerializeToString()
    except (TypeError, ValueError):
        raise _invalid(f"a service has a name, got {service!r}") from None
