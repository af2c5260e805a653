"""The figures that are kept in docs/results, and how the documents show them."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.report.findings import FoundRow, read
from collage.figures import read_figures

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
ZOO = ROOT / "models" / "zoo"


class Stored:
    """The files of figures in a folder; ``at`` is the way to it from the page that shows them."""

    def __init__(self, folder: Path = RESULTS, at: str = "") -> None:
        self.folder, self.at = folder, at

    def rows(self, name: str, **wanted: object) -> list[FoundRow]:
        """The rows of a file with these values, at least one; ValueError if there is none."""
        rows = [row for row in _rows(self.folder / f"{name}.json") if all(row.get(k) == v for k, v in wanted.items())]
        if not rows:
            raise ValueError(f"{self.folder / name}.json has no row of {wanted}")
        return rows

    def runs(self, **wanted: object) -> list[FoundRow]:
        """The rows of ``bench-full.json`` with these values, at least one, in a report's form."""
        rows = [row for row in _runs(self.folder) if all(row.get(key) == value for key, value in wanted.items())]
        if not rows:
            raise ValueError(f"{self.folder}/bench-full.json has no row of {wanted}")
        return rows

    def origin(self, name: str, rows: Iterable[FoundRow]) -> str:
        """Where figures are from, in a line: file, commits and machines."""
        rows = list(rows)
        commits = list(dict.fromkeys(commit[:7] for row in rows for commit in str(row["commit"]).split(", ")))
        machines = dict.fromkeys(machine(row) for row in rows)
        word = "commit" if len(commits) == 1 else "commits"
        return paragraph(
            f"*[{name}.json]({self.at}{name}.json), {word} {', '.join(commits)}; {' and '.join(machines)}.*"
        )


@functools.cache
def _rows(file: Path) -> list[FoundRow]:
    return read_figures(file)


@functools.cache
def _runs(folder: Path) -> list[FoundRow]:
    return read([folder / "bench-full.json"], [])[0]


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
