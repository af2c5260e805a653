"""The overload measurement: its arithmetic, and a short run on real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.runs.overload import End, main, row


def test_goodput_counts_what_is_in_time() -> None:
    ends = [End("OK", 0.1), End("OK", 0.6), End("DEADLINE_EXCEEDED", 0.5), End("RESOURCE_EXHAUSTED", 0.002)]
    line = row(2.0, 10.0, 2.0, 0.5, ends)
    assert (line["goodput_per_s"], line["offered_per_s"]) == (0.5, 2.0)
    assert (line["admitted"], line["refused"], line["failed"]) == (3, 1, 0)
    assert line["admitted_in_time"] == pytest.approx(1 / 3)
    assert line["refused_p99_s"] == pytest.approx(0.002)


def test_more_than_can_be_served_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--workers", "2", "--service-s", "0.1", "--seconds", "2", "--loads", "4", "--out", str(tmp_path)]
    assert main(flags) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:2] == ["offered", "goodput"]
    assert printed[1].startswith("4x")
    assert int(printed[1].split()[-5]) > 0  # refused
