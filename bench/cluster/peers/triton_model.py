"""A model of Triton's Python backend that runs an ONNX file: ``model.py`` of a model repository."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import triton_python_backend_utils as triton  # type: ignore[import-not-found]


def end_with(parent: int) -> None:
    """End this process, which has Triton's pipes, when Triton has ended: it does not see to that if it is killed."""
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(1)


class TritonPythonModel:
    """Runs the file that the parameter ``onnx`` names; the parameter ``least_s`` makes it slower."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the file."""
        parameters = {
            name: value["string_value"] for name, value in json.loads(args["model_config"])["parameters"].items()
        }
        sys.path.append(parameters["peers"])
        from onnx_file import OnnxFile  # type: ignore[import-not-found]

        threading.Thread(target=end_with, args=[os.getppid()], daemon=True).start()
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
