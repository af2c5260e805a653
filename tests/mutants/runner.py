"""Runs tests against mutants: each in a copy of the project and a process of its own, with a limit on its time."""

from __future__ import annotations

import compileall
import contextlib
import os
import py_compile
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mutants.mutant import Mutant

LIMIT = " (time limit)"
"""Follows the name of a test that did not end in time."""
_SLOW_TO_IMPORT = ("numpy", "grpc.aio", "onnx", "onnxruntime", "torch", "hypothesis", "PIL.Image", "prometheus_client")
_NOT_COPIED = {"out", "runs", "data"}
"""Folders of the project that hold what was made, not what makes it."""
_OPTIONS = ["-q", "-p", "no:cacheprovider", "-s", "--no-header", "--no-summary", "--hypothesis-seed=0"]
_TEST_S = 120
"""pytest's own limit of each test; it cannot end a test that catches every exception."""


class Attempt(NamedTuple):
    """A run of tests that is under way."""

    mutant: Mutant | None
    copy: Path
    pid: int
    progress: Path
    """What the process tells, a line each: a test that starts, one that failed, an error."""
    source: str
    """The mutant's file as it was."""


class Runner:
    """Tries mutants, as many at once as there are jobs.

    ``before`` says which test caught a mutant the last time: that one comes first. ``told`` gets every mutant and the
    name of the first test that fails with it, None if all pass. A run in which no test starts or ends for
    ``patience_s`` is ended, with every process that it started. Its mutant counts as caught if that test passes
    without the mutant.
    """

    def __init__(
        self,
        root: Path,
        mutants: Sequence[Mutant],
        before: Mapping[str, str],
        jobs: int,
        told: Callable[[Mutant, str | None], None],
        patience_s: float = 150.0,
    ) -> None:
        self._root, self._mutants, self._before, self._jobs, self._told = root, mutants, before, jobs, told
        self._patience_s = patience_s
        self.errors: list[str] = []
        """What went wrong, other than a test with a mutant."""

    def run(self) -> None:
        """Try them all, and last, without any mutant, the tests that caught one; ``errors`` has what went wrong."""
        for module in _SLOW_TO_IMPORT:  # once, before the processes part
            import_module(module)
        caught: dict[str, list[str]] = {}
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            self._folder = Path(folder)
            copies = [self._copy(f"copy-{job}") for job in range(self._jobs)]
            running: list[Attempt] = []
            try:
                self._try(copies, running, caught)
                self._check(caught, copies[0], running)
            finally:
                for attempt in running:
                    _end(attempt.pid)

    def _try(self, copies: list[Path], running: list[Attempt], caught: dict[str, list[str]]) -> None:
        waiting = list(self._mutants)[::-1]
        while waiting or running:
            while waiting and copies:
                self._start(waiting.pop(), copies, running)
            ended = [attempt for attempt in running if self._over(attempt)]
            for attempt in ended:
                running.remove(attempt)
                self._verdict(attempt, caught)
                if attempt.mutant:
                    (attempt.copy / attempt.mutant.file).write_text(attempt.source)
                copies.append(attempt.copy)
            if not ended:
                time.sleep(0.02)

    def _copy(self, name: str) -> Path:
        """A copy of the project, in which a file may change; models are links."""

        def copy(source: str, target: str) -> None:
            Path(target).symlink_to(source) if source.endswith(".onnx") else shutil.copyfile(source, target)

        def left_out(folder: str, names: list[str]) -> set[str]:
            made = _NOT_COPIED if Path(folder) == self._root else set()
            return {name for name in names if name.startswith(".") or name == "__pycache__" or name in made}

        path = shutil.copytree(self._root, self._folder / name, ignore=left_out, copy_function=copy)
        # By its hash: a file that changes may be as long as before, and within the same second.
        compileall.compile_dir(path, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
        return path

    def _start(self, mutant: Mutant, copies: list[Path], running: list[Attempt]) -> None:
        source = (copies[-1] / mutant.file).read_text()
        if source.count(mutant.old) != 1:
            self.errors.append(f"{mutant.what}: its passage is {source.count(mutant.old)} times in {mutant.file}")
            return
        copy = copies.pop()
        (copy / mutant.file).write_text(source.replace(mutant.old, mutant.new or "pass"))
        before = self._before.get(mutant.what, "").removesuffix(LIMIT)
        running.append(self._fork(mutant, copy, mutant.tests, _Watch(self._root, mutant.tests, before), source))

    def _fork(
        self, mutant: Mutant | None, copy: Path, tests: Sequence[str], watch: _Watch, source: str = ""
    ) -> Attempt:
        handle, name = tempfile.mkstemp(dir=self._folder)
        os.close(handle)
        if not (pid := os.fork()):
            _become(self._root, copy, tests, watch, Path(name))
        return Attempt(mutant, copy, pid, Path(name), source)

    def _over(self, attempt: Attempt) -> bool:
        """True if the process has ended, its verdict is known, or it has hung: then it has been ended."""
        if os.waitpid(attempt.pid, os.WNOHANG)[0]:
            with contextlib.suppress(ProcessLookupError):  # what it started is in its process group
                os.killpg(attempt.pid, signal.SIGKILL)
            return True
        quiet_s = time.time() - attempt.progress.stat().st_mtime
        if (attempt.mutant and _first(attempt, "failed")) or quiet_s > self._patience_s:
            _end(attempt.pid)
            return True
        return False

    def _verdict(self, attempt: Attempt, caught: dict[str, list[str]]) -> None:
        mutant = attempt.mutant
        assert mutant
        if error := _first(attempt, "error"):
            self.errors.append(f"{mutant.what}: {error}")
        elif _last(attempt) == "passed":
            self._told(mutant, None)
        elif test := _first(attempt, "failed"):
            caught.setdefault(test, []).extend(mutant.tests)
            self._told(mutant, test)
        else:
            test = _last(attempt).removeprefix("start ")
            caught.setdefault(test, []).extend(mutant.tests)
            self._told(mutant, test + LIMIT)

    def _check(self, caught: Mapping[str, Sequence[str]], copy: Path, running: list[Attempt]) -> None:
        """Every test that caught a mutant must pass without one, in its time."""
        if not caught:
            return
        tests = list(dict.fromkeys(test for tests in caught.values() for test in tests))
        attempt = self._fork(None, copy, tests, _Watch(self._root, tests, only=set(caught)))
        running.append(attempt)
        while not self._over(attempt):
            time.sleep(0.02)
        running.remove(attempt)
        if _last(attempt) != "passed":
            wrong = [line for line in _lines(attempt) if not line.startswith("start ")]
            told = dict.fromkeys([*wrong, _last(attempt)])
            self.errors.extend(f"without any mutant: {line}" for line in told)


def _end(pid: int) -> None:
    """End a process that has not been waited for, and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)  # in case that it has no group of its own yet
    os.waitpid(pid, 0)


def _lines(attempt: Attempt) -> list[str]:
    return attempt.progress.read_text().splitlines()


def _first(attempt: Attempt, kind: str) -> str:
    """The first line of a kind, without it; empty if there is none."""
    return next((line.removeprefix(f"{kind} ") for line in _lines(attempt) if line.startswith(f"{kind} ")), "")


def _last(attempt: Attempt) -> str:
    return next(iter(_lines(attempt)[::-1]), "no test")


class _Watch:
    """A plugin of pytest: chooses and orders tests, and tells what they do."""

    def __init__(self, root: Path, tests: Sequence[str], first: str = "", only: set[str] | None = None) -> None:
        self._root, self._tests, self._first, self._only = root, tests, first, only
        self.progress = Path(os.devnull)
        self._failed = False

    def tell(self, line: str) -> None:
        with self.progress.open("a") as file:
            file.write(line + "\n")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        files = [str(test) for test in self._tests]
        items[:] = [item for item in items if self._only is None or _name(item) in self._only]
        items.sort(key=lambda item: (_name(item) != self._first, files.index(item.nodeid.partition("::")[0])))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._failed = True
            self.tell(f"error {report.nodeid} cannot be imported: {report.longreprtext.splitlines()[-1:]}")

    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        self.tell(f"start {_name(item)}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed = True
            self.tell(f"failed {report.location[2].partition('[')[0].rpartition('.')[2]}")

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK:
            self.tell("passed")
        elif not self._failed:
            self.tell(f"error pytest ended with {exitstatus!r}")


def _become(root: Path, copy: Path, tests: Sequence[str], watch: _Watch, progress: Path) -> None:
    """Run tests of a copy in this process, which ends with them; its group has the processes that they start."""
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        watch.progress = progress
        _move(root, copy)
        stop = [] if watch._only else ["-x"]
        options = [*_OPTIONS, *stop, "-o", f"timeout={_TEST_S}", f"--basetemp={progress}.d"]
        pytest.main([*options, *tests], plugins=[watch])
    except BaseException as error:
        watch.tell(f"error {error!r}")
    finally:
        os._exit(0)


def _move(root: Path, copy: Path) -> None:
    """From now on modules of the project are those of the copy, here and in processes that this one starts."""
    os.chdir(copy)
    places = [str(copy), str(copy / "proto")]
    sys.path[:] = [*places, *(place for place in sys.path if place not in ("", str(root), str(root / "proto")))]
    os.environ["PYTHONPATH"] = os.pathsep.join(places)
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        if name != "__main__" and file.is_relative_to(root) and not file.is_relative_to(sys.prefix):
            del sys.modules[name]


def _name(item: pytest.Item) -> str:
    return item.originalname if isinstance(item, pytest.Function) else item.name
