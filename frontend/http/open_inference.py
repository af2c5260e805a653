"""The Open Inference Protocol's REST: JSON and the binary extension to messages of gRPC's servicer, and back."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import Message
from pydantic import BaseModel, Field, ValidationError

from frontend.http.statuses import Refusal, first_mistake
from inference import open_inference_pb2 as oip
from inference.tensors import join_elements, split_elements

MAX_JSON_BYTES = 2 * 1024 * 1024
"""Longest JSON of a request: a number takes up to 60 times as much memory as its text, and parsing stops all else."""
LENGTH = "inference-header-content-length"
"""The header field that says how long the JSON before binary tensors is."""
_NUMBERS = {"UINT8": "<u1", "FP32": "<f4"}

Parameter = bool | int | float | str


class InferInput(BaseModel):
    """One tensor: its ``data``, flat or nested, or ``binary_data_size`` bytes after the JSON."""

    name: str
    shape: list[int]
    datatype: str = Field(description="UINT8, FP32 (pixels from 0 to 255), or BYTES (image files)")
    parameters: dict[str, Parameter] = Field(
        {}, description="binary_data_size: bytes of this tensor after the JSON; content_type: base64, of BYTES in data"
    )
    data: list[Any] | None = None


class InferOutput(BaseModel):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Parameter] = Field(
        {}, description="binary_data: whether it comes after the JSON; classification: the number of best classes"
    )


class InferRequest(BaseModel):
    """Images to classify."""

    id: str = ""
    parameters: dict[str, Parameter] = Field(
        {}, description="timeout: in microseconds; binary_data_output: all outputs come after the JSON"
    )
    inputs: list[InferInput]
    outputs: list[InferOutput] = []


class Asked:
    """A request: the ``message`` for gRPC's servicer, and whether the outputs come after the JSON."""

    def __init__(self, body: bytes, json_length: str | None, model: str, version: str) -> None:
        """Read a body whose first ``json_length`` bytes are JSON, all of it if None; raises Refusal."""
        length = len(body) if json_length is None else _length(json_length, len(body))
        if length > MAX_JSON_BYTES:
            told = f"the JSON has {length} bytes, more than {MAX_JSON_BYTES}: send images after it (binary_data_size)"
            raise Refusal(413, told, malformed=True)
        try:
            request = InferRequest.model_validate_json(body[:length])
        except ValidationError as error:
            raise _bad(first_mistake(error)) from None
        self.message = oip.ModelInferRequest(model_name=model, model_version=version, id=request.id)
        rest = memoryview(body)[length:]
        for tensor in request.inputs:
            rest = _add(self.message, tensor, rest)
        if len(rest):
            raise _bad(f"{len(rest)} bytes follow the last tensor: give each its binary_data_size")
        binary = request.parameters.pop("binary_data_output", False)
        for name, value in request.parameters.items():
            _set(self.message.parameters, name, value)
        self.binary = binary is True
        for output in request.outputs:
            asked = self.message.outputs.add(name=output.name)
            self.binary = output.parameters.pop("binary_data", binary) is True
            for name, value in output.parameters.items():
                _set(asked.parameters, name, value)

    def answer(self, response: oip.ModelInferResponse) -> tuple[bytes, dict[str, str]]:
        """A body, and its header fields."""
        head: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
        if response.id:
            head["id"] = response.id
        head["parameters"] = {name: _value(value) for name, value in response.parameters.items()}
        head["outputs"] = []
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            told: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
            if self.binary:
                told["parameters"] = {"binary_data_size": len(raw)}
            elif output.datatype == "BYTES":
                told["data"] = [text.decode() for text in split_elements(raw, math.prod(output.shape))]
            else:
                told["data"] = np.frombuffer(raw, _NUMBERS[output.datatype]).tolist()
            head["outputs"].append(told)
        content = json.dumps(head, separators=(",", ":")).encode()
        if not self.binary:
            return content, {"Content-Type": "application/json"}
        headers = {"Content-Type": "application/octet-stream", LENGTH: str(len(content))}
        return b"".join((content, *response.raw_output_contents)), headers


def _bad(told: str) -> Refusal:
    return Refusal(400, f"the request is none of the Open Inference Protocol: {told}", malformed=True)


def _length(given: str, most: int) -> int:
    if not (given.isascii() and given.isdigit() and len(given) < 16 and int(given) <= most):
        raise _bad(f"{LENGTH} is no number of bytes up to those of the body, {most}")
    return int(given)


def _add(message: oip.ModelInferRequest, tensor: InferInput, rest: memoryview) -> memoryview:
    """Add a tensor to a message, its contents raw; returns what follows of the binary tensors."""
    size, content_type = tensor.parameters.pop("binary_data_size", None), tensor.parameters.pop("content_type", "")
    raw: Any = b""
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(rest):
            raise _bad(f"binary_data_size of {tensor.name!r} is no number of bytes up to the {len(rest)} that follow")
        if tensor.data is not None:
            raise _bad(f"{tensor.name!r} has both data and binary_data_size: send one of them")
        raw, rest = bytes(rest[:size]), rest[size:]
    elif tensor.data is None and "shared_memory_region" not in tensor.parameters:
        raise _bad(f"{tensor.name!r} has neither data nor binary_data_size: send one of them")
    elif tensor.datatype == "BYTES":
        raw = _files(tensor.name, tensor.data or [], content_type)
    elif tensor.datatype in _NUMBERS:
        raw = _numbers(tensor.name, tensor.data or [], tensor.datatype)
    try:
        added = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    except ValueError:
        raise _bad(f"the shape of {tensor.name!r} has a number beyond 64 bits") from None
    for name, value in tensor.parameters.items():
        _set(added.parameters, name, value)
    message.raw_input_contents.append(raw)
    return rest


def _numbers(name: str, data: list[Any], datatype: str) -> bytes:
    try:
        numbers = np.asarray(data)
    except ValueError:
        raise _bad(f"the data of {name!r} are nested unevenly: send one flat list") from None
    kinds = "iu" if datatype == "UINT8" else "iuf"
    if numbers.size and numbers.dtype.kind not in kinds:
        raise _bad(f"the data of {name!r} are no {datatype} numbers")
    if datatype == "UINT8" and numbers.size and not 0 <= numbers.min() <= numbers.max() <= 255:
        raise _bad(f"pixels are from 0 to 255, those of {name!r} are from {numbers.min()} to {numbers.max()}")
    with np.errstate(over="ignore"):
        return numbers.astype(_NUMBERS[datatype]).tobytes()


def _files(name: str, data: list[Any], content_type: Parameter) -> bytes:
    flat = [each for row in data for each in (row if isinstance(row, list) else [row])]
    if content_type != "base64" or not all(isinstance(each, str) for each in flat):
        raise _bad(
            f"JSON holds no image files: send {name!r} after the JSON (binary_data_size), or as base64 texts with the "
            "parameter content_type: base64, or one file to /v1/predict"
        )
    try:
        files = [base64.b64decode(each, validate=True) for each in flat]
    except (binascii.Error, ValueError):
        raise _bad(f"the data of {name!r} are no base64") from None
    return join_elements(files)


def _set(parameters: Any, name: str, value: Parameter) -> None:
    field = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
    try:
        setattr(parameters[name], field, value)
    except ValueError:
        raise _bad(f"the parameter {name[:100]} has more than 64 bits") from None


def _value(parameter: oip.InferParameter) -> Any:
    return getattr(parameter, parameter.WhichOneof("parameter_choice") or "string_param")


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON has it, with the fields' own names, all fields that are no other message, and whole numbers."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value: Any = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            found[field.name] = {key: _plain(field, value[key]) for key in value}
        elif field.is_repeated:
            found[field.name] = [_plain(field, each) for each in value]
        elif not field.has_presence or message.HasField(field.name):
            found[field.name] = _plain(field, value)
    return found


def _plain(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, Mapping):
        return dict(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
