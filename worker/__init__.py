"""A worker: one ONNX model behind a bounded queue, and injected slowness for experiments."""

import os

# ONNX Runtime's packages report usage to their maker unless told otherwise before their first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
