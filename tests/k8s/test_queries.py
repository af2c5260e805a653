"""Every query of dashboards, rules and autoscalers names metrics, labels and label values that the code reports."""

import importlib
import json
import re
from typing import Any, NamedTuple

import grpc
import pytest
import yaml
from prometheus_client import CollectorRegistry

from frontend.config import FrontendSettings
from frontend.jobs import Source
from frontend.metrics import LATENCY_BUCKETS, FrontendMetrics
from tests.k8s.conftest import ROOT, SETTINGS, render, settings_of
from tests.reported import families
from worker.metrics import OUTCOMES, WorkerMetrics

FRONTEND = settings_of("base")["frontend"]
assert isinstance(FRONTEND, FrontendSettings)
SCRAPED = {"namespace", "pod", "container", "job"}
"""Labels that both ways of scraping add."""
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}
VALUES: dict[str, set[str]] = {
    "source": set(Source),
    "attempt": {"s_cnn", "replica", "coded"},
    "code": {code.name for code in grpc.StatusCode},
    "role": {"s_cnn", "coded"},
    "state": {"known", "ready", "ejected", "refused"},
    "outcome": {"agree", "differ", *OUTCOMES},
    "given": {"early", "straggler"},
    "container": set(SETTINGS),
    "namespace": {"$namespace", "collage"},
    "job": {"collage", ".+/collage"},
    "le": {str(edge) for edge in LATENCY_BUCKETS} | {str(FRONTEND.slo_s)},
}


class Query(NamedTuple):
    """A PromQL expression and where it is from."""

    place: str
    expression: str


def _series() -> dict[str, set[str]]:
    """Labels of every time series that our processes report, by its name in queries."""
    series: dict[str, set[str]] = {"up": set(), "process_start_time_seconds": set()}
    for metrics in (FrontendMetrics(CollectorRegistry(), FRONTEND.slo_s), WorkerMetrics(CollectorRegistry())):
        for family, labels in families(metrics):
            for suffix in SUFFIXES[family.type]:
                series[family.name + suffix] = {*labels, *(["le"] if suffix == "_bucket" else [])}
    return series


RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "k8s/components/monitoring/rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
RECORDED = {rule["record"]: set(re.findall(r"by \((\w+)\)", rule["expr"])) for rule in RULES if "record" in rule}
SERIES = {**_series(), **RECORDED}
DASHBOARDS: dict[str, dict[str, Any]] = {
    file.name: json.loads(file.read_text()) for file in sorted((ROOT / "k8s/dashboards").glob("*.json"))
}
PANELS = [(file, panel) for file, dashboard in DASHBOARDS.items() for panel in dashboard["panels"]]
QUERIES = [
    *(Query(f"{file}: {panel['title']}", target["expr"]) for file, panel in PANELS for target in panel["targets"]),
    *(Query(rule.get("record") or rule["alert"], rule["expr"]) for rule in RULES),
    *(Query(name, item["spec"]["triggers"][0]["metadata"]["query"])
      for name, item in render("autoscaling").of("ScaledObject").items()),
]  # fmt: skip
IDS = [query.place for query in QUERIES]
_NAME = re.compile(r"(?<![\w:])(namespace:collage_[\w:]+|collage_\w+|process_\w+|up)\b(?!:)(?:\{([^}]*)\})?")


@pytest.mark.parametrize(("place", "query"), QUERIES, ids=IDS)
def test_query_names_real_metrics_and_labels(place: str, query: str) -> None:
    used = _NAME.findall(query)
    assert used or query == "vector($budget)"
    known = set(SCRAPED)
    for name, selector in used:
        assert name in SERIES, f"{place}: no process reports {name}"
        for label, value in re.findall(r'(\w+)\s*[=!]~?\s*"([^"]*)"', selector):
            assert label in SERIES[name] | SCRAPED, f"{place}: {name} has no label {label}"
            assert set(value.split("|")) <= VALUES[label], f"{place}: {label} is never {value}"
        known |= SERIES[name]
    for clause in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", query):
        assert {label.strip() for label in clause.split(",")} - {""} <= known, place
    assert not re.search(r"(?<!rate\()(?<!increase\()collage_\w+_total", query), "a counter is for rates"


def test_what_every_process_reports_is_asked_of_ours_only() -> None:
    (plain,) = yaml.safe_load((ROOT / "k8s/components/monitoring/scrape.yaml").read_text())["scrape_configs"]
    (monitor,) = render("production").of("PodMonitor").values()
    assert "jobLabel" not in monitor["spec"], "the operator names a job NAMESPACE/NAME"
    ours = (plain["job_name"], f"{monitor['metadata']['namespace']}/{monitor['metadata']['name']}")
    selectors = [
        selector
        for query in QUERIES
        for name, selector in _NAME.findall(query.expression)
        if not name.startswith(("collage_", "namespace:"))
    ]
    assert len(selectors) >= 5
    for selector in selectors:
        (pattern,) = re.findall(r'\bjob=~"([^"]*)"', selector)
        assert all(re.fullmatch(pattern, job) for job in ours)
        assert not re.fullmatch(pattern, "kubernetes-pods")


def test_queries_are_promql() -> None:
    """Also where promtool is missing, and for dashboards, which it does not read."""
    parser = importlib.import_module("promql_parser")
    for _, expression in QUERIES:
        parser.parse(expression.replace("$__rate_interval", "1m").replace("$budget", "1"))


@pytest.mark.parametrize(("file", "panel"), PANELS, ids=[f"{file}: {panel['title']}" for file, panel in PANELS])
def test_panels(file: str, panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        kept = {
            label.strip() for clause in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in clause.split(",")
        }
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert shown == (kept if panel["type"] == "heatmap" else kept - {"le"}), "a legend tells the series apart"
        assert (panel["type"] == "heatmap") == (target.get("format") == "heatmap")
        for _, selector in _NAME.findall(target["expr"]):
            assert 'namespace=~"$namespace"' in selector, f"{file}: all namespaces would be added up"
        buckets = "_bucket{" in target["expr"] and "le=" not in target["expr"]
        assert buckets == ("histogram_quantile" in target["expr"] or panel["type"] == "heatmap")
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["description"].endswith(".")


@pytest.mark.parametrize("file", DASHBOARDS)
def test_dashboards(file: str) -> None:
    dashboard = DASHBOARDS[file]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    text = json.dumps(dashboard["panels"])
    assert set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval"} == variables.keys()
    assert variables["datasource"]["type"] == "datasource"
    assert variables["namespace"]["query"]["query"] == "label_values(collage_in_flight, namespace)"
    assert dashboard["uid"] == f"collage-{file.removesuffix('.json')}"


def test_what_operators_need_is_shown() -> None:
    """Latency, answers by source, extra load, rescues, agreement, waste, heat maps, ejections, queues, failures."""
    shown = {
        file: " ".join(t["expr"] for panel in d["panels"] for t in panel["targets"]) for file, d in DASHBOARDS.items()
    }
    needed = {
        "overview.json": ("0.5, ", "0.99, ", "0.999, ", "answers_total", "sent_total", "$budget", "stragglers_total",
                          "in_flight", "deadline_seconds", "refused_total", "prepare_seconds"),
        "economics.json": (
            *("audits_total", "accuracy_spent_total", "group_fill_ratio", "busy_seconds_total", "sent_total"),
            "answers_total",
        ),
        "workers.json": ("inference_seconds_bucket", "queue_seconds_bucket", "queue_length", "worker_failures_total",
                         'state="ejected"', "worker_requests_total"),
    }  # fmt: skip
    assert needed.keys() == shown.keys()
    for file, parts in needed.items():
        assert [part for part in parts if part not in shown[file]] == []
    heatmaps = [panel["title"] for _, panel in PANELS if panel["type"] == "heatmap"]
    assert heatmaps == ["s-cnn latency", "collage-cnn latency"]


def test_numbers_that_are_settings_are_the_deployed_ones() -> None:
    budget, objective = FRONTEND.extra_load, FRONTEND.slo_s
    (alert,) = (rule["expr"] for rule in RULES if rule.get("alert") == "CollageExtraLoadAboveBudget")
    assert alert.endswith(f"> 1.1 * {budget}")
    variables = DASHBOARDS["overview.json"]["templating"]["list"]
    assert [variable["query"] for variable in variables if variable["name"] == "budget"] == [str(budget)]
    edges = {edge for query in QUERIES for edge in re.findall(r'\ble="([^"]*)"', query.expression)}
    assert edges == {str(objective)}
    assert FRONTEND.audit_share > 0, "without audits nothing is known about agreement"


def test_rules_of_both_kinds_are_the_same() -> None:
    (custom,) = render("monitoring-operator").of("PrometheusRule").values()
    plain = yaml.safe_load((ROOT / "k8s/components/monitoring/rules.yaml").read_text())
    assert custom["spec"] == plain


@pytest.mark.parametrize("name", ["monitoring", "monitoring-operator", "local", "production"])
def test_grafana_finds_the_dashboards(name: str) -> None:
    config_map = render(name).of("ConfigMap")["collage-dashboards"]
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert {file: json.loads(text) for file, text in config_map["data"].items()} == DASHBOARDS
