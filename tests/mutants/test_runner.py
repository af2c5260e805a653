"""Mutants are made in forks of one run of the tests, and change functions wherever they are in use."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

from tests.mutants import ROOT
from tests.mutants.swap import functions, swap

SCRIPT = """
from tests.mutants import ROOT
from tests.mutants.mutant import Mutant
from tests.mutants.runner import Runner

FILE = "frontend/policy/elect.py"
MUTANTS = [
    Mutant("wrong", FILE, "offers[index].model == in_use", "offers[index].model != in_use"),
    Mutant("as good", FILE, "if offer.fits]", "if offer.fits is True]"),
    Mutant("impossible", FILE, "no such passage", ""),
]
before = {"wrong": "test_the_model_in_use_fits_and_no_fitting_one_has_more_workers"}
runner = Runner(ROOT, MUTANTS, before, 2, lambda mutant, test: print(mutant.what, test, sep=": ", flush=True))
runner.run()
print(*(error.partition(":")[0] for error in runner.errors))
"""
SOURCE = """
LIMIT = 3

def small(value):
    return value < LIMIT

class Pair:
    def first(self, values):
        return next(each for each in values)
"""


def test_a_wrong_version_is_caught_by_the_test_that_caught_it_before_and_a_right_one_by_none() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    told = done.stdout.splitlines()
    assert "wrong: test_the_model_in_use_fits_and_no_fitting_one_has_more_workers" in told
    assert "as good: None" in told
    assert told[-1] == "impossible"


@pytest.fixture
def module() -> ModuleType:
    made = ModuleType("made")
    exec(compile(SOURCE, "made.py", "exec"), made.__dict__)  # noqa: S102 - it is our own
    return made


def test_functions_change_wherever_they_are_in_use(module: ModuleType) -> None:
    small, pair = module.small, module.Pair()
    swap("made.py", SOURCE, SOURCE.replace("<", "<=").replace("in values", "in reversed(values)"))
    assert small(3)
    assert pair.first([1, 2]) == 2


@pytest.mark.parametrize(
    ("old", "new", "told"), [("= 3", "= 4", "in no function"), ("class Pair:", "class Pair:\n    x = 1", "in Pair")]
)
def test_other_changes_are_refused(old: str, new: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        functions("made.py", SOURCE, SOURCE.replace(old, new))


def test_a_file_that_nobody_imported_is_refused() -> None:
    with pytest.raises(ValueError, match="no function of made"):
        swap("made.py", SOURCE, SOURCE.replace("<", ">"))
