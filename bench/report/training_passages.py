"""What the documents show of training by several processes."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from bench.report.findings import FoundRow, markdown
from bench.report.stored import Stored, ms

NAMES = {
    "gloo": "gloo's own sum",
    "none": "ring, whole",
    "fp16": "ring, fp16",
    "gradiveq": "GradiVeQ",
    "gradiveq-8": "GradiVeQ, 8 bits",
    "gradiveq-4": "GradiVeQ, 4 bits",
    "powersgd-1": "PowerSGD, rank 1",
    "powersgd-2": "PowerSGD, rank 2",
    "powersgd-4": "PowerSGD, rank 4",
    "topk": "largest 1 %",
}


def _means(rows: list[FoundRow], column: str) -> dict[str, float]:
    """A column's mean over seeds, by way of adding up, in the order of ``NAMES``."""
    values = {name: [float(row[column]) for row in rows if row["compressor"] == name] for name in NAMES}
    return {name: fmean(found) for name, found in values.items() if found}


def allreduce(found: Stored) -> str:
    """Bytes and times of every way to add gradients up, for each model and network that was measured."""
    rows = found.rows("allreduce", top1=None)
    lines = []
    for model, nodes, mbit_s in dict.fromkeys((row["model"], row["nodes"], row["mbit_s"]) for row in rows):
        case = [row for row in rows if (row["model"], row["nodes"], row["mbit_s"]) == (model, nodes, mbit_s)]
        whole = {row["bytes_plain"] for row in case}.pop()
        sums, steps, sent = (_means(case, column) for column in ("communication_s", "step_s", "bytes"))

        def times(values: dict[str, float], name: str) -> str:
            return f"{values['none'] / values[name]:.1f}" if "none" in values else ""

        for name in sums:
            less = f"{whole / sent[name]:.1f}"
            seen = [ms(sums[name]), times(sums, name), ms(steps[name]), times(steps, name)]
            lines.append([model, f"{nodes}", f"{mbit_s:g}", NAMES[name], f"{sent[name] / 1e3:,.0f}", less, *seen])
    headings = "model|processes|Mbit/s|added up by|kB sent|times less|sum, ms|times faster|step, ms|times faster"
    return f"{markdown(headings.split('|'), lines)}\n\n{found.origin('allreduce', rows)}"


PASSAGES: dict[str, Callable[[Stored], str]] = {"allreduce": allreduce}
