"""The worker's metrics; one instance per process, in an injected registry."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS_BUCKETS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.225, 0.25, 0.3, 0.35, 0.4, 0.5,
    0.75, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
OUTCOMES = ("ok", "rejected", "dropped", "cancelled", "failed", "invalid")


class WorkerMetrics:
    """Everything a worker reports.

    Outcomes: ``ok``; ``rejected`` by a queue that is full, or too long for the time remaining; ``dropped`` before its
    inference started, because the caller was gone or its time was over; ``cancelled`` while it ran; ``failed`` in the
    model; ``invalid`` tensor.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything in ``registry``, every outcome starting from 0."""
        self.inference = Histogram(
            "collage_worker_inference_seconds", "Answered calls: inference, injected slowness included",
            buckets=SECONDS_BUCKETS, registry=registry,
        )  # fmt: skip
        self.queue = Histogram(
            "collage_worker_queue_seconds", "Started calls: from arrival to the start of the inference",
            buckets=SECONDS_BUCKETS, registry=registry,
        )  # fmt: skip
        self.queue_length = Gauge(
            "collage_worker_queue_length", "Calls waiting behind the running one", registry=registry
        )
        self.requests = Counter(
            "collage_worker_requests_total", "Finished calls by outcome", ["outcome"], registry=registry
        )
        self.slowdown = Histogram(
            "collage_worker_slowdown_seconds", "Draws of injected slowness", buckets=SECONDS_BUCKETS, registry=registry
        )
        self.provider = Gauge(
            "collage_worker_provider", "1 for ONNX Runtime's execution provider in use", ["provider"], registry=registry
        )
        self.busy = Counter("collage_worker_busy_seconds_total", "Time the inference slot was taken", registry=registry)
        for outcome in OUTCOMES:
            self.requests.labels(outcome)
