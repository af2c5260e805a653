"""A model in a fleet of another make: what a file says of it, checked against what the server says, and its tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collage.model_info import ModelInfo, TensorSpec
from collage.plain import PlainInput, logarithm
from collage.specs import brief
from encoder.image import Pixels
from frontend.workers.discovery import TargetError
from frontend.workers.streams import Reply, WorkerFailure
from inference import open_inference_pb2 as oip

_INPUT_TYPES = {"UINT8": "tensor(uint8)", "FP16": "tensor(float16)", "FP32": "tensor(float)", "FP64": "tensor(double)"}
"""Types of inputs, and ONNX Runtime's names for them."""
_OUTPUT_TYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_TYPED = {"FP32": "fp32_contents", "FP64": "fp64_contents"}

_Tensor = oip.ModelMetadataResponse.TensorMetadata


def read_description(path: Path) -> ModelInfo:
    """What a file of JSON says of a model, as beside an ONNX file; its ``name`` is the model's on its server.

    Raises TargetError, one line that names the file.
    """
    try:
        return ModelInfo.from_json(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TargetError(f"the description {path} cannot be used: {error}") from None


class Form:
    """How a model of a fleet is asked, and how its answers are read, as its metadata and its description say together.

    Tensors are sent as raw contents, with or without a batch dimension in front. ``assumed`` lists, in words for the
    operator, what neither of the two says.
    """

    def __init__(self, description: ModelInfo, metadata: oip.ModelMetadataResponse) -> None:
        """Raises ValueError where the two contradict each other, or say too little."""
        version = max(metadata.versions, key=lambda told: (len(told), told), default="")
        self.info = info = replace(description, version=version)
        if len(metadata.inputs) != 1:
            raise ValueError(
                f"the metadata of {info.name!r} has {len(metadata.inputs) or 'no'} inputs, and it needs one: "
                "name the tensors in its configuration"
            )
        (image,) = metadata.inputs
        self._batch = [1] * (len(image.shape) - 3)
        self._feed = self._choose_input(image)
        self.assumed = self._feed.assumed
        self._outputs = self._choose_outputs(metadata.outputs)
        self._asked = oip.ModelInferRequest(model_name=info.name, model_version=version)
        self._asked.inputs.add(name=image.name, datatype=image.datatype)
        for name in self._outputs:
            self._asked.outputs.add(name=name)

    @property
    def answer_bytes(self) -> int:
        """Most bytes that an answer can need on the wire: numbers may have eight bytes each."""
        return 2 * self.info.answer_bytes

    def request(self, image: Pixels, request_id: str) -> oip.ModelInferRequest:
        """The request for one input, uint8 ``[size, size, 3]``."""
        request = oip.ModelInferRequest()
        request.CopyFrom(self._asked)
        request.id = request_id
        values = self._feed(image[np.newaxis])
        request.inputs[0].shape.extend([*self._batch, *values.shape[1:]])
        request.raw_input_contents.append(values.tobytes())
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
        return logarithm(floats) if self.info.gives_probabilities else floats

    def _choose_input(self, tensor: _Tensor) -> PlainInput:
        shape = [None if extent == -1 else extent for extent in tensor.shape]
        whole = shape if self._batch else [1, *shape]
        try:
            return PlainInput(self.info.plain, _INPUT_TYPES.get(tensor.datatype, ""), whole, self.info.input.shape)
        except ValueError as error:
            raise ValueError(f"its input is {_told(tensor)}: {error}") from None

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


def _told(tensor: _Tensor) -> str:
    return f"{brief(tensor.name)} {tensor.datatype[:32]} {brief(list(tensor.shape))}"
