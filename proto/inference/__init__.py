"""The Open Inference Protocol, version 2, over gRPC: its messages, and a servicer for image classifiers."""
