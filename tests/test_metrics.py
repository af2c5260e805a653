"""docs/metrics.md lists exactly what the processes report, in the words of the code."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from frontend.metrics import LATENCY_BUCKETS, FrontendMetrics, Tally
from tests.reported import families
from worker.metrics import WorkerMetrics

CATALOGUE = Path(__file__).parents[1] / "docs" / "metrics.md"
UNITS = {"seconds": "seconds", "ratio": "share, 0 to 1"}


def rows(metrics: object) -> list[str]:
    """The table of one process, a line per metric, by name."""
    found = {}
    for family, names in families(metrics):
        name = family.name + ("_total" if family.type == "counter" else "")
        unit = next((text for word, text in UNITS.items() if word in name.split("_")), "count")
        labels = ", ".join(f"`{label}`" for label in names)
        found[name] = f"| `{name}` | {family.type} | {labels} | {unit} | {family.documentation} |"
    return [found[name] for name in sorted(found)]


@pytest.mark.parametrize(
    ("heading", "metrics"),
    [("Frontend", FrontendMetrics(CollectorRegistry())), ("Workers", WorkerMetrics(CollectorRegistry()))],
)
def test_the_catalogue_is_what_is_reported(heading: str, metrics: object) -> None:
    section = CATALOGUE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| `")]
    assert table == rows(metrics)


@pytest.mark.parametrize(("slo_s", "edges"), [(None, 0), (0.25, 0), (0.123, 1)])
def test_the_objective_is_a_bucket_edge(slo_s: float | None, edges: int) -> None:
    registry = CollectorRegistry()
    FrontendMetrics(registry, slo_s).latency.labels("s_cnn").observe(0.1)
    labels = {"source": "s_cnn", "le": str(slo_s or 0.25)}
    assert registry.get_sample_value("collage_request_seconds_bucket", labels) == 1
    samples = [sample for family in registry.collect() for sample in family.samples if "le" in sample.labels]
    mine = [sample for sample in samples if sample.labels.get("source") == "s_cnn"]
    assert len(mine) == len(LATENCY_BUCKETS) + 1 + edges


def test_what_is_counted_rarely_is_born_at_zero() -> None:
    registry = CollectorRegistry()
    FrontendMetrics(registry)
    assert registry.get_sample_value("collage_answers_total", {"source": "default"}) == 0
    assert registry.get_sample_value("collage_requests_total", {"code": "UNAVAILABLE"}) == 0
    assert registry.get_sample_value("collage_refused_total", {"reason": "deadline"}) == 0
    failures = {"attempt": "replica", "code": "UNAVAILABLE"}
    assert registry.get_sample_value("collage_worker_failures_total", failures) == 0


def test_a_tally_counts_every_event_from_0_on() -> None:
    registry = CollectorRegistry()
    tally = Tally("collage_x_total", "Of a test", "code", ("OK", "INTERNAL"), registry)
    for _ in range(3):
        tally.inc("OK")
    counts = [registry.get_sample_value("collage_x_total", {"code": code}) for code in ("OK", "INTERNAL")]
    assert counts == [3, 0]
