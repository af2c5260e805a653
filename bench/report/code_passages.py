"""What the documents show of codes: how right they are where answers are lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.report.findings import FoundRow, markdown
from bench.report.pictures import Panel, curves
from bench.report.stored import Stored, percent, within
from collage.figures import interval

CODES = "codes"
UNAVAILABLE = (0.01, 0.05, 0.1)
"""Shares of answers that are lost, f in the paper."""


def lost(found: Stored) -> str:
    """Accuracy of a lost answer against the number of members, a table for each base model."""
    tables, used = [], []
    for base, rows in _by_base(found):
        single = [row for row in rows if row["lost"] == 1 and row["r"] == 1]
        members = sorted({int(row["k"]) for row in single})
        lines = []
        for code in sorted({str(row["code"]) for row in single}):
            cells = [[row for row in single if (row["code"], row["k"]) == (code, k)] for k in members]
            lines.append([code, *(percent(_mean(its, "a_degraded")) if its else "" for its in cells)])
        available = _mean([row for row in rows if row["code"] != "ApproxIFER"] or rows, "a_available")
        headings = [f"`{base}`, A_a {percent(available)}; N", *map(str, members)]
        tables.append(markdown(headings, lines))
        used += single
    return "\n\n".join([*tables, found.origin(CODES, used)])


def draw(found: Stored) -> Path:
    """Draw accuracy of a lost answer against the number of members, a panel for each base model; returns the file."""
    panels = []
    for base, rows in _by_base(found):
        single = [row for row in rows if row["lost"] == 1 and row["r"] == 1]
        lines = {}
        for code in dict.fromkeys(["collage", *sorted({str(row["code"]) for row in single})]):
            own = [row for row in single if row["code"] == code]
            points = []
            for k in sorted({row["k"] for row in own}):
                its = [row for row in own if row["k"] == k]
                right = _mean(its, "a_degraded")
                points.append([k, 100 * right, 100 * interval(right, its[0]["images"])])
            if points:
                lines[code] = np.array(points, np.float64)
        members = np.unique([row["k"] for row in single])
        available = 100 * _mean([row for row in single if row["code"] != "ApproxIFER"] or single, "a_available")
        lines["not lost"] = np.stack([members, np.full(len(members), available), np.zeros(len(members))], 1)
        panels.append(Panel(base, "N, members of a group", "top-1 of a lost answer, %", lines))
    path = found.folder / f"{CODES}.png"
    curves(path, panels)
    return path


def overall(found: Stored) -> str:
    """A_a, A_d and A_o of every code, for some shares of lost answers."""
    lines, used = [], []
    for base, rows in _by_base(found):
        for code, k, r, gone in sorted({(str(row["code"]), row["k"], row["r"], row["lost"]) for row in rows}):
            its = [row for row in rows if (row["code"], row["k"], row["r"], row["lost"]) == (code, k, r, gone)]
            a_available, a_degraded = _mean(its, "a_available"), _mean(its, "a_degraded")
            lines.append(
                [
                    f"`{base}`",
                    code,
                    f"{k}, {r}",
                    str(gone),
                    percent(a_available, 2),
                    within(a_degraded, interval(a_degraded, its[0]["images"])),
                    *(percent((1 - f) * a_available + f * a_degraded, 2) for f in UNAVAILABLE),
                    f"{its[0]['cost_ratio']:.2f}",
                ]
            )
            used += its
    headings = ["base model", "code", "N, r", "lost", "A_a", "A_d", *(f"A_o, f = {f:.0%}" for f in UNAVAILABLE), "cost"]
    return f"{markdown(headings, lines)}\n\n{found.origin(CODES, used)}"


def _by_base(found: Stored) -> Sequence[tuple[str, list[FoundRow]]]:
    rows = [row for row in found.rows(CODES) if row["metric"] == "top1"]
    names = sorted({str(row["base"]) for row in rows})
    return [(name, [row for row in rows if row["base"] == name]) for name in names]


def _mean(rows: Sequence[FoundRow], column: str) -> float:
    return float(np.mean([row[column] for row in rows]))


PASSAGES = {"codes-lost": lost, "codes-overall": overall}
