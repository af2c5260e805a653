"""What is simulated for a report, and what is written of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.offer import load_table
from bench.report.findings import read
from bench.simulator.replay import REGIMES, Setup
from bench.simulator.sweep import (
    OTHER_REGIMES,
    RECORDED,
    REGIME,
    SweptCase,
    budget_cases,
    cases,
    long_cases,
    main,
    scale,
    sweep,
)
from collage.figures import MADE
from frontend.policy.rules import Rules
from tests.bench.columns import COLUMNS


def test_every_case_of_the_sweep_can_be_simulated() -> None:
    for case in (*cases(), *budget_cases(), *long_cases()):
        assert case.regime in REGIMES
        assert case.setup.n % case.setup.redundant == 0
        if case.setting:
            limits: dict[str, float | None] = {case.setting: case.value}
            assert getattr(Rules.named(case.policy, **limits), case.setting) == case.value
    settings = {(case.policy, case.setting) for case in (*cases(), *budget_cases())}
    assert {("hedge", "quantile"), ("replicate", "deadline"), ("adaptive", "extra_load")} <= settings
    assert len(set(cases())) == len(list(cases()))
    assert {(case.setup.n, case.policy) for case in cases() if case.recorded} == {
        (n, policy) for n in (4, 9, 16, 25) for policy in RECORDED
    }
    assert {case.regime for case in cases()} == {REGIME, *OTHER_REGIMES}
    limits = [load_table().quantile(0.95) * (case.value or 0) for case in cases() if case.setting == "patience"]
    assert (min(limits), max(limits)) == (pytest.approx(0.22, abs=0.005), pytest.approx(0.5, abs=0.01))


def test_a_sweep_writes_rows_with_settings_and_group_latencies(tmp_path: Path) -> None:
    chosen = [
        SweptCase(Setup(), "adaptive", "patience", 1.3),
        SweptCase(Setup(), "hedge", load=0.5),
        SweptCase(Setup(), "collage"),
    ]
    file = sweep(tmp_path / "sim.json", chosen, 10, 1)
    rows = json.loads(file.read_text())["rows"]
    beside = sweep(tmp_path / "beside.json", chosen, 10, 1, processes=2)
    assert json.loads(beside.read_text())["rows"] == rows, "side by side nothing changes"
    assert beside.with_suffix(".jsonl").read_text() == file.with_suffix(".jsonl").read_text()
    assert [(row["policy"], row.get("setting"), row.get("value"), row["load"]) for row in rows] == [
        ("adaptive", "patience", 1.3, None),
        ("hedge", None, None, 0.5),
        ("collage", None, None, None),
    ]
    assert [row["groups"] for row in rows] == [10] * 3
    assert [list(row) for row in rows] == [[*COLUMNS, *set_here, *MADE] for set_here in (("setting", "value"), (), ())]
    lines = [json.loads(line) for line in file.with_suffix(".jsonl").read_text().splitlines()]
    assert [(line["n"], line["policy"], line["group"]) for line in lines] == [(9, "collage", i) for i in range(10)]
    assert np.quantile([line["latency_s"] for line in lines], 0.5) == pytest.approx(rows[2]["group_p50_s"])
    (run,) = read([file], [file.with_suffix(".jsonl")])[1]
    assert run.usage.groups == 10
    assert run.usage.answers == pytest.approx(90 * rows[2]["coded_share"])


def test_larger_clusters_are_simulated_at_the_same_cost(tmp_path: Path) -> None:
    rows = json.loads(scale(tmp_path / "scale.json", 900, clusters=(20, 100)).read_text())["rows"]
    assert {(row["workers"], row["redundant"], row["frontends"]) for row in rows} == {
        (workers, workers // 10, frontends) for workers in (20, 100) for frontends in (1, 4)
    }
    assert all(row["requests"] >= 3 * 0.9 * row["workers"] for row in rows)
    assert all(row["us_per_request"] == pytest.approx(1e6 * row["cpu_s"] / row["requests"]) for row in rows)
    assert max(row["collage_load"] for row in rows if row["policy"] == "none") == 0


def test_too_few_groups_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--groups", "9"])
    assert "at least 10 groups and one seed" in capsys.readouterr().err
