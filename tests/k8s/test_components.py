"""What components and overlays add, and that it fits the code."""

import json
import shlex
from pathlib import PurePosixPath

import pytest
from grpc_health.v1 import health_pb2

from collage.v1 import predict_pb2
from frontend.config import FrontendSettings
from inference import open_inference_pb2
from tests.k8s.conftest import DOCKERFILE, ROOT, Document, Rendered, render, settings_of
from worker.config import WorkerSettings
from worker.slowdown import Slowdown


def test_slow_workers_differ_from_the_others_in_nothing_but_slowness() -> None:
    rendered = render("stragglers")
    ordinary, slow = (rendered.of("Deployment")[name]["spec"] for name in ("s-cnn", "s-cnn-slow"))
    (argument,) = rendered.containers()["s-cnn-slow"]["args"]
    own = {"app.kubernetes.io/name": "s-cnn-slow"}
    assert slow["template"]["metadata"]["labels"] == ordinary["template"]["metadata"]["labels"] | own
    (container,) = ordinary["template"]["spec"]["containers"]
    assert slow["template"]["spec"] == ordinary["template"]["spec"] | {"containers": [container | {"args": [argument]}]}
    specification = argument.removeprefix("--slowdown=")
    slowness = Slowdown(specification, seed=0)
    late = sum(slowness.draw(f"r{i}", 0, 0.0) > 0.25 for i in range(2000))
    assert 0.15 < late / 2000 < 0.25


@pytest.mark.parametrize("redundant", ["collage-cnn", "parity-0"])
def test_models_of_ones_own_are_copied_to_where_the_workers_look(redundant: str) -> None:
    rendered = render("parity" if redundant == "parity-0" else "own-models")
    for name in ("s-cnn", redundant):
        pod = rendered.pods()[name]["spec"]
        (copying,), (container,) = pod["initContainers"], pod["containers"]
        assert copying["image"] == "collage/models"
        assert copying["command"] == ["cp", "-r", "/models/.", f"{copying['volumeMounts'][0]['mountPath']}/"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        model = PurePosixPath(rendered.environment(name)["COLLAGE_MODEL"])
        assert mounts[str(model.parent)] == copying["volumeMounts"][0]["name"] == "models"
        assert model.name == f"{name}.onnx"
        assert mounts["/tls"] == "tls", "what other components mount stays"
        assert {volume["name"] for volume in pod["volumes"]} == {"models", "tls"}
    assert "initContainers" not in rendered.pods()["frontend"]["spec"]


def test_workers_are_guaranteed_what_they_may_use() -> None:
    for name in ("base", "own-models"):
        for deployment in ("s-cnn", "collage-cnn"):
            pod = render(name).pods()[deployment]["spec"]
            for container in [*pod["containers"], *pod.get("initContainers", [])]:
                assert container["resources"]["requests"] == container["resources"]["limits"]


def test_tls_files_are_mounted_where_the_settings_look() -> None:
    for name in ("tls", "production", "parity"):
        rendered = render(name)
        for deployment, settings in settings_of(name).items():
            mounts = rendered.containers()[deployment]["volumeMounts"]
            (mount,) = (mount for mount in mounts if mount["name"] == "tls")
            (volume,) = (volume for volume in rendered.pods()[deployment]["spec"]["volumes"] if volume["name"] == "tls")
            files = [settings.tls_cert, settings.tls_key]
            if isinstance(settings, FrontendSettings):
                assert settings.tls_client_ca is None, "clients need no certificate unless an overlay says so"
                files += [settings.worker_ca, settings.worker_cert, settings.worker_key]
            else:
                files.append(settings.tls_client_ca)
            for file in files:
                assert file is not None
                assert PurePosixPath(file).parent == PurePosixPath(mount["mountPath"])
                assert file.name in {"tls.crt", "tls.key", "ca.crt"}, "what cert-manager writes"
            secret = "frontend-tls" if isinstance(settings, FrontendSettings) else "worker-tls"
            assert volume["secret"]["secretName"] == secret


def test_certificates_hold_the_names_that_are_called() -> None:
    rendered, settings = render("production"), settings_of("production")
    certificates = {item["spec"]["secretName"]: item["spec"] for item in rendered.of("Certificate").values()}
    called = set[str]()
    for frontend in (settings["frontend"], settings_of("parity")["frontend"]):
        assert isinstance(frontend, FrontendSettings)
        targets = (frontend.s_cnn_workers, frontend.coded_workers)
        called |= {each.removeprefix("dns:///").split(":")[0] for each in targets}
    assert called == set(certificates["worker-tls"]["dnsNames"])
    assert {"server auth"} < set(certificates["worker-tls"]["usages"]) - {"client auth"}
    namespace = rendered.of("Service")["frontend"]["metadata"]["namespace"]
    for service in ("frontend", "frontend-headless"):
        names = {service, f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local"}
        assert names <= set(certificates["frontend-tls"]["dnsNames"])
    assert {"server auth", "client auth"} <= set(certificates["frontend-tls"]["usages"])


def test_production_admits_what_it_deploys_and_spreads_a_group() -> None:
    rendered = render("production")
    (namespace,) = rendered.of("Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert all(
        item["metadata"].get("namespace") == namespace["metadata"]["name"]
        for item in rendered
        if item["kind"] not in {"Namespace"}
    )
    spread, _ = rendered.pods()["s-cnn"]["spec"]["topologySpreadConstraints"]
    assert (spread["maxSkew"], spread["whenUnsatisfiable"]) == (1, "DoNotSchedule")
    assert spread["nodeTaintsPolicy"] == "Honor", "a node that takes no pods would count as empty"
    assert _selects(spread["labelSelector"], rendered, "s-cnn")
    assert all(not settings.reflection for settings in settings_of("production").values())


def test_pods_of_a_role_are_spread_over_nodes_and_zones(rendered: Rendered) -> None:
    for name in rendered.roles():
        nodes, zones = rendered.pods()[name]["spec"]["topologySpreadConstraints"]
        assert nodes["topologyKey"] == "kubernetes.io/hostname"
        assert zones["topologyKey"] == "topology.kubernetes.io/zone"
        assert zones["whenUnsatisfiable"] == "ScheduleAnyway", "most clusters have one zone"
        assert _selects(nodes["labelSelector"], rendered, name)
        assert _selects(zones["labelSelector"], rendered, name)


def test_the_route_leads_callers_to_services_of_the_frontend() -> None:
    rendered = render("gateway")
    (rule,) = rendered.of("GRPCRoute")["frontend"]["spec"]["rules"]
    (backend,) = rule["backendRefs"]
    ports = {port["name"]: port["port"] for port in rendered.of("Service")[backend["name"]]["spec"]["ports"]}
    assert backend["port"] == ports["grpc"]
    assert [match["method"]["service"] for match in rule["matches"]] == [
        predict_pb2.DESCRIPTOR.services_by_name["PredictService"].full_name,
        open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name,
        health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
    ]


def test_parity_workers_take_the_place_of_the_collage_cnn() -> None:
    rendered, settings = render("parity"), settings_of("parity")
    assert [item for item in rendered if item["metadata"]["name"] == "collage-cnn"] == []
    frontend, worker = settings["frontend"], settings["parity-0"]
    assert isinstance(frontend, FrontendSettings)
    assert isinstance(worker, WorkerSettings)
    assert frontend.coded_workers == "dns:///parity-0:50051"
    assert str(worker.model) == "/models/parity-0.onnx"


def _selects(selector: Document, rendered: Rendered, deployment: str) -> bool:
    return bool(selector["matchLabels"].items() <= rendered.pods()[deployment]["metadata"]["labels"].items())


def test_autoscaling_asks_the_prometheus_that_is_there() -> None:
    rendered = render("autoscaling")
    service = rendered.of("Service")["prometheus"]
    address = (
        f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc:{service['spec']['ports'][0]['port']}"
    )
    for name, scaled in rendered.of("ScaledObject").items():
        (trigger,) = scaled["spec"]["triggers"]
        assert trigger["metadata"]["serverAddress"] == f"http://{address}"
        assert f'container="{name}"' in trigger["metadata"]["query"]
        assert f'namespace="{service["metadata"]["namespace"]}"' in trigger["metadata"]["query"]
        assert isinstance(settings_of("autoscaling")[name], WorkerSettings)
        # Every trigger value of KEDA is a string.
        assert all(isinstance(value, str) for value in trigger["metadata"].values())


def test_load_calls_the_frontend() -> None:
    rendered = render("load")
    host, port = rendered.environment("load")["FRONTEND"].split(":")
    assert int(port) == rendered.of("Service")[host]["spec"]["ports"][0]["port"]
    assert "args" not in rendered.containers()["load"]
    (argument,) = render("everything").containers()["load"]["args"]
    option, _, file = argument.partition("=")
    assert option == "--ca"
    assert file == str(settings_of("tls")["s-cnn"].tls_client_ca)
    (entry,) = DOCKERFILE.instructions("load", "ENTRYPOINT")
    shell, flag, script, name = json.loads(entry)
    assert (shell, flag, name) == ("sh", "-c", "load")
    words = shlex.split(script)
    command = words[words.index("collage") : words.index(">/dev/null")]
    assert command == ["collage", "predict", "--json", "--address", "$FRONTEND", "$@", "/samples/*/*/*.png"]
    assert list(ROOT.glob("samples/*/*/*.png"))
