"""Mutants are tried in copies of a project: of whatever is in a file, and with an end to those that hang."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.mutants import ROOT

HOUSE = """
import asyncio, subprocess, sys

LIMIT = 3

def small(value: int, limit: int = 5) -> bool:
    return value < LIMIT and value < limit

class Door:
    width = 2

async def opened() -> int:
    for turn in range(3):
        await asyncio.sleep(0)
    return turn

def asked() -> str:
    command = [sys.executable, "-c", "import house; print(house.LIMIT)"]
    return subprocess.run(command, capture_output=True).stdout.decode()
"""
TESTS = """
import asyncio, house

def test_numbers():
    assert house.small(2) and not house.small(3)

def test_default():
    assert house.small.__defaults__ == (5,)

def test_class():
    assert house.Door().width == 2

def test_loop():
    while True:
        try:
            assert asyncio.run(house.opened()) >= 0
            break
        except BaseException:
            pass

def test_another_process():
    assert house.asked() == "3\\n"
"""
SCRIPT = """
from pathlib import Path
import sys
from tests.mutants import mutant
from tests.mutants.mutant import Mutant
from tests.mutants.runner import Runner

mutant.TESTS["house.py"] = ["test_house.py"]
MUTANTS = [
    Mutant("function", "house.py", "value < LIMIT", "value <= LIMIT"),
    Mutant("constant", "house.py", "LIMIT = 3", "LIMIT = 2"),
    Mutant("in another process", "house.py", "LIMIT = 3", "LIMIT = 4"),
    Mutant("default", "house.py", "limit: int = 5", "limit: int = 4"),
    Mutant("attribute", "house.py", "width = 2", "width = 3"),
    Mutant("hangs", "house.py", "await asyncio.sleep(0)", "await asyncio.sleep(3600)"),
    Mutant("as good", "house.py", "range(3)", "range(4)"),
    Mutant("impossible", "house.py", "no such passage", ""),
    Mutant("nonsense", "house.py", "LIMIT = 3", "LIMIT = THREE"),
]
before = {"in another process": "test_another_process", "hangs": "test_loop (time limit)", "attribute": "test_class"}
told = lambda mutant, test: print(mutant.what, test, sep=": ", flush=True)
runner = Runner(Path(sys.argv[1]), MUTANTS, before, 2, told, patience_s=6)
runner.run()
for error in runner.errors:
    print("error", error)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    house = tmp_path_factory.mktemp("house")
    (house / "house.py").write_text(HOUSE)
    (house / "test_house.py").write_text(TESTS)
    (house / "pyproject.toml").touch()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(house)], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (house / "house.py").read_text() == HOUSE
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("mutant", "test"),
    [
        ("function", "test_numbers"),
        ("constant", "test_numbers"),
        ("in another process", "test_another_process"),
        ("default", "test_default"),
        ("attribute", "test_class"),
    ],
)
def test_a_wrong_version_of_anything_is_caught(told: list[str], mutant: str, test: str) -> None:
    assert f"{mutant}: {test}" in told


def test_a_right_version_is_caught_by_none(told: list[str]) -> None:
    assert "as good: None" in told


def test_a_test_that_hangs_is_ended_and_its_mutant_caught(told: list[str]) -> None:
    assert "hangs: test_loop (time limit)" in told


def test_mutants_that_are_none_are_errors(told: list[str]) -> None:
    errors = [line.partition(":")[0] for line in told if line.startswith("error ")]
    assert sorted(errors) == ["error impossible", "error nonsense"]
