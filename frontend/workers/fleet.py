"""A model in a fleet of another make: what a file says of it, checked against what the server says, and its tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collage.model_info import ModelInfo, ModelKind, TensorSpec, parse
from collage.specs import brief, check_number
from encoder.image import Pixels
from frontend.workers.discovery import TargetError
from frontend.workers.streams import Reply, WorkerFailure
from inference import open_inference_pb2 as oip

LEAST_PROBABILITY = 1e-12
_INPUT_TYPES = {"UINT8": "u1", "FP16": "<f2", "FP32": "<f4"}
_OUTPUT_TYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_TYPED = {"FP32": "fp32_contents", "FP64": "fp64_contents"}
_CHOICES = {"scores": ("logits", "probabilities"), "layout": ("NHWC", "NCHW"), "colors": ("RGB", "BGR")}

_Tensor = oip.ModelMetadataResponse.TensorMetadata


@dataclass(frozen=True)
class Description:
    """What a file says of a model whose server does not know Collage.

    ``info.name`` is the model's name on its server. A float input gets (pixel / 255 - ``mean``) / ``std``, by channel.
    ``scores`` are logits or probabilities. ``layout`` is NHWC or NCHW; None if the shape of the input tells. ``colors``
    are RGB or BGR.
    """

    info: ModelInfo
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scores: str = "logits"
    layout: str | None = None
    colors: str = "RGB"

    @classmethod
    def read(cls, path: Path) -> Description:
        """From a file of JSON, as beside an ONNX file; raises TargetError, one line that names the file."""
        try:
            return cls.from_content(parse(path.read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise TargetError(f"the description {path} cannot be used: {error}") from None

    @classmethod
    def from_content(cls, content: object) -> Description:
        """From parsed JSON; raises ValueError that names what is wrong."""
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")  # noqa: TRY004 - every mistake is a ValueError
        content = dict(content)
        told: dict[str, Any] = {name: content.pop(name) for name in ("mean", "std", *_CHOICES) if name in content}
        for name, choices in _CHOICES.items():
            if name in told and told[name] not in choices:
                raise ValueError(f"{name} must be {' or '.join(choices)}, not {brief(told[name])}")
        for name, least in (("mean", -1e6), ("std", 1e-6)):
            if name in told:
                told[name] = _three(name, told[name], least)
        return cls(ModelInfo.from_content(content), **told)


class Form:
    """How a model of a fleet is asked, and how its answers are read, as its metadata and its description say together.

    Tensors are sent as raw contents. The input is uint8, float16 or float32, with or without a batch dimension in
    front.
    """

    def __init__(self, description: Description, metadata: oip.ModelMetadataResponse) -> None:
        """Raises ValueError where the two contradict each other, or say too little."""
        self._description = description
        version = max(metadata.versions, key=lambda told: (len(told), told), default="")
        self.info = info = replace(description.info, version=version)
        if len(metadata.inputs) != 1:
            raise ValueError(
                f"the metadata of {info.name!r} has {len(metadata.inputs) or 'no'} inputs, and it needs one: "
                "name the tensors in its configuration"
            )
        (image,) = metadata.inputs
        shape, self._transposed = self._read_input(image)
        self._outputs = self._choose_outputs(metadata.outputs)
        self._dtype = np.dtype(_INPUT_TYPES[image.datatype])
        self._scale, self._shift = _normalisation(description)
        self._takes_log = info.kind is ModelKind.S_CNN and description.scores == "probabilities"
        self._asked = oip.ModelInferRequest(model_name=info.name, model_version=version)
        self._asked.inputs.add(name=image.name, datatype=image.datatype, shape=shape)
        for name in self._outputs:
            self._asked.outputs.add(name=name)

    @property
    def assumed(self) -> str | None:
        """What nobody said, and so may be wrong, if anything."""
        if self._dtype.kind == "f" and self._description.mean is None and self._description.std is None:
            return "pixels are divided by 255 and not normalised, as the description has no mean and std"
        return None

    @property
    def answer_bytes(self) -> int:
        """Most bytes that an answer can need on the wire: numbers may have eight bytes each."""
        return 2 * self.info.answer_bytes

    def request(self, image: Pixels, request_id: str) -> oip.ModelInferRequest:
        """The request for one input, uint8 ``[size, size, 3]``."""
        request = oip.ModelInferRequest()
        request.CopyFrom(self._asked)
        request.id = request_id
        pixels: NDArray[Any] = image if self._description.colors == "RGB" else image[:, :, ::-1]
        if self._dtype.kind == "f":
            pixels = pixels * self._scale - self._shift
        if self._transposed:
            pixels = pixels.transpose(2, 0, 1)
        request.raw_input_contents.append(pixels.astype(self._dtype, copy=False).tobytes())
        return request

    def reply(self, response: oip.ModelInferResponse, took_s: float) -> Reply | WorkerFailure:
        """The outputs, float32 in the order of ``info.outputs``. The protocol tells no times: all counts as inference.

        That the outputs are ``info``'s is the caller's to check.
        """
        raw = response.raw_output_contents
        if raw and len(raw) != len(response.outputs):
            return WorkerFailure(
                "GARBAGE", f"the answer has {len(response.outputs)} outputs and contents of {len(raw)}"
            )
        found = {output.name: (output, raw[number] if raw else None) for number, output in enumerate(response.outputs)}
        try:
            outputs = [self._read_output(name, found, spec) for name, spec in self._specs()]
        except ValueError as error:
            return WorkerFailure("GARBAGE", f"the answer cannot be read: {error}")
        return Reply(tuple(outputs), 0.0, took_s)

    def _specs(self) -> list[tuple[str, TensorSpec]]:
        return list(zip(self._outputs, self.info.outputs, strict=True))

    def _read_output(
        self,
        name: str,
        found: dict[str, tuple[oip.ModelInferResponse.InferOutputTensor, bytes | None]],
        spec: TensorSpec,
    ) -> NDArray[np.float32]:
        if name not in found:
            raise ValueError(f"there is no output {name!r}")
        output, raw = found[name]
        dtype, shape = _OUTPUT_TYPES.get(output.datatype), list(output.shape)
        if dtype is None or any(extent < 0 for extent in shape) or len(shape) > len(spec.shape) + 1:
            raise ValueError(f"{name!r} is {brief(output.datatype)} {brief(shape)}")
        if raw is None and output.datatype not in _TYPED:
            raise ValueError(f"{name!r} has no contents")
        values = (
            np.frombuffer(raw, dtype)
            if raw is not None
            else np.array(getattr(output.contents, _TYPED[output.datatype]), dtype)
        )
        if values.size != math.prod(shape):
            raise ValueError(f"{name!r} of shape {shape} has {values.size} numbers")
        if len(shape) > len(spec.shape) and shape[0] == 1:
            shape = shape[1:]
        floats = values.reshape(shape).astype(np.float32, copy=False)
        if not self._takes_log:
            return floats
        return np.log(np.maximum(floats, np.float32(LEAST_PROBABILITY)))

    def _read_input(self, tensor: _Tensor) -> tuple[list[int], bool]:
        """The shape to send, and whether channels come first."""
        size, shape = self.info.size, list(tensor.shape)
        forms = {"NHWC": [size, size, 3], "NCHW": [3, size, size]}
        batch = [1] * (len(shape) - 3)
        fitting = [
            layout
            for layout, row in forms.items()
            if layout == (self._description.layout or layout) and len(batch) <= 1 and _fits(shape, [*batch, *row])
        ]
        if not fitting or tensor.datatype not in _INPUT_TYPES:
            wanted = " or ".join(
                str(forms[layout]) for layout in forms if layout == (self._description.layout or layout)
            )
            raise ValueError(
                f"its input is {_told(tensor)}, and the description asks for {', '.join(_INPUT_TYPES)} of shape "
                f"{wanted}, with or without a batch dimension"
            )
        if len(fitting) > 1:
            raise ValueError(
                f"its input is {_told(tensor)}, which fits NHWC and NCHW: add the layout to the description"
            )
        return [*batch, *forms[fitting[0]]], fitting[0] == "NCHW"

    def _choose_outputs(self, tensors: Sequence[_Tensor]) -> list[str]:
        """The names, on the server, of ``info.outputs``; where one is needed, the only one may have any name."""
        wanted, found = self.info.outputs, {tensor.name: tensor for tensor in tensors}
        names = [*found] if len(wanted) == len(found) == 1 else [spec.name for spec in wanted]
        if missing := [name for name in names if name not in found]:
            listed = ", ".join(map(repr, found)) or "none"
            raise ValueError(f"its outputs are {listed}: a {self.info.kind} needs {', '.join(missing)} as well")
        for name, spec in zip(names, wanted, strict=True):
            tensor, shape = found[name], list(found[name].shape)
            row = shape[1:] if len(shape) > len(spec.shape) else shape
            fits = len(row) == len(spec.shape) and all(
                -1 in (have, want) or have == want for have, want in zip(row, spec.shape, strict=True)
            )
            if tensor.datatype not in _OUTPUT_TYPES or not fits:
                raise ValueError(
                    f"its output is {_told(tensor)}, and the description asks for {', '.join(_OUTPUT_TYPES)} of shape "
                    f"{list(spec.shape)}, with or without a batch dimension"
                )
        return names


def _normalisation(description: Description) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and shift by channel, float32 ``[3]``: pixel * scale - shift = (pixel / 255 - mean) / std."""
    mean, std = np.array(description.mean or (0, 0, 0)), np.array(description.std or (1, 1, 1))
    return (1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32)


def _three(name: str, values: object, least: float) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != 3:
        raise ValueError(f"{name} must be a list of three numbers, not {brief(values)}")
    for value in values:
        check_number(name, value, least, 1e6)
    return tuple(map(float, values))


def _fits(declared: Sequence[int], shape: Sequence[int]) -> bool:
    return len(declared) == len(shape) and all(have in (-1, want) for have, want in zip(declared, shape, strict=True))


def _told(tensor: _Tensor) -> str:
    return f"{brief(tensor.name)} {tensor.datatype[:32]} {brief(list(tensor.shape))}"
