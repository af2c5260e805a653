"""The manifests are valid, and say what the code says: settings, ports, probes, images."""

import math
import re
import subprocess
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import yaml

from collage.health import LIVENESS
from collage.serving import ServerSettings
from collage.v1 import model_pb2, predict_pb2
from frontend.config import FrontendSettings
from models.description import of_file
from tests.k8s.conftest import (
    DOCKERFILE,
    RENDERINGS,
    ROOT,
    SETTINGS,
    VERSION,
    Document,
    Rendered,
    default_model,
    roles_of,
    settings_of,
    tag,
    target,
)
from worker.config import WorkerSettings

SERVICES = {
    "frontend": predict_pb2.DESCRIPTOR.services_by_name["PredictService"].full_name,
    "s-cnn": model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    "collage-cnn": model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    "parity-0": model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
}
CUSTOM = {
    ("monitoring.coreos.com/v1", "PodMonitor"): {"selector", "podMetricsEndpoints"},
    ("monitoring.coreos.com/v1", "PrometheusRule"): {"groups"},
    ("cert-manager.io/v1", "Issuer"): set[str](),
    ("cert-manager.io/v1", "Certificate"): {"secretName", "issuerRef", "privateKey"},
    ("keda.sh/v1alpha1", "ScaledObject"): {"scaleTargetRef", "triggers"},
    ("gateway.networking.k8s.io/v1", "GRPCRoute"): {"parentRefs", "rules"},
}
"""Custom resources, whose schemas the operators bring: fields that must be there."""
DNS_TTL_S = 30
"""How long a cluster's DNS may give an old answer (CoreDNS' cache, as kubeadm sets it up)."""
BYTES_PER_PIXEL = 17
"""The most that decoding took in a measurement: a WebP. The other formats take up to 11."""
MIB = 1024 * 1024


def test_every_component_and_overlay_is_rendered() -> None:
    folders = {
        str(file.parent.relative_to(ROOT / "k8s"))
        for room in ("components", "overlays")
        for file in ROOT.glob(f"k8s/{room}/*/kustomization.yaml")
    }
    assert folders <= {path for paths in RENDERINGS.values() for path in paths}


def test_every_kind_of_worker_is_made_from_the_template(base: Rendered) -> None:
    roles = roles_of("base") - {"frontend"}
    folder = ROOT / "k8s/base"
    made = [
        file.parent.name
        for file in folder.glob("*/kustomization.yaml")
        if "- ../worker" in file.read_text() or "[../worker]" in file.read_text()
    ]
    assert sorted(made) == sorted(roles)
    template = [item["kind"] for item in yaml.safe_load_all((folder / "worker/worker.yaml").read_text())]
    for role in roles:
        assert [kind for kind in template if role not in base.of(kind)] == []
    assert "worker" not in {item["metadata"]["name"] for item in base}
    assert "worker" not in {label for item in base for label in item["metadata"]["labels"].values()}


def test_documents_fit_the_schemas_of_kubernetes(rendered: Rendered) -> None:
    assert len(rendered) > 5
    for document in rendered:
        if needed := CUSTOM.get((document["apiVersion"], document["kind"])):
            assert needed <= document["spec"].keys()
        elif (document["apiVersion"], document["kind"]) not in CUSTOM:
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_deployments_do_not_select_each_others_pods(rendered: Rendered) -> None:
    selectors = {name: item["spec"]["selector"]["matchLabels"] for name, item in rendered.of("Deployment").items()}
    for name, selector in selectors.items():
        matching = [
            pod for pod, item in rendered.pods().items() if selector.items() <= item["metadata"]["labels"].items()
        ]
        assert matching == [name]


def test_every_role_runs(name: str, rendered: Rendered) -> None:
    assert set(rendered.roles().values()) == roles_of(name)
    for name, role in rendered.roles().items():
        assert rendered.containers()[name]["name"] == role, "metrics tell roles apart by the container's name"
        assert rendered.pods()[name]["metadata"]["labels"]["app.kubernetes.io/part-of"] == "collage"


def test_ports(rendered: Rendered, settings: dict[str, ServerSettings]) -> None:
    for name in settings:
        ports = {port["name"]: port["containerPort"] for port in rendered.containers()[name]["ports"]}
        assert ports == _ports(settings[name])
    for service in rendered.of("Service").values():
        ((label, value),) = service["spec"]["selector"].items()
        if label == "app.kubernetes.io/component":
            for port in service["spec"]["ports"]:
                assert (port["port"], port["targetPort"]) == (_ports(settings[value])[port["name"]], port["name"])


def _ports(settings: ServerSettings) -> dict[str, int]:
    """Ports of a process by their names."""
    ports = {"grpc": settings.port, "metrics": settings.metrics_port}
    http_port = getattr(settings, "http_port", None)
    return ports if http_port is None else {**ports, "http": http_port}


def test_frontend_finds_every_worker_through_a_headless_service(
    name: str, rendered: Rendered, settings: dict[str, ServerSettings]
) -> None:
    frontend, services = settings["frontend"], rendered.of("Service")
    assert isinstance(frontend, FrontendSettings)
    (redundant,) = roles_of(name) - {"frontend", "s-cnn"}
    for role, address in {"s-cnn": frontend.s_cnn_workers, redundant: frontend.coded_workers}.items():
        assert address == f"dns:///{role}:{settings[role].port}"
        assert services[role]["spec"]["clusterIP"] == "None"
        assert services[role]["spec"]["selector"] == {"app.kubernetes.io/component": role}
    assert services["frontend-headless"]["spec"]["clusterIP"] == "None"
    assert "clusterIP" not in services["frontend"]["spec"]


def test_probes_ask_health_names_that_the_code_serves(rendered: Rendered, settings: dict[str, ServerSettings]) -> None:
    for name, role in rendered.roles().items():
        container = rendered.containers()[name]
        probes = {kind: container[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")}
        plain = settings[name].port if settings[name].tls_cert is None else settings[name].health_port
        assert {probe["port"] for probe in probes.values()} == {plain}, "the kubelet knows no TLS"
        assert probes["liveness"]["service"] == LIVENESS
        assert probes["readiness"]["service"] == SERVICES[role]
        # A worker has started once it is warm. A frontend may wait for workers long, and must not be restarted then.
        assert probes["startup"]["service"] == (LIVENESS if role == "frontend" else SERVICES[role])


def test_pods_outlive_their_drain(rendered: Rendered, settings: dict[str, ServerSettings]) -> None:
    frontend = settings["frontend"]
    assert isinstance(frontend, FrontendSettings)
    for name, role in rendered.roles().items():
        sleep = rendered.containers()[name]["lifecycle"]["preStop"]["sleep"]["seconds"]
        until_refusing = sleep + settings[name].drain_delay_s
        grace = rendered.pods()[name]["spec"]["terminationGracePeriodSeconds"]
        assert grace >= until_refusing + settings[name].drain_s + 5
        assert settings[name].drain_s > frontend.timeout_s, "a request in flight could be cut off"
        if role != "frontend":
            assert until_refusing > frontend.resolve_every_s, "the frontend would learn of it too late"


def test_threads_of_a_worker_are_its_cpu_limit(rendered: Rendered, settings: dict[str, ServerSettings]) -> None:
    for name, parsed in settings.items():
        resources = rendered.containers()[name]["resources"]
        assert resources["requests"].keys() == resources["limits"].keys() == {"cpu", "memory"}
        if isinstance(parsed, WorkerSettings):
            assert str(parsed.threads) == resources["limits"]["cpu"]
            variable = next(each for each in rendered.containers()[name]["env"] if each["name"] == "COLLAGE_THREADS")
            assert variable["valueFrom"]["resourceFieldRef"]["resource"] == "limits.cpu"


def test_frontend_has_memory_for_the_largest_images(rendered: Rendered, settings: dict[str, ServerSettings]) -> None:
    frontend = settings["frontend"]
    assert isinstance(frontend, FrontendSettings)
    decoding = BYTES_PER_PIXEL * frontend.max_pixels * frontend.image_threads
    limit = _mebibytes(rendered.containers()["frontend"]["resources"]["limits"]["memory"]) * MIB
    assert limit >= decoding + frontend.max_bytes_in_flight + 128 * MIB, "one caller's images could kill the process"


def test_rollouts_wait_for_frontends_to_find_the_new_pods(
    name: str, rendered: Rendered, settings: dict[str, ServerSettings]
) -> None:
    frontend = settings["frontend"]
    assert isinstance(frontend, FrontendSettings)
    specs = {role: rendered.of("Deployment")[role]["spec"] for role in roles_of(name)}
    for role in roles_of(name) - {"frontend"}:
        assert specs[role]["minReadySeconds"] >= DNS_TTL_S + frontend.resolve_every_s
    # A model serves when most workers have it: replaced piece by piece, half of the s-cnn would serve alone.
    for role, spec in specs.items():
        assert spec["strategy"] == {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "100%" if role == "s-cnn" else 1},
        }


def test_autoscalers_hold_the_numbers_that_deployments_leave_out(rendered: Rendered) -> None:
    cpu = {
        item["spec"]["scaleTargetRef"]["name"]: item["spec"] for item in rendered.of("HorizontalPodAutoscaler").values()
    }
    slots = {item["spec"]["scaleTargetRef"]["name"]: item["spec"] for item in rendered.of("ScaledObject").values()}
    assert not cpu.keys() & slots.keys(), "two autoscalers would fight"
    least = {name: spec["minReplicas"] for name, spec in cpu.items()}
    least |= {name: spec["minReplicaCount"] for name, spec in slots.items()}
    for name, count in least.items():
        assert "replicas" not in rendered.of("Deployment")[name]["spec"]
        assert count >= 1


def test_disruption_budgets_never_block_a_drain(name: str, rendered: Rendered) -> None:
    budgets = {
        tuple(item["spec"]["selector"]["matchLabels"].values()): item["spec"]
        for item in rendered.of("PodDisruptionBudget").values()
    }
    assert budgets.keys() == {(role,) for role in roles_of(name)}
    for (role,), spec in budgets.items():
        assert "minAvailable" not in spec
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert _may_be_missing(spec, 1) == 1
        # A pod that is broken or not scheduled is one of them, so one would keep all others from being evicted.
        assert _may_be_missing(spec, 9) == (3 if role == "s-cnn" else 1)


def test_least_privilege(rendered: Rendered) -> None:
    for name, pod in rendered.pods().items():
        spec, container = pod["spec"], rendered.containers()[name]
        assert spec["serviceAccountName"] in rendered.of("ServiceAccount")
        assert spec["automountServiceAccountToken"] is (name == "prometheus"), "only Prometheus asks Kubernetes"
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        if container["image"].rpartition("/")[0].endswith("collage"):
            user = f"{spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}"
            assert DOCKERFILE.instructions(target(container["image"]), "USER") == [user]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        # With service links, a Service named collage-x becomes variables named COLLAGE_X_..., like our settings.
        assert spec["enableServiceLinks"] is False
    assert all(item["automountServiceAccountToken"] is False for item in rendered.of("ServiceAccount").values())


def test_role_bindings_name_the_namespace_of_their_account(rendered: Rendered) -> None:
    for binding in rendered.of("RoleBinding").values():
        (subject,) = binding["subjects"]
        assert subject["name"] in rendered.of("ServiceAccount")
        assert subject["namespace"] == binding["metadata"]["namespace"]


def test_images_are_targets_of_the_dockerfile(rendered: Rendered) -> None:
    targets = re.search(r"^IMAGES := (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert targets is not None
    for name, container in rendered.containers().items():
        if name == "prometheus":
            assert re.fullmatch(r"prom/prometheus:v\d+\.\d+\.\d+", container["image"])
        else:
            stage = target(container["image"])
            assert container["image"].rpartition(":")[2] == tag(stage)
            assert stage == ("worker" if name.startswith("parity") else container["name"])
            assert stage in targets[1].split()
            if role := rendered.roles().get(name):
                package = SETTINGS[role].__module__.partition(".")[0]
                assert DOCKERFILE.instructions(stage, "ENTRYPOINT") == [f'["python", "-m", "{package}"]']
                assert (ROOT / package / "__main__.py").exists()


def test_images_get_what_the_build_context_has() -> None:
    ignored, *kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored == "*"
    context = {line.removeprefix("!") for line in kept if line.startswith("!")}
    copies = [line.split() for line in re.findall(r"^COPY (.+)$", DOCKERFILE.text, re.M) if "--from" not in line]
    sources = {source for copy in copies for source in copy[:-1]}
    assert sources - {"${FOLDER}/${MODEL}*"} == context - {"models/zoo", "out/image"}
    assert [source for source in context - {"out/image"} if not (ROOT / source).exists()] == []


def test_worker_images_hold_the_models_they_serve() -> None:
    for name, parsed in settings_of("base").items():
        if isinstance(parsed, WorkerSettings):
            assert str(parsed.model) == "/models/${MODEL}"  # which a build fills in
            assert DOCKERFILE.instructions(name, "COPY")[-1] == "${FOLDER}/${MODEL}* /models/"
            assert default_model(name).is_file()


def test_worker_images_hold_what_is_beside_the_model(tmp_path: Path) -> None:
    (pattern,) = {DOCKERFILE.instructions(name, "COPY")[-1].split()[0] for name in ("s-cnn", "collage-cnn")}
    names = ["m.onnx", "m.onnx.data", "m.onnx.json", "other.onnx"]
    for name in names:
        (tmp_path / name).touch()
    found = tmp_path.glob(pattern.replace("${FOLDER}/${MODEL}", "m.onnx"))
    assert sorted(path.name for path in found) == names[:3]


def test_images_of_ones_own_models_say_so_in_their_tags(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_text('#!/bin/sh\necho "$@"\n')
    engine.chmod(0o755)
    for name in ("pets.onnx", "pets.onnx.json", "pets-collage-2x2.onnx", "pets-collage-3x3.onnx"):
        (tmp_path / name).touch()
    command = ["make", "-s", "images", f"ENGINE={engine}", f"S_CNN={tmp_path}/pets.onnx", "GRID=2x2"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(built) == 5
    for stage, model in {"s-cnn": "pets", "collage-cnn": "pets-collage-2x2"}.items():
        (line,) = (line for line in built if f"--target {stage} " in line)
        assert f"--tag collage/{stage}:{VERSION}-{model} " in line
        folder = ROOT / re.findall(r"FOLDER=(\S+)", line)[0]
        assert f"MODEL={model}.onnx" in line
        assert {file.name for file in folder.iterdir()} == {path.name for path in tmp_path.glob(f"{model}.onnx*")}
        assert folder.relative_to(ROOT).parts[:2] == ("out", "image"), "what .dockerignore lets in"


def test_there_are_as_many_s_cnn_workers_as_the_code_has_members(rendered: Rendered) -> None:
    shipped = of_file(default_model("collage-cnn")).code
    assert shipped is not None
    members, scaled = shipped.members, [*rendered.of("HorizontalPodAutoscaler").values()]
    least = {item["metadata"]["name"]: item["spec"]["minReplicas"] for item in scaled}
    least |= {name: item["spec"]["minReplicaCount"] for name, item in rendered.of("ScaledObject").items()}
    fixed = {
        name: item["spec"]["replicas"]
        for name, item in rendered.of("Deployment").items()
        if "replicas" in item["spec"] and rendered.roles().get(name) == "s-cnn"
    }
    assert least.get("s-cnn", sum(fixed.values())) == members
    (spread, _) = rendered.pods()["s-cnn"]["spec"]["topologySpreadConstraints"]
    assert spread.get("minDomains", members) == members, "no two of the members' workers on one node"


def _mebibytes(quantity: str) -> int:
    return int(quantity[:-2]) * {"Mi": 1, "Gi": 1024}[quantity[-2:]]


def _may_be_missing(budget: Document, pods: int) -> int:
    """As Kubernetes reckons: a percentage is rounded up."""
    most = budget["maxUnavailable"]
    return most if isinstance(most, int) else math.ceil(int(most.removesuffix("%")) * pods / 100)
