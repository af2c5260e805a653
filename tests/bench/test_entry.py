"""The one entry: what it lists, what it refuses, and what each environment can run."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from bench import __main__ as entry
from bench.__main__ import COMMANDS, DEVELOPMENT, SERVING, Command, main

# What .venv has not: packages of the extras train, traces and dev.
BLOCKED = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in (
            "onnx", "onnxscript", "torch", "yaml", "hypothesis", "pytest", "looptime", "opentelemetry",
        ):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from bench.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def serving(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in an environment that only serves."""
    return subprocess.run([sys.executable, "-c", BLOCKED, *arguments], capture_output=True, text=True, check=False)


def test_every_command_is_listed_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(COMMANDS)
    assert all(len(line.split()) > 3 and len(line) <= 100 for line in lines[2:])


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["dance"]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert f"python -m bench {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.environment == SERVING])
def test_what_needs_the_serving_environment_only_runs_there(name: str) -> None:
    done = serving(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.environment == DEVELOPMENT])
def test_what_needs_more_says_which_environment(name: str) -> None:
    done = serving(name, "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"python -m bench {name} needs the package ")
    assert f"`make {DEVELOPMENT}/ready`, then `{DEVELOPMENT}/bin/python -m bench {name}`" in done.stderr


def test_one_command_does_not_import_the_others() -> None:
    imported = "from bench.__main__ import main; import sys; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True, check=True)
    assert {name for name in done.stdout.split() if name.startswith("bench")} == {"bench", "bench.__main__"}


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """A command ``fail`` that raises what is put here."""
    raised: list[BaseException] = []

    def run(argv: list[str]) -> int:
        raise raised.pop()

    monkeypatch.setitem(sys.modules, "bench.failing", SimpleNamespace(main=run))  # type: ignore[arg-type]
    monkeypatch.setitem(entry.COMMANDS, "fail", Command("bench.failing", "fail"))
    return raised


def test_exceptions_with_an_exit_code_end_a_command_with_their_message(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    class Expected(Exception):
        exit_code = 3

    failing.append(Expected("there is no cluster"))
    assert main(["fail"]) == 3
    assert capsys.readouterr().err == "there is no cluster\n"
    failing.append(KeyboardInterrupt())
    assert main(["fail"]) == 130
    assert capsys.readouterr().err == "stopped\n"
    failing.append(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        main(["fail"])


def test_a_module_of_ours_that_is_missing_is_no_environments_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(entry.COMMANDS, "gone", Command("bench.gone", "be gone"))
    with pytest.raises(ModuleNotFoundError, match=r"bench\.gone"):
        main(["gone"])
