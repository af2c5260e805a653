"""What a process reports to Prometheus, as its code has it."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from frontend.metrics import Tally


def families(metrics: object) -> Iterator[tuple[Metric, tuple[str, ...]]]:
    """All metrics of one process and the names of their labels, which have no samples before their first use."""
    for metric in vars(metrics).values():
        if isinstance(metric, Tally):
            (family,) = metric.collect()
            yield family, (metric.label,)
        elif isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            yield family, tuple(metric._labelnames)  # no public name
