"""Runs tests against mutants: they are collected once, and every mutant has a process of its own."""

from __future__ import annotations

import functools
import os
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

from tests.mutants.mutant import Mutant
from tests.mutants.swap import swap

_OPTIONS = [
    "-q",
    "-p",
    "no:cacheprovider",
    "-s",
    "--no-header",
    "--no-summary",
    "-o",
    "timeout=60",
    "--hypothesis-seed=0",
]


class Runner:
    """A plugin of pytest that takes the place of its loop.

    ``before`` says which test caught a mutant the last time: that one comes first. ``told`` gets every mutant and the
    name of the first test that fails with it, None if all pass.
    """

    def __init__(
        self,
        root: Path,
        mutants: Sequence[Mutant],
        before: Mapping[str, str],
        jobs: int,
        told: Callable[[Mutant, str | None], None],
    ) -> None:
        self._root, self._mutants, self._before, self._jobs, self._told = root, mutants, before, jobs, told
        self.errors: list[str] = []
        """What went wrong, other than a test with a mutant."""

    def run(self) -> None:
        """Try them all; what cannot be tried is in ``errors``."""
        tests = dict.fromkeys(test for mutant in self._mutants for test in mutant.tests)
        code = pytest.main([*_OPTIONS, *(str(self._root / test) for test in tests)], plugins=[self])
        if code:
            self.errors.append(f"pytest ended with {code!r}")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try every mutant, as many at once as there are jobs, and last the tests that caught one without any."""
        if session.testsfailed:
            return True
        caught: set[str] = set()
        with tempfile.TemporaryDirectory() as folder:
            running: dict[int, tuple[Mutant, Path]] = {}
            waiting = list(enumerate(self._mutants))[::-1]
            while waiting or running:
                while waiting and len(running) < self._jobs:
                    number, mutant = waiting.pop()
                    path = Path(folder) / str(number)
                    running[_fork(functools.partial(self._attempt, session, mutant), path)] = mutant, path
                pid, status = os.wait()
                mutant, path = running.pop(pid)
                if status:
                    self.errors.append(f"{mutant.what}: {path.read_text()}")
                    continue
                test = path.read_text()
                caught.add(test)
                self._told(mutant, test or None)
            path = Path(folder) / "unchanged"
            its = [item for item in session.items if _name(item) in caught]
            _, status = os.waitpid(_fork(functools.partial(_first_failure, its), path), 0)
            if status or path.read_text():
                self.errors.append(f"fails without any mutant: {path.read_text()}")
        return True

    def _attempt(self, session: pytest.Session, mutant: Mutant) -> str:
        file = self._root / mutant.file
        source = file.read_text()
        if source.count(mutant.old) != 1:
            raise ValueError(f"its passage is {source.count(mutant.old)} times in {mutant.file}")
        swap(str(file), source, source.replace(mutant.old, mutant.new or "pass"))
        files = [self._root / test for test in mutant.tests]
        its = [item for item in session.items if item.path in files]
        before = self._before.get(mutant.what)
        return _first_failure(sorted(its, key=lambda item: (_name(item) != before, files.index(item.path))))


def _fork(work: Callable[[], str], path: Path) -> int:
    """Run work in a process of its own, which writes what comes of it to a file; returns the process's id."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        path.write_text(work())
        code = 0
    except BaseException:
        path.write_text(traceback.format_exc())
    finally:
        os._exit(code)


def _first_failure(items: Iterable[pytest.Item]) -> str:
    """The name of the first test that fails; empty if all pass."""
    items = list(items)
    for item, following in zip(items, [*items[1:], None], strict=True):
        if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
            return _name(item)
    return ""


def _name(item: pytest.Item) -> str:
    return item.originalname if isinstance(item, pytest.Function) else item.name
