"""Every query of the dashboard names metrics, labels and label values that the code reports."""

import json
import re
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from frontend.config import FrontendSettings
from frontend.dispatch import Source
from frontend.metrics import FrontendMetrics
from tests.k8s.conftest import ROOT, Rendered
from worker.metrics import WorkerMetrics

DASHBOARD: dict[str, Any] = json.loads((ROOT / "k8s/dashboards/collage.json").read_text())
QUERIES = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}
SCRAPED = {"pod"}
"""Labels that Prometheus adds to what it scrapes from Kubernetes."""
VALUES: dict[str, set[str]] = {
    "source": set(Source),
    "attempt": {"s_cnn", "replica", "collage"},
    "code": {code.name for code in grpc.StatusCode},
}


def _series() -> dict[str, set[str]]:
    """Labels of every time series that our processes report, by its name in queries."""
    series: dict[str, set[str]] = {}
    for metrics in (FrontendMetrics(CollectorRegistry()), WorkerMetrics(CollectorRegistry())):
        for metric in vars(metrics).values():
            if isinstance(metric, MetricWrapperBase):
                (family,) = metric.describe()
                labels = set(metric._labelnames)  # no public name; families list no labels before their first use
                for suffix in SUFFIXES[family.type]:
                    series[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return series


SERIES = _series()


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_query_names_real_metrics_and_labels(title: str, query: str) -> None:
    used = re.findall(r"\b(collage_\w+)(?:\{([^}]*)\})?", query)
    assert used or query == "vector($budget)"
    known = set(SCRAPED)
    for name, selector in used:
        assert name in SERIES, f"{title}: no process reports {name}"
        for label, value in re.findall(r'(\w+)\s*[=!]~?\s*"([^"]*)"', selector):
            assert label in SERIES[name], f"{title}: {name} has no label {label}"
            assert set(value.split("|")) <= VALUES[label], f"{title}: {label} is never {value}"
        known |= SERIES[name]
    for clause in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", query):
        assert {label.strip() for label in clause.split(",")} <= known, title
    assert ("histogram_quantile" in query) == any(name.endswith("_bucket") for name, _ in used)


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: panel["title"])
def test_legends_use_labels_that_the_query_keeps(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        kept = {
            label.strip() for clause in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in clause.split(",")
        }
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) == kept - {"le"}


def test_panels_share_the_data_source_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert {item["datasource"]["uid"] for item in (panel, *panel["targets"])} == {"${datasource}"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_variables(base: Rendered) -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["budget"]["query"] == base.environment("frontend")["COLLAGE_EXTRA_LOAD"]
    assert float(variables["budget"]["query"]) == FrontendSettings.model_fields["extra_load"].default
    text = json.dumps(DASHBOARD["panels"])
    assert set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval"} == variables.keys()


def test_what_operators_need_is_shown() -> None:
    """Latency by source, answers by source, extra load against the budget, stragglers, load, workers, failures."""
    shown = " ".join(query for _, query in QUERIES)
    for name in (
        "collage_request_seconds_bucket", "collage_answers_total", "collage_sent_total", "collage_stragglers_total",
        "collage_in_flight", "collage_deadline_seconds", "collage_worker_queue_seconds_bucket",
        "collage_worker_inference_seconds_bucket",
        "collage_worker_failures_total",
    ):  # fmt: skip
        assert name in shown


def test_grafana_finds_the_dashboard(base: Rendered) -> None:
    config_map = base.of("ConfigMap")["collage-dashboards"]
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config_map["data"]["collage.json"]) == DASHBOARD
