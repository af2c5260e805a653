"""The frontend's metrics; one instance per process, in an injected registry."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from encoder.code import Source

LATENCY_BUCKETS = (
    0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.225, 0.25, 0.3, 0.35, 0.4, 0.5, 0.75, 1.0,
    2.5, 5.0, 10.0,
)  # fmt: skip
CODES = (
    "OK", "CANCELLED", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE",
)  # fmt: skip
ATTEMPTS = ("s_cnn", "replica", "coded")
WORKER_CODES = (
    "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "INTERNAL", "UNAVAILABLE", "GARBAGE",
)  # fmt: skip
WORKER_STATES = ("known", "ready", "refused", "ejected")
GIVEN = ("early", "straggler")
STEP_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25)


class Tally(Collector):
    """A counter with one label, for what every request counts, in the event loop only.

    It takes no lock, which would take ten times as long as counting. All values of the label start at 0, or Prometheus
    would not see the first event.
    """

    def __init__(
        self, name: str, documentation: str, label: str, values: Iterable[str], registry: CollectorRegistry
    ) -> None:
        self.label = label
        self._name, self._documentation = name, documentation
        self._counts = dict.fromkeys(values, 0)
        registry.register(self)

    def inc(self, value: str) -> None:
        """Count one with this ``value`` of the label."""
        self._counts[value] += 1

    def collect(self) -> Iterable[Metric]:
        """As the registry asks for it."""
        family = CounterMetricFamily(self._name, self._documentation, labels=[self.label])
        for value, count in self._counts.items():
            family.add_metric([value], count)
        return [family]


class FrontendMetrics:
    """Everything the frontend reports; docs/metrics.md lists it. ``slo_s`` becomes a bucket edge of the latency."""

    def __init__(self, registry: CollectorRegistry, slo_s: float | None = None) -> None:
        self.latency = Histogram(
            "collage_request_seconds", "From admission to the answer", ["source"],
            buckets=sorted({*LATENCY_BUCKETS, *([slo_s] if slo_s else [])}), registry=registry,
        )  # fmt: skip
        self.requests = Tally(
            "collage_requests_total",
            "Finished requests by gRPC status, but for those refused unread: unauthenticated, malformed, unknown model",
            "code", CODES, registry,
        )  # fmt: skip
        self.refused = Counter(
            "collage_refused_total",
            "Requests refused on arrival: too many (count, bytes or share), or no answer in time (deadline)",
            ["reason"], registry=registry,
        )  # fmt: skip
        self.answers = Tally("collage_answers_total", "Answers by who gave them", "source", Source, registry)
        self.in_flight = Gauge("collage_in_flight", "Requests admitted and not yet answered", registry=registry)
        self.stragglers = Counter(
            "collage_stragglers_total", "Requests without an s-cnn answer at their deadline", registry=registry
        )
        self.sent = Tally(
            "collage_sent_total", "Calls sent to workers: s_cnn, replica or coded", "attempt", ATTEMPTS, registry
        )
        self.failures = Counter(
            "collage_worker_failures_total", "Calls to workers that failed", ["attempt", "code"], registry=registry
        )
        self.group_fill = Histogram(
            "collage_group_fill_ratio", "Share of a closed group's places that are taken",
            buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), registry=registry,
        )  # fmt: skip
        self.prepare = Histogram(
            "collage_prepare_seconds",
            "Making the input of an s-cnn from an image file, or from typed contents",
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self.encode = Histogram(
            "collage_encode_seconds",
            "Making the redundant inputs of one group",
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self.decode = Histogram(
            "collage_decode_seconds",
            "Decoding the missing answers of one group",
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self.audits = Counter(
            "collage_audits_total", "Coded answers compared with the late s-cnn: agree or differ", ["outcome"],
            registry=registry,
        )  # fmt: skip
        self.unsure = Counter(
            "collage_unsure_answers_total", "Coded answers given below the accept threshold", registry=registry
        )
        self.accuracy_spent = Counter(
            "collage_accuracy_spent_total",
            "Errors to expect of coded answers beyond the s-cnn's own, by when they were given: early or straggler",
            ["given"], registry=registry,
        )  # fmt: skip
        self.deadline = Gauge("collage_deadline_seconds", "When a request becomes a straggler", registry=registry)
        self.workers = Gauge(
            "collage_workers",
            "Workers by state: known; ready to be used; refused, for a model not in use; ejected now",
            ["role", "state"], registry=registry,
        )  # fmt: skip
        self.ejections = Counter(
            "collage_ejections_total", "Workers left out for a while for being slow or failing", ["role"],
            registry=registry,
        )  # fmt: skip
        self.tasks = Gauge(
            "collage_tasks", "Tasks of the event loop; what does not return was leaked", registry=registry
        )
        self.watchers: list[Callable[[Source, float], object]] = []
        ProcessCollector(registry=registry)
        # To look the child up would take longer than to observe.
        self.latency.labels = functools.cache(self.latency.labels)  # type: ignore[method-assign]
        for metric, *values in (  # born at 0 as well
            (self.latency, Source),
            (self.refused, ("count", "bytes", "share", "deadline")),
            (self.failures, ATTEMPTS, WORKER_CODES),
            (self.audits, ("agree", "differ")),
            (self.accuracy_spent, GIVEN),
        ):
            for labels in itertools.product(*values):
                metric.labels(*labels)

    def coded_answer(self, *, sure: bool, early: bool, cost: float) -> None:
        """Count a coded answer that was given, and the errors to expect of it."""
        if not sure:
            self.unsure.inc()
        self.accuracy_spent.labels("early" if early else "straggler").inc(cost)

    def answered(self, source: Source, seconds: float) -> None:
        """Count an answer, and tell the ``watchers``."""
        self.answers.inc(source)
        self.latency.labels(source).observe(seconds)
        for watcher in self.watchers:
            watcher(source, seconds)

    def watch_tasks(self) -> None:
        """Report the number of the running loop's tasks whenever the metrics are read."""
        loop = asyncio.get_running_loop()
        self.tasks.set_function(lambda: len(asyncio.all_tasks(loop)))

    def watch_workers(self, role: str, count: Callable[[str], int]) -> None:
        """Report how many workers of a role (s_cnn or coded) are in each state whenever the metrics are read."""
        for state in WORKER_STATES:
            self.workers.labels(role, state).set_function(functools.partial(count, state))
