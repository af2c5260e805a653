"""Callers install collage-client, in an environment that may hold anything; servers are no package at all."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.bench.fakes import FakePredictService, serving

ROOT = Path(__file__).parents[1]
PROBE = Path(__file__).with_name("client_probe.py")
NEIGHBOURS = ("tritonclient[grpc]", "kserve")


def pip(*arguments: str | Path, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run pip of an environment."""
    command = [python, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)


@pytest.fixture(scope="module")
def online() -> None:
    """Skips tests that install packages, where there is nowhere to get them from."""
    if pip("index", "versions", "hatchling").returncode:
        pytest.skip("the package index cannot be reached, and these tests install packages")


@pytest.fixture(scope="module")
def wheel(online: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of collage-client, as users would build it."""
    folder = tmp_path_factory.mktemp("wheel")
    built = pip("wheel", "--no-deps", "--wheel-dir", folder, "./proto")
    assert built.returncode == 0, built.stderr
    (file,) = folder.glob("*.whl")
    return file


@pytest.mark.timeout(300)
def test_the_client_holds_what_callers_need_and_no_more(wheel: Path) -> None:
    assert wheel.name.startswith("collage_client-")
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name for name in names if ".dist-info/" not in name}
    assert all(name.startswith("collage/") for name in inside)
    assert {"collage/client.py", "collage/cli.py", "collage/sync.py", "collage/py.typed"} <= inside
    assert {"collage/v1/predict_pb2.py", "collage/v1/predict_pb2.pyi"} <= inside
    servers = "serving", "flags", "health", "logs", "metrics_port", "startup", "figures", "model_files", "traces"
    serving_only = {f"collage/{name}.py" for name in servers}
    assert all((ROOT / "proto" / name).exists() for name in serving_only)
    assert not inside & serving_only
    assert any(name.endswith("licenses/LICENSE") for name in names)


def environment(folder: Path, *packages: str | Path) -> Path:
    """The Python of a fresh virtual environment with these packages, which fit each other."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    installed = pip("install", *packages, python=python)
    assert installed.returncode == 0, installed.stderr
    checked = pip("check", python=python)
    assert checked.returncode == 0, checked.stdout
    return python


async def probe(python: Path, *neighbour: str) -> dict[str, Any]:
    """What client_probe.py finds in an environment, with a server of this process."""
    async with serving(FakePredictService()) as server:
        address = f"127.0.0.1:{server.port}"
        process = await asyncio.create_subprocess_exec(
            *(python, "-I", PROBE, address, *neighbour), stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(printed)
    assert (found["labels"], found["health"]) == (["Bag", "Bag"], "SERVING")
    assert "collage.sync" in found["modules"]
    assert "collage.serving" not in found["modules"]
    assert found["file"].startswith(str(python.parent.parent))
    print(found["versions"])
    return found


@pytest.mark.timeout(600)
async def test_the_client_installs_beside_other_clients_and_works(wheel: Path, tmp_path: Path) -> None:
    python = await asyncio.to_thread(environment, tmp_path / "venv", wheel, *NEIGHBOURS)
    for neighbour in ("tritonclient", "kserve"):
        assert neighbour in (await probe(python, neighbour))["versions"]
    command = await asyncio.create_subprocess_exec(python.with_name("collage"), "health", "127.0.0.1:1")
    assert await asyncio.wait_for(command.wait(), 60) == 1


@pytest.mark.timeout(300)
async def test_the_client_works_with_the_oldest_versions_that_it_asks_for(wheel: Path, tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "proto/pyproject.toml").read_text())["project"]
    oldest = [item.partition(",")[0].replace(">=", "==") for item in project["dependencies"] if "numpy" not in item]
    python = await asyncio.to_thread(environment, tmp_path / "venv", wheel, *oldest)
    versions = (await probe(python))["versions"]
    assert {f"grpcio=={versions['grpcio']}", f"protobuf=={versions['protobuf'].removesuffix('.0')}"} == set(oldest)


@pytest.mark.timeout(300)
def test_servers_are_not_built_as_a_wheel(online: None, tmp_path: Path) -> None:
    built = pip("wheel", "--no-deps", "--wheel-dir", tmp_path, ".")
    assert built.returncode != 0
    assert "The servers come as container images" in built.stdout + built.stderr
    assert list(tmp_path.iterdir()) == []


def test_both_projects_have_one_version_and_one_license() -> None:
    cluster, client = (
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"] for folder in ("", "proto")
    )
    assert client["version"] == cluster["version"]
    assert client["requires-python"] == cluster["requires-python"]
    assert (ROOT / "proto/LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_client_asks_for_what_its_stubs_were_generated_with() -> None:
    wanted = tomllib.loads((ROOT / "proto/pyproject.toml").read_text())["project"]["dependencies"]
    stub = (ROOT / "proto/collage/v1/predict_pb2.py").read_text()
    (protobuf,) = (line.split()[-1] for line in stub.splitlines() if "Protobuf Python Version" in line)
    assert f"protobuf>={protobuf.removesuffix('.0')},<8" in wanted
    toolchain = (ROOT / "proto/toolchain.txt").read_text()
    grpcio = next(item for item in wanted if item.startswith("grpcio>=")).removeprefix("grpcio>=").partition(",")[0]
    assert f"grpcio-tools=={grpcio}\n" in toolchain
    assert f"GRPC_GENERATED_VERSION = '{grpcio}'" in (ROOT / "proto/collage/v1/predict_pb2_grpc.py").read_text()
