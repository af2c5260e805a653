"""Files of latencies and arrivals, as people have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.offer.recordings import read_arrivals, read_latencies
from bench.offer.workload import load_of


def test_latencies_are_read_from_a_column(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("time,latency ms,worker\n0,100,a\n1,250,b\n\n")
    assert read_latencies(file, "latency ms", 0.001).answered.tolist() == [0.1, 0.25]
    file.write_text("0.5\n1.5\n")
    assert read_latencies(file).answered.tolist() == [0.5, 1.5]
    file.write_text("name,seconds\na,0.5\n")
    assert read_latencies(file).answered.tolist() == [0.5]


def test_arrivals_count_from_the_first_and_must_rise(tmp_path: Path) -> None:
    file = tmp_path / "arrivals.csv"
    file.write_text("at\n5000\n5250\n6000\n")
    arrivals = read_arrivals(file, 0.001)
    assert arrivals.tolist() == [0.0, 0.25, 1.0]
    assert load_of(arrivals, 6.0) == 0.5
    for text in ("1\n3\n2\n", "1\n1\n"):
        file.write_text(text)
        with pytest.raises(ValueError, match="do not rise"):
            read_arrivals(file)


@pytest.mark.parametrize(
    ("text", "column", "told"),
    [
        ("", None, "is empty"),
        ("latency\n", None, "no values"),
        ("a,b\n1,2\n", "c", "no column 'c': its first line is a, b"),
        ("a\n1\nx\n", None, "value 2 is no latency"),
        ("1\n-1\n", None, "value 2 is no latency"),
        ("1\nnan\n", None, "value 2 is no latency"),
        ("a,b\n1,2\n3\n", "b", "value 2 is no latency"),
    ],
)
def test_an_unusable_file_is_refused_in_one_line(tmp_path: Path, text: str, column: str | None, told: str) -> None:
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(ValueError, match=told) as caught:
        read_latencies(tmp_path / "mine.csv", column)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "column", "seconds"),
    [
        ("zeit;latenz\n0;12,5\n1;13\n", None, [12.5, 13.0]),
        ("latenz;zeit\n12,5;0\n1.5;1\n", "latenz", [12.5, 1.5]),
        ("12,5;7,25\n13;8\n", None, [7.25, 8.0]),
        ("latency\n12,5\n13\n", None, [12.5, 13.0]),
        ("at\tlatency\n0\t0,5\n", None, [0.5]),
        ('at,latency\n0,"0,5"\n', None, [0.5]),
        ("\ufefflatency\n0.5\n", "latency", [0.5]),
        ("1,2\n3,4\n", None, [2.0, 4.0]),
    ],
)
def test_semicolons_tabs_and_decimal_commas(
    tmp_path: Path, text: str, column: str | None, seconds: list[float]
) -> None:
    (tmp_path / "mine.csv").write_text(text)
    assert read_latencies(tmp_path / "mine.csv", column).answered.tolist() == seconds


@pytest.mark.parametrize(
    ("text", "answered", "failures"),
    [
        ("latency\n1\ntimeout\n2\nError\n", [1.0, 2.0], 2),
        ("timeout\n1\n", [1.0], 1),
        ("code,latency\nok,1\nTIMEOUT,\nerror,0.5\n", [1.0], 2),
        ("latency,error\n1,0\n2,3\n", [0.0, 3.0], 0),
    ],
)
def test_lines_of_timeouts_and_errors_are_failures(
    tmp_path: Path, text: str, answered: list[float], failures: int
) -> None:
    (tmp_path / "mine.csv").write_text(text)
    found = read_latencies(tmp_path / "mine.csv")
    assert (found.answered.tolist(), found.failures) == (answered, failures)


def test_failures_alone_are_told(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("timeout\nerror\n")
    with pytest.raises(ValueError, match="has failures only"):
        read_latencies(tmp_path / "mine.csv")
