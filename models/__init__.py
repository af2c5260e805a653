"""Training, export and evaluation of the models. The only package that may import torch."""

import os

# See worker/__init__.py: ONNX Runtime's packages report usage unless told otherwise before their first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
