"""Servers of other makes that run ONNX files, in environments of their own: nothing here imports anything of ours."""
