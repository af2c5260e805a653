"""Latencies and arrivals that were measured elsewhere, as CSV files hold them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.offer.workload import Seconds

FAILED = frozenset({"timeout", "timed out", "error", "failed", "failure"})
"""Words in a line that say that its request was not answered, in capital or small letters."""


class Latencies(NamedTuple):
    """Seconds that answered requests took, float64 ``[n]``, and how many others failed."""

    answered: Seconds
    failures: int


def read_latencies(file: Path, column: str | None = None, unit_s: float = 1.0) -> Latencies:
    """One column of a CSV file: the one headed ``column``, or the last.

    Columns are separated by semicolons, tabs or commas, and decimals by points or commas. A header is needed to choose
    a column only. A line with one of the words ``FAILED`` is a failure. ``unit_s`` is the file's unit, 0.001 for
    milliseconds. Raises OSError, or ValueError with a message of one line.
    """
    rows = _rows(file)
    place = -1
    if column is not None:
        names = [name.strip() for name in rows[0]]
        if column not in names:
            raise ValueError(f"{file} has no column {column!r}: its first line is {', '.join(names)}")
        place = names.index(column)
    elif _number(rows[0][place]) is not None or (len(rows[0]) == 1 and _failed(rows[0])):
        rows.insert(0, [])
    numbers, failures = list[float](), 0
    for line, row in enumerate(rows[1:], 1):
        if _failed(row):
            failures += 1
            continue
        number = _number(row[place]) if place < len(row) else None
        if number is None or not 0 <= number < np.inf:
            raise ValueError(f"{file}: value {line} is no latency: {','.join(row)!r}")
        numbers.append(number * unit_s)
    if not numbers:
        raise ValueError(f"{file} has a header and no values" if not failures else f"{file} has failures only")
    return Latencies(np.array(numbers), failures)


def read_arrivals(file: Path, unit_s: float = 1.0) -> Seconds:
    """Times of arrivals from the last column of a CSV file, in seconds since the first, float64 ``[n]``.

    Raises as ``read_latencies``, and ValueError if they do not rise.
    """
    times, failures = read_latencies(file, None, unit_s)
    if failures or (np.diff(times) < 0).any() or times[0] == times[-1]:
        raise ValueError(f"{file}: the times do not rise")
    since_first: Seconds = times - times[0]
    return since_first


def _rows(file: Path) -> list[list[str]]:
    """The lines that are not empty, as fields."""
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    delimiter = next((mark for mark in ";\t" if any(mark in line for line in lines)), ",")
    rows = [row for row in csv.reader(lines, delimiter=delimiter) if any(field.strip() for field in row)]
    if not rows:
        raise ValueError(f"{file} is empty")
    if delimiter == "," and len(rows[0]) == 1 and all(len(row) <= 2 for row in rows):  # a header, and decimal commas
        return [rows[0], *([",".join(row)] for row in rows[1:])]
    return rows


def _failed(row: Sequence[str]) -> bool:
    return any(field.strip().lower() in FAILED for field in row)


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ".") if text.count(",") == 1 else text)
    except ValueError:
        return None
