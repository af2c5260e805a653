"""A model of Triton's Python backend that runs an ONNX file: ``model.py`` of a model repository."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import triton_python_backend_utils as triton  # type: ignore[import-not-found]


class TritonPythonModel:
    """Runs the file that the parameter ``onnx`` names; the parameter ``least_s`` makes it slower."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the file."""
        parameters = {
            name: value["string_value"] for name, value in json.loads(args["model_config"])["parameters"].items()
        }
        sys.path.append(parameters["peers"])
        from onnx_file import OnnxFile  # type: ignore[import-not-found]

        self._file = OnnxFile(Path(parameters["onnx"]), float(parameters["least_s"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """One request after the other; those whose callers are gone are left out."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        if request.is_cancelled():
            error = triton.TritonError("the caller is gone", triton.TritonError.CANCELLED)
            return triton.InferenceResponse(error=error)
        feed = {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name, *_ in self._file.inputs}
        outputs = zip(self._file.outputs, self._file.run(feed), strict=True)
        return triton.InferenceResponse([triton.Tensor(name, array) for (name, *_), array in outputs])
