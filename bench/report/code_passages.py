"""What the documents show of codes: how right they are where answers are lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.report.findings import FoundRow, markdown
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
