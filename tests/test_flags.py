"""Flags, variables and files of settings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic_settings import CLI_SUPPRESS

from bench.cluster.processes import Child, ProcessError
from collage import flags
from collage.serving import Server
from frontend.__main__ import first_line
from frontend.config import FrontendSettings
from worker.config import WorkerSettings

WORKERS = ("--s-cnn-workers", "127.0.0.1:9")
Refused = pytest.CaptureFixture[str]


def refused(capsys: Refused, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        flags.parse(FrontendSettings, arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_flags_win_over_variables_and_these_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('policy = "hedge"\nextra_load = 0.1\nport = 1\ns_cnn_workers = "127.0.0.1:9"\n')
    monkeypatch.setenv("COLLAGE_EXTRA_LOAD", "0.2")
    monkeypatch.setenv("COLLAGE_PORT", "2")
    found = flags.parse(FrontendSettings, ["--config", str(file), "--port", "3"])
    assert (found.policy, found.extra_load, found.port) == ("hedge", 0.2, 3)
    assert isinstance(found, FrontendSettings)
    assert flags.parse(FrontendSettings, WORKERS).policy == "adaptive", "the file is of one start"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('polcy = "none"\n', "settings.toml: polcy: there is no such setting; did you mean policy?\n"),
        ('policy = "nine"\n', "--policy: Input should be 'none', 'ejection'"),
        ("policy = none\n", "settings.toml: Invalid value (at line 1, column 10)\n"),
        (None, "settings.toml: No such file or directory\n"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(capsys: Refused, tmp_path: Path, content: str | None, told: str) -> None:
    file = tmp_path / "settings.toml"
    if content is not None:
        file.write_text(content)
    assert told in refused(capsys, *WORKERS, "--config", str(file))


def test_a_variable_that_is_no_setting_is_refused(capsys: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLAGE_POLCY", "none")
    monkeypatch.setenv("COLLAGE_QUITE_ANOTHER_THING", "1")
    assert refused(capsys, *WORKERS) == (
        "COLLAGE_POLCY: there is no such setting; did you mean COLLAGE_POLICY?\n"
        "COLLAGE_QUITE_ANOTHER_THING: there is no such setting\n"
    )


@pytest.mark.parametrize(
    "name",
    ["COLLAGE_TOKEN", "COLLAGE_CNN_PORT", "COLLAGE_CNN_PORT_50051_TCP_ADDR", "COLLAGE_CNN_SERVICE_HOST",
     "COLLAGE_CNN_SERVICE_PORT_GRPC"],
)  # fmt: skip
def test_variables_of_callers_and_of_kubernetes_are_let_be(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "x")
    assert flags.parse(FrontendSettings, WORKERS).port == 50051


def test_an_abbreviated_flag_is_refused(capsys: Refused) -> None:
    """It would be another one when a flag is added that begins like it."""
    assert "unrecognized arguments: --polic none" in refused(capsys, *WORKERS, "--polic", "none")


@pytest.mark.parametrize(("settings", "program"), [(FrontendSettings, "frontend"), (WorkerSettings, "worker")])
def test_help_and_version(capsys: Refused, settings: type[flags.FlagSettings], program: str) -> None:
    with pytest.raises(SystemExit) as caught:
        flags.parse(settings, ["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"{program} {flags.version() or 'of unknown version'}\n")
    with pytest.raises(SystemExit):
        flags.parse(settings, ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith(f"usage: python -m {program} [--config FILE]")
    for name, field in settings.model_fields.items():
        if CLI_SUPPRESS in field.metadata:
            continue  # for experiments
        assert f"--{name.replace('_', '-')} " in shown
        assert f"[env: COLLAGE_{name.upper()}]" in shown
    for first, title in settings.sections.items():
        assert first in settings.model_fields
        assert f"{title}: --{first.replace('_', '-')} " in shown


async def test_every_process_says_which_release_it_is() -> None:
    registry = CollectorRegistry()
    Server(FrontendSettings(s_cnn_workers="127.0.0.1:9"), registry, [])
    assert registry.get_sample_value("collage_build_info", {"version": flags.version()}) == 1


def test_the_first_line_names_policy_budget_and_workers() -> None:
    line = first_line(FrontendSettings(s_cnn_workers="dns:///s-cnn:50051", extra_load=0.03))
    assert line == (
        f"frontend {flags.version()}: policy adaptive, extra load 0.03 at most, "
        "s-cnn workers dns:///s-cnn:50051, redundant workers none"
    )


async def test_a_local_cluster_gives_each_process_its_own_settings_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that no process knows goes to all, which refuse it."""
    for name in ("COLLAGE_POLICY", "COLLAGE_QUEUE_SIZE", "COLLAGE_POLCY"):
        monkeypatch.setenv(name, "3")
    child = Child("worker", "w", [sys.executable, "-m", "worker"], tmp_path / "log")
    with pytest.raises(ProcessError, match="w ended with exit code 2"):
        await child.start()
    assert (tmp_path / "log").read_text() == "COLLAGE_POLCY: there is no such setting\n"
