"""Images out of a ModelInferRequest, validated, and outputs into a ModelInferResponse."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from collage.errors import InvalidArgument
from collage.tensors import MAX_DIMENSIONS
from collage.texts import cut
from inference import open_inference_pb2 as oip

INPUT = "image"
_CHOICE = "parameter_choice"
_LENGTH_BYTES = 4  # before every element of raw BYTES
_TYPED_BYTES = 4  # in memory, of a number of typed contents
_ITEM_BYTES = {"UINT8": 1, "FP32": 4}


_Tensor = TypeVar("_Tensor", oip.ModelInferRequest.InferInputTensor, oip.ModelInferRequest.InferRequestedOutputTensor)


@dataclass(frozen=True)
class ImageRows:
    """The rows of a request; counting them is cheap, ``row`` does the work."""

    size: int
    encoded: Sequence[bytes] = ()
    raw: bytes = b""
    values: Sequence[int] | Sequence[float] = ()
    datatype: str = "BYTES"
    count: int = 0

    @property
    def quick(self) -> bool:
        """Whether ``row`` takes next to no time: raw pixels, which are only looked at or rounded all at once."""
        return bool(self.raw)

    @property
    def held(self) -> int:
        """Bytes of memory that the rows take."""
        return len(self.raw) + sum(map(len, self.encoded)) + _TYPED_BYTES * len(self.values)

    def row(self, number: int) -> bytes | NDArray[np.uint8]:
        """One image: a file's bytes, or pixels, uint8 ``[size, size, 3]``. Raises ValueError for impossible pixels."""
        if self.datatype == "BYTES":
            return self.encoded[number]
        shape = self.size, self.size, 3
        extent = math.prod(shape)
        start = number * extent
        if self.raw and self.datatype == "UINT8":
            return np.frombuffer(self.raw, np.uint8, extent, start).reshape(shape)
        if self.raw:
            return _bytes(np.frombuffer(self.raw, "<f4", extent, start * _ITEM_BYTES["FP32"])).reshape(shape)
        return _bytes(np.array(self.values[start : start + extent])).reshape(shape)


def _bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    least, most = pixels.min(), pixels.max()
    if not 0 <= least <= most <= 255:  # also catches NaN
        raise ValueError(f"pixels must be from 0 to 255, these are from {least:g} to {most:g}: do not normalise them")
    if pixels.dtype.kind == "f" and 0 < most <= 1:
        raise ValueError("no pixel is above 1: send them from 0 to 255, not from 0 to 1")
    rounded: NDArray[np.uint8] = np.rint(pixels).astype(np.uint8)
    return rounded


def read_images(request: oip.ModelInferRequest, size: int, max_rows: int) -> ImageRows:
    """The request's images for a model whose input is ``[size, size, 3]``; raises InvalidArgument."""
    tensor = _only(request.inputs, INPUT, "input")
    _refuse_shared_memory(tensor.parameters)
    count = _rows(tensor, size)
    if not 1 <= count <= max_rows:
        raise InvalidArgument(f"a request may have 1 to {max_rows} rows, this one has {count}: send it in parts")
    typed = tensor.contents.ByteSize() > 0
    if request.raw_input_contents and typed:
        raise InvalidArgument(f"{INPUT!r} has both raw_input_contents and contents: send one of them")
    if len(request.raw_input_contents) > 1:
        raise InvalidArgument(f"one input has {len(request.raw_input_contents)} raw_input_contents: send one")
    raw = request.raw_input_contents[0] if request.raw_input_contents else None
    if tensor.datatype == "BYTES":
        contents = tensor.contents.bytes_contents if raw is None else split_elements(raw, count)
        _check_length("elements", len(contents), count)
        return ImageRows(size, encoded=list(contents), count=count)
    elements = count * size * size * 3
    if raw is not None:
        _check_length("bytes of raw contents", len(raw), elements * _ITEM_BYTES[tensor.datatype])
        return ImageRows(size, raw=raw, datatype=tensor.datatype, count=count)
    field = "uint_contents" if tensor.datatype == "UINT8" else "fp32_contents"
    values = getattr(tensor.contents, field)
    _check_length(f"elements in contents.{field}", len(values), elements)
    return ImageRows(size, values=values, datatype=tensor.datatype, count=count)


def _only(tensors: Sequence[_Tensor], name: str, what: str) -> _Tensor:
    """The one tensor that is asked for; their number is checked before any of them is looked at."""
    if len(tensors) == 1 and tensors[0].name == name:
        return tensors[0]
    got = repr(cut(tensors[0].name, 100)) if len(tensors) == 1 else len(tensors) or "none"
    raise InvalidArgument(f"the model has one {what}, {name!r}: got {got}")


def _rows(tensor: oip.ModelInferRequest.InferInputTensor, size: int) -> int:
    if len(tensor.shape) > MAX_DIMENSIONS:
        raise InvalidArgument(f"{INPUT!r} must have at most 4 dimensions, got {len(tensor.shape)}")
    shape = list(tensor.shape)
    row = [size, size, 3]
    if tensor.datatype == "BYTES":
        fits = len(shape) == 1 or shape[1:] == [1]
    elif tensor.datatype in _ITEM_BYTES:
        fits = len(shape) == 4 and shape[1:] == row
    else:
        found = cut(tensor.datatype, 32) or "of no data type"
        raise InvalidArgument(f"{INPUT!r} is {found}: send UINT8 or FP32 pixels, or BYTES (image files)")
    if not fits:
        wanted = "[N] or [N, 1]" if tensor.datatype == "BYTES" else f"[N, {size}, {size}, 3] (RGB, channels last)"
        raise InvalidArgument(f"{INPUT!r} as {tensor.datatype} must have shape {wanted}, got {shape}")
    return shape[0]


def split_elements(raw: bytes, count: int) -> list[bytes]:
    """The elements of raw BYTES; ``count`` is a bound as well. Raises InvalidArgument if they end too early."""
    elements: list[bytes] = []
    at = 0
    while at < len(raw) and len(elements) <= count:
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(raw[at:start], "little")
        if start > len(raw) or at > len(raw):
            raise InvalidArgument(f"the raw contents of {INPUT!r} end within element {len(elements)}")
        elements.append(raw[start:at])
    return elements


def join_elements(elements: Iterable[bytes]) -> bytes:
    """Raw BYTES: every element behind its length."""
    return b"".join(len(element).to_bytes(_LENGTH_BYTES, "little") + element for element in elements)


def _check_length(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise InvalidArgument(f"the shape of {INPUT!r} asks for {wanted} {what}, got {found}")


@dataclass(frozen=True)
class Wanted:
    """The form of the output: ``classes`` strings per row, or all numbers for 0; raw contents or typed ones."""

    classes: int = 0
    raw: bool = True


def read_wanted(request: oip.ModelInferRequest, output: str, classes: int) -> Wanted:
    """The form that the request asks for, of a model with this output and number of classes (0 if it tells none).

    Raises InvalidArgument.
    """
    if not request.outputs:
        return Wanted()
    parameters = _only(request.outputs, output, "output").parameters
    _refuse_shared_memory(parameters)
    best, raw = 0, True
    if "classification" in parameters:
        if not classes:
            raise InvalidArgument(f"the parameter classification is for classifiers: {output!r} has no classes")
        best = whole_number(parameters, "classification", least=1)
    if "binary_data" in parameters:
        if parameters["binary_data"].WhichOneof(_CHOICE) != "bool_param":
            raise InvalidArgument("the parameter binary_data must be true or false: send bool_param")
        raw = parameters["binary_data"].bool_param
    return Wanted(min(best, classes), raw)


def whole_number(parameters: Mapping[str, oip.InferParameter], name: str, least: int) -> int:
    """The value of a parameter that is there; raises InvalidArgument if it is no whole number from ``least`` on."""
    kind = parameters[name].WhichOneof(_CHOICE)
    if kind not in ("int64_param", "uint64_param") or (value := int(getattr(parameters[name], kind))) < least:
        raise InvalidArgument(f"the parameter {name} must be a whole number of at least {least}: send int64_param")
    return value


def _refuse_shared_memory(parameters: object) -> None:
    if "shared_memory_region" in parameters:  # type: ignore[operator]  # a map field
        raise InvalidArgument("shared memory is not supported: send the contents")


def add_output(
    response: oip.ModelInferResponse, name: str, rows: NDArray[np.float32], labels: Sequence[str], wanted: Wanted
) -> None:
    """Add the output, float32 ``[N, m]``, to a response."""
    output = response.outputs.add(name=name)
    if not wanted.classes:
        output.datatype = "FP32"
        output.shape.extend(rows.shape)
        if wanted.raw:
            response.raw_output_contents.append(rows.astype("<f4", copy=False).tobytes())
        else:
            output.contents.fp32_contents.extend(rows.ravel().tolist())
        return
    best = np.argsort(-rows, axis=1, kind="stable")[:, : wanted.classes]
    elements = [
        f"{row[index]:f}:{index}:{labels[index]}".encode()
        for row, indices in zip(rows, best.tolist(), strict=True)
        for index in indices
    ]
    output.datatype = "BYTES"
    output.shape.extend(best.shape)
    if wanted.raw:
        response.raw_output_contents.append(join_elements(elements))
    else:
        output.contents.bytes_contents.extend(elements)
