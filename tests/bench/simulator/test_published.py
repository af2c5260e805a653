"""Published closed groups against those of today's code."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.report.findings import FoundRow
from bench.simulator.published import again, changes, main, published
from bench.simulator.replay import REGIMES, Setup, simulate
from collage.figures import read_figures, write_figures


def stored(folder: Path, *policies: str) -> Path:
    rows = [simulate(Setup(), policy, REGIMES["transient"], seed, 60) for policy in policies for seed in range(3)]
    return write_figures("bench-full", rows, directory=folder)


def test_a_run_that_is_made_again_by_the_same_code_is_the_same(tmp_path: Path) -> None:
    rows = published(stored(tmp_path, "collage", "none"), [9], ["collage"])
    assert [row["seed"] for row in rows] == [0, 1, 2]
    new = [again(row, typical=True) for row in rows]
    assert again(rows[0])["accuracy_available"] != new[0]["accuracy_available"], "other models"
    for before, now in zip(rows, new, strict=True):
        assert all(now[key] == before[key] for key in ("p50_s", "p99_s", "group_p99_s", "sent", "accuracy"))
    lines = changes(rows, new)
    assert [line[2] for line in lines] == ["request p50", "request p99", "group p99", "extra load"]
    assert all(line[5].startswith("1.000") and line[-1] == "" for line in lines)


def test_rows_that_stand_beside_real_ones_are_left_out(tmp_path: Path) -> None:
    file = stored(tmp_path, "collage")
    rows = [{**row, "source": source} for row in read_figures(file) for source in ("sim", "real")]
    write_figures("bench-full", rows, directory=tmp_path)
    with pytest.raises(ValueError, match="no simulated closed groups of collage"):
        published(file, [9], ["collage"])


def test_a_figure_is_worse_beyond_its_interval_and_one_percent() -> None:
    def rows(*p99: float) -> list[FoundRow]:
        about = {"source": "sim", "regime": "transient", "offered": "closed", "load": None, "n": 9, "redundant": 1}
        usual = {"groups": 10, "policy": "collage", "p50_s": 0.1, "group_p99_s": 0.3, "sent": 0.11}
        return [{**about, **usual, "seed": seed, "p99_s": value} for seed, value in enumerate(p99)]

    def worse(*p99: float) -> list[str]:
        return [line[2] for line in changes(rows(0.2, 0.2, 0.2), rows(*p99)) if line[-1] == "worse"]

    assert worse(0.21, 0.211, 0.212) == ["request p99"]
    assert worse(0.201, 0.201, 0.201) == [], "not by 1 %"
    assert worse(0.2, 0.19, 0.25) == [], "within the interval"
    assert worse(0.1, 0.1, 0.1) == []


def test_the_command_says_what_is_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = stored(tmp_path, "collage"), str(tmp_path / "new.json")
    assert main(["--file", str(file), "--out", out, "--typical-models"]) == 0
    assert "0 of 4 figures are worse" in capsys.readouterr().out
    file.write_text(file.read_text().replace('"p99_s": 0.', '"p99_s": 0.0'))
    assert main(["--file", str(file), "--out", out, "--typical-models"]) == 1
    assert "1 of 4 figures are worse" in capsys.readouterr().out
    small = tmp_path / "small.json"
    main(["--file", str(file), "--out", str(small), "--typical-models", "--extra-load", "0.02"])
    assert all(row["sent"] < 0.1 for row in read_figures(small)), "not every group is paid for"
    assert main(["--file", str(file), "--sizes", "16"]) == 2
    assert "has no simulated closed groups of collage or adaptive" in capsys.readouterr().err
    assert main(["--file", str(tmp_path / "absent.json")]) == 2
