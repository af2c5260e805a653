"""What the documents show of bounds on the loss of accuracy."""

from __future__ import annotations

from bench.report.findings import FoundRow, grouped, markdown, mean
from bench.report.stored import Stored, paragraph

BUDGETS = "accuracy-budget"


def budgets(found: Stored) -> str:
    """Loss and p99 of every family under every budget; a loss above its budget is bold."""
    rows = found.rows(BUDGETS)
    given = sorted({row["budget"] for row in rows if row["budget"] is not None}, reverse=True)
    lines = [
        [model, family, *(_cell(runs[budget,], budget) for budget in (None, *given))]
        for (model, family), here in grouped(rows, ("model", "family")).items()
        for runs in [grouped(here, ("budget",))]
    ]
    headings = ["model", "family", "no budget", *(f"{100 * budget:g}" for budget in given)]
    note = paragraph(
        "Loss of accuracy in points / request p99 in ms, under budgets of so many points; a loss above its budget is "
        f"bold. {rows[0]['workers']} + {rows[0]['redundant']} workers, half load, `adaptive`, simulated; runs of "
        f"{rows[0]['requests']:,} requests, {len({row['seed'] for row in rows})} for each cell."
    )
    return f"{markdown(headings, lines)}\n\n{note}\n\n{found.origin(BUDGETS, rows)}"


def _cell(rows: list[FoundRow], budget: float | None) -> str:
    loss, p99 = mean(rows, "loss"), mean(rows, "p99_s")
    told = f"{100 * loss:.3f}"
    return f"{told if budget is None or loss <= budget else f'**{told}**'} / {1000 * p99:.0f}"


PASSAGES = {"accuracy-budget": budgets}
