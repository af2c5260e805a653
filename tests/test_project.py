"""Rules that hold for the project as a whole: who imports whom, and what serving may load."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
NO_GRID = {name: value for name, value in os.environ.items() if name not in {"GRID", "S_CNN", "CODE", "K", "R"}}


def test_import_contracts_hold() -> None:
    lint = subprocess.run(
        [Path(sys.prefix, "bin/lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert lint.returncode == 0, lint.stdout + lint.stderr


@pytest.mark.parametrize("process", ["frontend", "worker"])
def test_serving_loads_neither_torch_nor_training_code(process: str) -> None:
    code = f"import sys, {process}.__main__; print(*{{name.partition('.')[0] for name in sys.modules}})"
    python = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(python.stdout.split())
    assert process in loaded
    assert not loaded & {"torch", "onnx", "models", "bench"}


@pytest.mark.parametrize("module", ["worker.model", "models.evaluate"])
def test_onnx_runtime_does_not_report_usage(module: str, tmp_path: Path) -> None:
    """Its telemetry leaves a device id in the home folder as soon as the library is imported."""
    code = f"import {module}, onnxruntime; print(onnxruntime.__name__)"
    environment = {"HOME": str(tmp_path), "PATH": ""}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    assert list(tmp_path.iterdir()) == []


def test_every_dependency_is_pinned() -> None:
    """The extras of pyproject.toml and the pins of constraints.txt speak of the same packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(pin.count("==") == 1 and "+" not in pin for pin in pins)
    pinned = {_name(pin) for pin in pins}
    assert len(pinned) == len(pins)
    assert {_name(item) for item in wanted} - pinned == {project["name"]}


def _name(requirement: str) -> str:
    """The normalised name at the start of a requirement."""
    end = next((i for i, letter in enumerate(requirement) if letter in "[<>=!~; "), len(requirement))
    return requirement[:end].lower().replace("_", "-").replace(".", "-")


def test_make_clean_keeps_results_and_trained_models(tmp_path: Path) -> None:
    for file in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    kept = [
        "out/pets/pets-s-cnn.onnx",
        "out/bench-full/runs/a.json",
        "runs/zoo/a.pt",
        "data/a.png",
        "models/zoo/a.onnx",
    ]
    removed = [".venv/ready", ".venv-dev/ready", ".venv-proto/ready", ".mypy_cache/a", "frontend/__pycache__/a.pyc"]
    for name in kept + removed:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["make", "--silent", "clean"], cwd=tmp_path, check=True)
    assert [name for name in kept if not (tmp_path / name).exists()] == []
    assert [name for name in removed if (tmp_path / name).exists()] == []


def _recipe(target: str) -> list[str]:
    """The commands of a target of the Makefile, with the development environment's folder written out."""
    (rule,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    return [line.strip().replace("$(DEV)", ".venv-dev") for line in rule.splitlines()]


def test_hooks_before_a_commit_run_what_make_lint_runs() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"].replace(" --force-exclude", "") for hook in repository["hooks"]]
    assert sorted([*(command.replace(" --check", "") for command in _recipe("lint")), "make --silent proto"]) == sorted(
        entries
    )


def test_ci_runs_all_of_make_check_but_the_audit() -> None:
    (prerequisites,) = re.findall(r"^check: (.*) ##", (ROOT / "Makefile").read_text(), re.M)
    last = (ROOT / ".ci/run").read_text().splitlines()[-1]
    assert last.split() == ["exec", "make", *prerequisites.removesuffix(" audit").split()]
    assert _recipe("test") == [".venv-dev/bin/python -m pytest -n 2 --dist loadfile"], "so its summary ends the output"
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_ci_installs_every_program_whose_absence_skips_a_test() -> None:
    skipping = {
        package
        for file in (ROOT / "tests").rglob("*.py")
        for package in re.findall(r'needs\("[a-z0-9]+", "([a-z0-9-]+)"\)', file.read_text())
    }
    assert skipping == set(re.findall(r"packages\+=\(([a-z0-9-]+)", (ROOT / ".ci/run").read_text()))


@pytest.mark.parametrize(
    ("words", "protection"),
    [
        ([], '--collage "models/zoo/fashion-mnist-collage-3x3.onnx"'),
        (["GRID=9x9"], '--collage "models/zoo/fashion-mnist-collage-9x9.onnx"'),  # which up refuses, as there is none
        (["S_CNN=absent.onnx"], "--no-collage"),
        (["S_CNN=absent.onnx", "GRID=3x3"], '--collage "absent-collage-3x3.onnx"'),
        (["CODE=addition"], '--code "addition" --k 2 --r 1'),
    ],
)
def test_make_up_leaves_out_no_grid_that_was_asked_for(words: list[str], protection: str) -> None:
    asked = ["make", "--no-print-directory", "--dry-run", "--always-make", "up", *words]
    printed = subprocess.run(asked, cwd=ROOT, env=NO_GRID, capture_output=True, text=True, check=True).stdout
    assert 'echo "installing packages into .venv, which takes minutes ..."\n' in printed, "pip says nothing by itself"
    command = printed.splitlines()[-1]
    assert command.endswith(f" {protection}")
    assert command.startswith("exec "), "a signal to make ends the cluster, as no shell is between them"
