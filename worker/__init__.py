"""A worker: one ONNX model behind a bounded queue, and injected slowness for experiments."""
