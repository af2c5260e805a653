"""What the documents show of fleets of other makes, and of execution providers."""

from __future__ import annotations

from bench.report.findings import markdown
from bench.report.stored import Stored, ms, paragraph, percent

NAMES = {"triton": "Triton", "mlserver": "MLServer"}
FAULTS = {"none": "", "frozen": "one frozen", "killed": "one killed"}


def fleet(found: Stored) -> str:
    """Tails under faults, a row for each way of calling, and the throughput of the frontend."""
    rows = found.rows("fleet", part="tail")
    lines = [
        [
            NAMES[row["make"]],
            FAULTS[row["fault"]],
            row["way"],
            f"{row['failed']} of {row['requests']}",
            ms(row["p50_s"]),
            ms(row["p99_s"]),
            percent(row["coded_share"]),
            percent(row["accuracy"]),
        ]
        for row in rows
    ]
    headings = "servers|fault|called|failed|p50, ms|p99, ms|from a collage|right".split("|")
    fast = found.rows("fleet", part="throughput")
    rates = "; ".join(
        f"{NAMES[row['make']]} {row['frontend_per_s']:.0f}/s through the frontend and {row['direct_per_s']:.0f}/s "
        f"directly, a ratio of {row['ratio']:.2f} (median of the rounds)"
        for row in fast
    )
    note = paragraph(
        f"Throughput, with models that take as long as they need, 16 requests in flight, servers called directly and "
        f"through the frontend in turn: {rates}. All processes share two cores, so the frontend and the collages "
        "take their part from the s-cnn servers."
    )
    return f"{markdown(headings, lines)}\n\n{note}\n\n{found.origin('fleet', [*rows, *fast])}"


def providers(found: Stored) -> str:
    """Models on execution providers."""
    rows = found.rows("providers")
    lines = [
        [
            row["model"],
            row["provider"],
            f"{ms(row['latency_s'], 1)} ms",
            f"{row['ratio']:.2f}",
            f"{row['difference']:.1g}",
        ]
        for row in rows
    ]
    headings = ["model", "provider", "one image", "to CPU", "largest difference of an output"]
    package = paragraph(f"The package is {rows[0]['package']}; medians of rounds in which both take turns.")
    return f"{markdown(headings, lines)}\n\n{package}\n\n{found.origin('providers', rows)}"


PASSAGES = {"fleet": fleet, "providers": providers}
