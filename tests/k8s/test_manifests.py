"""The manifests are valid, and say what the code says: settings, ports, probes, images."""

import re
import tomllib
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from collage.serving import LIVENESS, ServerSettings
from collage.v1 import predict_pb2, worker_pb2
from frontend.config import FrontendSettings
from tests.k8s.conftest import ROOT, Document, Rendered
from worker.config import WorkerSettings

SETTINGS: dict[str, type[ServerSettings]] = {
    "frontend": FrontendSettings,
    "s-cnn": WorkerSettings,
    "collage-cnn": WorkerSettings,
}
SERVICES = {
    "frontend": predict_pb2.DESCRIPTOR.services_by_name["PredictService"].full_name,
    "s-cnn": worker_pb2.DESCRIPTOR.services_by_name["ClassifierService"].full_name,
    "collage-cnn": worker_pb2.DESCRIPTOR.services_by_name["CollageService"].full_name,
}
PREFIX = str(ServerSettings.model_config["env_prefix"])


class Dockerfile:
    """What a Dockerfile's stages declare."""

    def __init__(self, text: str) -> None:
        self.text = re.sub(r"\\\n", " ", text)
        self.parents = {name: parent for parent, name in re.findall(r"^FROM (\S+) AS (\S+)$", self.text, re.M)}

    def instructions(self, stage: str, keyword: str) -> list[str]:
        """Arguments of an instruction in a stage and the stages it is built from, those of the latest stage last."""
        body = re.search(rf"^FROM \S+ AS {stage}$(.*?)(?=^FROM |\Z)", self.text, re.M | re.S)
        if body is None:
            return []
        inherited = self.instructions(self.parents[stage], keyword) if self.parents[stage] in self.parents else []
        return inherited + re.findall(rf"^{keyword} (.+)$", body[1], re.M)

    def environment(self, stage: str) -> dict[str, str]:
        """Variables of an image."""
        return dict(item.split("=", 1) for line in self.instructions(stage, "ENV") for item in line.split())


DOCKERFILE = Dockerfile((ROOT / "Dockerfile").read_text())


@pytest.fixture
def settings(base: Rendered, monkeypatch: pytest.MonkeyPatch) -> dict[str, ServerSettings]:
    """Every process's settings, parsed by the code from what the image and the manifests say."""
    parsed: dict[str, ServerSettings] = {}
    for name, kind in SETTINGS.items():
        variables = {**DOCKERFILE.environment(name), **base.environment(name)}
        ours = {key: value for key, value in variables.items() if key.startswith(PREFIX)}
        known = {PREFIX + field.upper() for field in kind.model_fields}
        assert ours.keys() <= known, f"{name} has no such settings"
        with monkeypatch.context() as patch:
            for key, value in ours.items():
                patch.setenv(key, value)
            parsed[name] = kind(_cli_parse_args=base.containers()[name].get("args", []))  # type: ignore[call-arg]
    return parsed


def test_documents_fit_the_schemas_of_kubernetes(base: Rendered) -> None:
    assert len(base) > 5
    for document in base:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_deployments_are_the_three_services(base: Rendered) -> None:
    assert base.pods().keys() == SETTINGS.keys()
    for name, deployment in base.of("Deployment").items():
        assert deployment["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/name": name}
        assert deployment["spec"]["selector"]["matchLabels"].items() <= base.pods()[name]["metadata"]["labels"].items()


def test_ports(base: Rendered, settings: dict[str, ServerSettings]) -> None:
    for name, container in base.containers().items():
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports == {"grpc": settings[name].port, "metrics": settings[name].metrics_port}
        annotations = base.pods()[name]["metadata"]["annotations"]
        assert annotations["prometheus.io/scrape"] == "true"
        assert annotations["prometheus.io/port"] == str(settings[name].metrics_port)
    for service in base.of("Service").values():
        (name,) = service["spec"]["selector"].values()
        expected = {"grpc": settings[name].port, "metrics": settings[name].metrics_port}
        for port in service["spec"]["ports"]:
            assert (port["port"], port["targetPort"]) == (expected[port["name"]], port["name"])


def test_frontend_finds_every_worker_through_a_headless_service(
    base: Rendered, settings: dict[str, ServerSettings]
) -> None:
    frontend = settings["frontend"]
    assert isinstance(frontend, FrontendSettings)
    for role, target in {"s-cnn": frontend.s_cnn_workers, "collage-cnn": frontend.collage_workers}.items():
        service = base.of("Service")[role]
        assert target == f"dns:///{role}:{settings[role].port}"
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["selector"] == {"app.kubernetes.io/name": role}
    assert base.of("Service")["frontend-headless"]["spec"]["clusterIP"] == "None"
    assert "clusterIP" not in base.of("Service")["frontend"]["spec"]


def test_probes_ask_health_names_that_the_code_serves(base: Rendered, settings: dict[str, ServerSettings]) -> None:
    for name, container in base.containers().items():
        probes = {kind: container[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")}
        assert {probe["port"] for probe in probes.values()} == {settings[name].port}
        assert probes["liveness"]["service"] == LIVENESS
        assert probes["readiness"]["service"] == SERVICES[name]
        # A worker has started once it is warm. A frontend may wait for workers long, and must not be restarted then.
        assert probes["startup"]["service"] == (LIVENESS if name == "frontend" else SERVICES[name])


def test_pods_outlive_their_drain(base: Rendered, settings: dict[str, ServerSettings]) -> None:
    frontend = settings["frontend"]
    assert isinstance(frontend, FrontendSettings)
    for name, pod in base.pods().items():
        drain = settings[name].drain_delay_s + settings[name].drain_s
        assert pod["spec"]["terminationGracePeriodSeconds"] >= drain + 5
        assert settings[name].drain_s > frontend.timeout_s, "a request in flight could be cut off"
        if name != "frontend":
            assert settings[name].drain_delay_s > frontend.resolve_every_s, "the frontend would learn of it too late"


def test_cpu_limit_of_a_worker_is_its_thread_count(base: Rendered, settings: dict[str, ServerSettings]) -> None:
    for name, container in base.containers().items():
        resources, parsed = container["resources"], settings[name]
        assert resources["requests"].keys() == resources["limits"].keys() == {"cpu", "memory"}
        if isinstance(parsed, WorkerSettings):
            assert resources["limits"]["cpu"] == resources["requests"]["cpu"] == str(parsed.threads)


def test_least_privilege(base: Rendered) -> None:
    for name, pod in base.pods().items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert DOCKERFILE.instructions(name, "USER") == [
            f"{spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}"
        ]
        assert base.containers()[name]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_services_do_not_leak_into_our_settings(base: Rendered) -> None:
    """With service links, a Service named collage-x becomes variables named COLLAGE_X_..."""
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in base.pods().values())


def test_images_are_targets_of_the_dockerfile(base: Rendered) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    targets = re.search(r"^IMAGES := (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert targets is not None
    assert set(targets[1].split()) == SETTINGS.keys()
    for name, container in base.containers().items():
        assert container["image"] == f"collage/{name}:{version}"
        package = SETTINGS[name].__module__.partition(".")[0]
        assert DOCKERFILE.instructions(name, "ENTRYPOINT") == [f'["python", "-m", "{package}"]']
        assert (ROOT / package / "__main__.py").exists()


def test_images_get_what_the_build_context_has() -> None:
    ignored, *kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored == "*"
    context = {line.removeprefix("!") for line in kept if line.startswith("!")}
    copies = [line.split() for line in re.findall(r"^COPY (.+)$", DOCKERFILE.text, re.M) if "--from" not in line]
    sources = {source for copy in copies for source in copy[:-1]}
    assert sources - {"${MODEL}"} == context - {"models/zoo"}
    assert [source for source in context if not (ROOT / source).exists()] == []


def test_worker_images_hold_the_models_they_serve(base: Rendered, settings: dict[str, ServerSettings]) -> None:
    models: dict[str, Path] = {}
    for name, parsed in settings.items():
        if isinstance(parsed, WorkerSettings):
            (model,) = DOCKERFILE.instructions(name, "ARG")
            assert DOCKERFILE.instructions(name, "COPY")[-1] == f"${{MODEL}} {parsed.model}"
            models[name] = ROOT / model.removeprefix("MODEL=")
            assert models[name].is_file()
    grid = re.search(r"collage-(\d)x\1", models["collage-cnn"].name)
    assert grid is not None
    assert _replicas(base.of("Deployment")["s-cnn"]) == int(grid[1]) ** 2
    assert _replicas(base.of("Deployment")["collage-cnn"]) == 1


def _replicas(deployment: Document) -> int:
    count = deployment["spec"]["replicas"]
    assert isinstance(count, int)
    return count
