"""One ONNX file in ONNX Runtime, for servers of other makes: its tensors in their words, and one run at a time."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the library is imported

import onnxruntime

DATATYPES = {"tensor(uint8)": "UINT8", "tensor(float16)": "FP16", "tensor(float)": "FP32", "tensor(double)": "FP64"}


class OnnxFile:
    """A session on one thread. A run takes ``least_s`` seconds at least, as on a slower machine."""

    def __init__(self, path: Path, least_s: float = 0.0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._least_s = least_s
        self.inputs = [_tensor(node) for node in self._session.get_inputs()]
        self.outputs = [_tensor(node) for node in self._session.get_outputs()]

    def run(self, feed: dict[str, Any]) -> list[Any]:
        """All outputs, as arrays."""
        started = time.monotonic()
        outputs: list[Any] = self._session.run(None, feed)
        time.sleep(max(0.0, started + self._least_s - time.monotonic()))
        return outputs


def _tensor(node: Any) -> tuple[str, str, list[int]]:
    """Name, data type and shape; -1 stands for an extent that the graph leaves open."""
    return node.name, DATATYPES[node.type], [extent if isinstance(extent, int) else -1 for extent in node.shape]
