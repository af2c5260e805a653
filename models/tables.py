"""Tables of an evaluation, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from collage.figures import Row, interval

Column = tuple[str, str, Callable[[Any], str]]
_COUNT, _TIMES = "{:,}".format, "{:.2f}".format


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 0.1 else f"{1e3 * seconds:.0f}"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f}"


NAME: list[Column] = [("model", "model", str), ("k", "K", str), ("size", "input px", str)]
FIGURE_6: list[Column] = [
    *NAME,
    ("images", "images", _COUNT),
    ("top1", "top-1 %", _percent),
    ("top1_interval", "±", _percent),
    ("top1_spread", "spread", _percent),
    ("answered_share", "cells answered %", _percent),
    ("accept_threshold", "threshold", "{:.3f}".format),
    ("coverage", "cells accepted %", _percent),
    ("covered_top1", "top-1 of accepted %", _percent),
    ("covered_agreement", "accepted as the s-cnn %", _percent),
]
SECTION_5_3: list[Column] = [
    *NAME,
    ("storage", "weights", str),
    ("size_bytes", "MB", _megabytes),
    ("latency_s", "ms", _milliseconds),
    ("latency_ratio", "/ s-cnn", _TIMES),
    ("encode_s", "encode ms", _milliseconds),
    ("decode_s", "decode ms", _milliseconds),
]
SECTION_5_5: list[Column] = [
    *NAME,
    ("architecture", "architecture", str),
    ("storage", "weights", str),
    ("size_bytes", "MB", _megabytes),
    ("nine_s", "nine images ms", _milliseconds),
    ("nine_to_collage", "/ our collage", _TIMES),
    ("nine_to_image", "/ one s-cnn image", _TIMES),
    ("top1", "top-1 %", _percent),
]


def table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Rows for people, in Markdown: accuracies in percent, times in milliseconds, sizes in MB; unknown is empty."""
    lines = [[title for _, title, _ in columns], ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[show(row[key]) if row.get(key) is not None else "" for key, _, show in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def top1_interval(row: Row) -> float | None:
    """Half the 95 % interval of a row's top-1, over images; None if it has none."""
    share, images = row.get("top1"), row.get("images")
    return interval(share, images) if isinstance(share, float) and isinstance(images, int) else None


def report(dataset: str, rows: Sequence[Row]) -> str:
    """The three tables of one data set."""
    rows = [{**row, "top1_interval": top1_interval(row)} for row in rows]
    alone = [row for row in rows if not str(row["role"]).startswith("rival")]
    nine = sorted((row for row in rows if row.get("nine_s")), key=lambda row: -float(row["nine_s"] or 0))
    parts = [
        (f"{dataset}: accuracy against K (fig. 6)", [row for row in alone if row["kind"] != "code"], FIGURE_6),
        (f"{dataset}: stand-alone latency (section 5.3)", alone, SECTION_5_3),
        (f"{dataset}: nine images at once (section 5.5)", nine, SECTION_5_5),
    ]
    return "\n\n".join(f"## {title}\n\n{table(chosen, columns)}" for title, chosen, columns in parts)
