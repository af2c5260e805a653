"""``python -m bench replay``: from a file of latencies to a table and figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.__main__ import main
from bench.measured import mean_of
from bench.simulator.replay import COMPARED, REGIMES, Setup, simulate
from collage.figures import MADE
from tests.bench.columns import COLUMNS


@pytest.fixture
def latencies(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    milliseconds = np.where(rng.random(2000) < 0.02, 90.0, rng.uniform(9, 12, 2000))
    file = tmp_path / "mine.csv"
    file.write_text("latency\n" + "\n".join(f"{value:.3f}" for value in milliseconds) + "\n")
    return file


def test_a_users_latencies_become_figures(latencies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["replay", "--latencies", str(latencies), "--unit", "ms", "--groups", "200", "--seeds", "2"]
    assert main([*flags, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert all(policy in printed for policy in COMPARED)
    content = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert [list(row) for row in content["rows"]] == [[*COLUMNS, *MADE]] * 2 * len(COMPARED)
    rows = {row["policy"]: row for row in content["rows"] if row["seed"] == 1}
    assert {row["regime"] for row in rows.values()} == {"mine.csv"}
    assert rows["none"]["group_p99_s"] == pytest.approx(0.09, rel=0.05)
    assert rows["collage"]["group_p99_s"] < 0.03
    assert rows["collage"]["collage_load"] == pytest.approx(1 / 9, abs=0.01)
    assert rows["none"]["coded_share"] == 0
    assert rows["none"]["p999_s"] is None  # too few samples


def test_recorded_arrivals_are_replayed(latencies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "arrivals.csv").write_text("\n".join(str(2 * i) for i in range(900)) + "\n")
    flags = ["--latencies", str(latencies), "--unit", "ms", "--arrivals", str(tmp_path / "arrivals.csv")]
    assert main(["replay", *flags, "--policies", "none,adaptive", "--seeds", "1", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "replay.json").read_text())["rows"]
    assert [row["groups"] for row in rows] == [80, 80]
    assert rows[0]["offered"] == "open"
    assert rows[0]["load"] == pytest.approx(500 / (9 / 0.0121), rel=0.1)
    assert "of capacity" in capsys.readouterr().out


def test_failures_count_as_unanswered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("latency\n" + "12,5\n" * 95 + "timeout\n" * 5)
    flags = ["--latencies", str(file), "--unit", "ms", "--policies", "none", "--seeds", "1", "--groups", "60"]
    assert main(["replay", *flags, "--out", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert "95 latencies, half of them within 12.5 ms, 99 % within 12.5 ms; 5 failed, and count" in told.err
    assert "coded: requests that were answered from the code" in told.out
    (row,) = json.loads((tmp_path / "replay.json").read_text())["rows"]
    assert row["p50_s"] == pytest.approx(0.0125)
    assert row["p99_s"] == pytest.approx(10, abs=0.1)


def test_regimes_are_simulated_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--regime", "mixture", "--load", "0.5", "--groups", "60", "--seeds", "1", "--policies", "hedge"]
    assert main(["simulate", *flags, "--out", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "simulate.json").read_text())["rows"]
    assert (row["regime"], row["load"], row["offered"], row["groups"]) == ("mixture", 0.5, "open", 40)
    assert "hedge" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--latencies", "missing.csv"], "No such file"),
        (["--policies", "magic"], "there is no policy 'magic'"),
        (["--workers", "10", "--collage-workers", "3"], "9 + 1"),
        (["--groups", "20"], "at least 21"),
        (["--load", "0"], "above 0"),
        (["--column", "b"], "no column 'b'"),
        ([], "half of the latencies are above 10.5 s in --unit s, and a request may take 10 s: is it --unit ms or"),
        (["--unit", "us"], "half of the latencies are below 1.05e-05 s in --unit us"),
        (["--workers", "10"], "no grid has 10 cells: take 4, 9, 16"),
        (["--workers", "3", "--collage-workers", "3"], "no grid has 1 cells"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(
    latencies: Path, flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", "--latencies", str(latencies), *flags]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_the_interval_is_students() -> None:
    rows = [simulate(Setup(), "none", REGIMES["transient"], seed, 30) for seed in range(3)]
    values = [float(row["p50_s"] or 0) for row in rows]
    mean = mean_of(rows, "p50_s")
    assert mean is not None
    assert mean[0] == pytest.approx(np.mean(values))
    assert mean[1] == pytest.approx(4.303 * np.std(values, ddof=1) / 3**0.5)
    assert mean_of(rows, "p999_s") is None
