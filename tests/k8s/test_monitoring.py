"""The scrape configuration finds our pods, promtool likes the rules, and the trial run asks every query."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from bench.cluster.local import Child
from bench.report import panels
from bench.runs import monitoring
from tests.k8s.conftest import ROOT, Document, Rendered, render
from tests.needed import needs

FOLDER = ROOT / "k8s/components/monitoring"
PROMTOOL = shutil.which("promtool")
needs_promtool = needs("promtool", "prometheus")
RULES = [rule for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"] for rule in group["rules"]]


def _promtool(*arguments: str | Path) -> None:
    assert PROMTOOL, "promtool is missing"
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def check_configuration(file: Path) -> None:
    """Fail where promtool finds a mistake in a configuration or in the rules that it names."""
    _promtool("check", "config", file)


@needs_promtool
def test_promtool_checks_the_rules() -> None:
    _promtool("check", "rules", FOLDER / "rules.yaml")
    _promtool("test", "rules", FOLDER / "rules.test.yaml")


@needs_promtool
def test_promtool_checks_the_configuration_of_a_trial_run(tmp_path: Path) -> None:
    child = Child("s-cnn", "s-cnn-0", (), tmp_path / "log")
    child.metrics_port = 1234
    file = tmp_path / "prometheus.yaml"
    file.write_text(yaml.safe_dump(monitoring.configuration([child])))
    check_configuration(file)


def test_every_alert_has_a_unit_test() -> None:
    tested = (FOLDER / "rules.test.yaml").read_text()
    alerts = [rule["alert"] for rule in RULES if "alert" in rule]
    assert len(alerts) == len(set(alerts)) > 8
    assert [alert for alert in alerts if alert not in tested] == []
    for rule in RULES:
        if "alert" in rule:
            assert rule["annotations"].keys() == {"summary", "description"}
            assert rule["labels"]["severity"] in {"warning", "critical"}


def _discovered(pod: Document, namespace: str) -> list[dict[str, str]]:
    """The labels that Kubernetes' discovery gives each container port of a pod."""
    prefix = "__meta_kubernetes"
    labels = {
        f"{prefix}_pod_label_{re.sub(r'[^a-zA-Z0-9_]', '_', key)}": value
        for key, value in pod["metadata"]["labels"].items()
    }
    return [
        {
            **labels,
            f"{prefix}_namespace": namespace,
            f"{prefix}_pod_name": "pod-1",
            f"{prefix}_pod_phase": "Running",
            f"{prefix}_pod_container_name": container["name"],
            f"{prefix}_pod_container_port_name": port["name"],
            "port": str(port["containerPort"]),
        }
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
    ]


def relabelled(labels: dict[str, str], rules: list[Document]) -> dict[str, str] | None:
    """Prometheus' relabelling, as far as the configuration uses it; None if the target is dropped."""
    kept = dict(labels)
    for rule in rules:
        value = ";".join(kept.get(label, "") for label in rule.get("source_labels", []))
        matches = re.fullmatch(rule.get("regex", "(.*)"), value) is not None
        match rule.get("action", "replace"):
            case "keep" if not matches:
                return None
            case "drop" if matches:
                return None
            case "replace":
                kept[rule["target_label"]] = rule.get("replacement", value)
    return {label: value for label, value in kept.items() if not label.startswith("__")}


@pytest.mark.parametrize("name", ["monitoring", "local"])
def test_prometheus_scrapes_every_process_once(name: str) -> None:
    rendered = render(name)
    (config_map,) = (item for key, item in rendered.of("ConfigMap").items() if key.startswith("prometheus"))
    (job,) = yaml.safe_load(config_map["data"]["scrape.yaml"])["scrape_configs"]
    for deployment, pod in rendered.pods().items():
        targets = [relabelled(target, job["relabel_configs"]) for target in _discovered(pod, "collage")]
        found = [target for target in targets if target]
        role = rendered.roles().get(deployment)
        expected = [{"namespace": "collage", "pod": "pod-1", "container": role, "port": "9090"}] if role else []
        assert found == expected


def test_pod_monitor_selects_every_process() -> None:
    rendered: Rendered = render("monitoring-operator")
    (monitor,) = rendered.of("PodMonitor").values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    for deployment in rendered.roles():
        labels = rendered.pods()[deployment]["metadata"]["labels"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert endpoint["port"] in {port["name"] for port in rendered.containers()[deployment]["ports"]}


def test_prometheus_reads_the_files_it_is_given() -> None:
    rendered = render("monitoring")
    container = rendered.containers()["prometheus"]
    (config_map,) = (item for key, item in rendered.of("ConfigMap").items() if key.startswith("prometheus"))
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
    folder, _, file = flags["config.file"].rpartition("/")
    assert folder == mounts["configuration"]
    assert file in config_map["data"]
    assert set(yaml.safe_load(config_map["data"][file])["rule_files"]) <= config_map["data"].keys()
    assert flags["storage.tsdb.path"] == mounts["data"]


def test_alerts_operands() -> None:
    assert monitoring.operands('a{b!="c"} > 1.1 * 0.25\nand sum by (d) (rate(e[5m])) < 3') == [
        'a{b!="c"}',
        "sum by (d) (rate(e[5m]))",
    ]
    assert monitoring.operands('up{container=~"a|b"} == 0') == ['up{container=~"a|b"}']


def test_what_may_be_empty_exists() -> None:
    asked = monitoring.rule_queries()
    for name, dashboard in panels.dashboards().items():
        asked += panels.queries(name, dashboard)
    assert {query.place for query in asked} == {"rules", "overview", "economics", "workers"}
    assert monitoring.MAY_BE_EMPTY.keys() <= {query.title for query in asked}
    assert not any("$" in query.expression for query in asked)
