"""The figures that are kept in docs/results, and how the documents show them."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.report.findings import FoundRow, read
from collage.figures import MADE, read_figures

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
ZOO = ROOT / "models" / "zoo"


class Stored:
    """The files of figures in a folder; ``at`` is the way to it from the page that shows them."""

    def __init__(self, folder: Path = RESULTS, at: str = "") -> None:
        self.folder, self.at = folder, at

    def rows(self, name: str, **wanted: object) -> list[FoundRow]:
        """The rows of a file with these values, at least one; ValueError if there is none."""
        return _found(_rows(self.folder / f"{name}.json"), f"{self.folder / name}.json", wanted)

    def runs(self, **wanted: object) -> list[FoundRow]:
        """The rows of ``bench-full.json`` with these values, at least one, in a report's form."""
        return _found(_runs(self.folder), f"{self.folder}/bench-full.json", wanted)

    def origin(self, name: str, rows: Iterable[FoundRow], *, latencies: bool = False) -> str:
        """Where figures are from, in a line: file, commits, machines, and those of ``latencies`` if they are others."""
        rows = list(rows)
        timed = [{key: row[f"latency_{key}"] for key in MADE} for row in rows if "latency_commit" in row]
        others = f"; latencies of {_made(timed)}" if latencies and timed else ""
        return paragraph(f"*[{name}.json]({self.at}{name}.json), {_made(rows)}{others}.*")


def _found(rows: Sequence[FoundRow], file: str, wanted: Mapping[str, object]) -> list[FoundRow]:
    found = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
    if not found:
        raise ValueError(f"{file} has no row of {wanted}")
    return found


@functools.cache
def _rows(file: Path) -> list[FoundRow]:
    return read_figures(file)


@functools.cache
def _runs(folder: Path) -> list[FoundRow]:
    return read([folder / "bench-full.json"], [])[0]


def _made(rows: Sequence[FoundRow]) -> str:
    commits = list(dict.fromkeys(commit[:7] for row in rows for commit in str(row["commit"]).split(", ")))
    machines = dict.fromkeys(machine(row) for row in rows)
    return f"{'commit' if len(commits) == 1 else 'commits'} {', '.join(commits)}, {' and '.join(machines)}"


def machine(row: FoundRow) -> str:
    """The processor of a row and the cores that it had, short."""
    cpu, cores, *_ = str(row["machine"]).split(", ")
    return f"{cores} of {cpu}"


def paragraph(text: str) -> str:
    """Text in lines of at most 120 characters."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def one(rows: Sequence[FoundRow]) -> FoundRow:
    """The only row; ValueError if there are several."""
    (row,) = rows
    return row


def ms(seconds: float | None, digits: int = 0) -> str:
    """Milliseconds without a unit; empty if unknown."""
    return "" if seconds is None else f"{1000 * seconds:.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent; empty if unknown."""
    return "" if share is None else f"{100 * share:.{digits}f} %"


def within(share: float, half: float, digits: int = 2) -> str:
    """A share in percent with half its interval."""
    return f"{100 * share:.{digits}f} ± {100 * half:.{digits}f} %"
