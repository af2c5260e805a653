"""compose.yaml fits the schema of Compose files, the images, the code, and the rules and dashboards that it shows."""

import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from collage.serving import ServerSettings
from frontend.config import FrontendSettings
from models.description import of_file
from tests.k8s.conftest import DOCKERFILE, ROOT, SETTINGS, default_model, render, settings_from, tag, target
from tests.k8s.test_monitoring import check_configuration, relabelled
from tests.needed import needs, needs_package

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ROLES = [name for name in SERVICES if name in SETTINGS]


def _inline(name: str) -> Any:
    return yaml.safe_load(COMPOSE["configs"][name]["content"])


def _settings(name: str) -> ServerSettings:
    lines = (ROOT / SERVICES[name]["env_file"]).read_text().splitlines()
    file = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    variables = {**DOCKERFILE.environment(name), **file, **SERVICES[name]["environment"]}
    return settings_from(name, variables, [])


@needs_package("check_jsonschema", "check-jsonschema")
def test_it_fits_the_schema_of_compose_files() -> None:
    schemas = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((schemas / "compose-spec.json").read_text())
    jsonschema.validate(COMPOSE, schema)
    wrong = {**COMPOSE, "services": {"s-cnn": {**SERVICES["s-cnn"], "replicas": 9}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_images_are_those_that_make_images_makes_and_no_registry_has() -> None:
    ours = {name: service for name, service in SERVICES.items() if service["image"].startswith("collage/")}
    assert ours.keys() == {*ROLES, "load"}
    for name, service in ours.items():
        image = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["image"])
        assert target(image) == name
        assert image.rpartition(":")[2] == tag(name)
        assert service["pull_policy"] == "never"
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    prometheus = render("monitoring").containers()["prometheus"]["image"]
    assert SERVICES["prometheus"]["image"] == prometheus, "one version everywhere"


def test_the_frontend_finds_the_workers_of_a_group() -> None:
    frontend = _settings("frontend")
    assert isinstance(frontend, FrontendSettings)
    assert frontend.s_cnn_workers == f"dns:///s-cnn:{_settings('s-cnn').port}"
    assert frontend.coded_workers == f"dns:///collage-cnn:{_settings('collage-cnn').port}"
    code = of_file(default_model("collage-cnn")).code
    assert code is not None
    assert SERVICES["s-cnn"]["deploy"]["replicas"] == code.members
    assert {mapping.rpartition(":")[2] for mapping in SERVICES["frontend"]["ports"]} == {
        str(frontend.port),
        str(frontend.http_port),
    }
    published = [mapping for service in SERVICES.values() for mapping in service.get("ports", [])]
    assert all(mapping.startswith("127.0.0.1:") for mapping in published), "nobody else is let in without TLS"


def test_prometheus_gives_series_the_labels_that_the_rules_need() -> None:
    (job,) = _inline("prometheus")["scrape_configs"]
    (lookup,) = job["dns_sd_configs"]
    assert lookup["names"] == ROLES
    assert {lookup["port"]} == {_settings(name).metrics_port for name in ROLES}
    found = {"__meta_dns_name": "s-cnn", "__address__": "172.18.0.5:9090"}
    labels = {"namespace": "compose", "container": "s-cnn", "pod": "172.18.0.5:9090"}
    assert relabelled(found, job["relabel_configs"]) == labels
    assert job["job_name"] == "collage"


@needs("promtool", "prometheus")
def test_promtool_checks_the_configuration(tmp_path: Path) -> None:
    mounts = {config["source"]: Path(config["target"]) for config in SERVICES["prometheus"]["configs"]}
    (tmp_path / mounts["prometheus"].name).write_text(COMPOSE["configs"]["prometheus"]["content"])
    (tmp_path / mounts["rules"].name).write_text((ROOT / COMPOSE["configs"]["rules"]["file"]).read_text())
    assert _inline("prometheus")["rule_files"] == [mounts["rules"].name]
    check_configuration(tmp_path / mounts["prometheus"].name)


def test_grafana_gets_the_dashboards_and_their_source() -> None:
    (source,) = _inline("datasource")["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    assert source["url"] == "http://prometheus:9090"
    (provider,) = _inline("dashboards")["providers"]
    host, inside, access = SERVICES["grafana"]["volumes"][0].split(":")
    assert (provider["options"]["path"], access) == (inside, "ro")
    assert (ROOT / host) == ROOT / "k8s/dashboards"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / host / Path(home).relative_to(inside)).is_file()
    targets = {config["source"]: config["target"] for config in SERVICES["grafana"]["configs"]}
    assert {name: str(Path(path).parent) for name, path in targets.items()} == {
        "datasource": "/etc/grafana/provisioning/datasources",
        "dashboards": "/etc/grafana/provisioning/dashboards",
    }
