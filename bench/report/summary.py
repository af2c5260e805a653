"""From records to figures: summaries and a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from bench.offer.load import Record

CODED = ("COLLAGE", "PARITY")

Row = dict[str, Any]
"""One line of figures: seconds in ``*_s``, shares, loads and accuracies from 0 to 1, None where undefined."""


def summarise(policy: str, records: Sequence[Record], collages: float, replicas: float) -> Row:
    """The figures of one run; ``collages`` and ``replicas`` are the numbers sent, reported per request.

    A group's latency is that of its slowest member. A request without an answer counts with the time it took to fail,
    and as a wrong answer.
    """
    latencies = np.array([record.latency_s for record in records])
    members: dict[int, list[float]] = defaultdict(list)
    for record in records:
        members[record.group].append(record.latency_s)
    groups = np.array([max(times) for times in members.values()])
    coded = [record for record in records if record.source in CODED]

    def share(source: str) -> float:
        return sum(record.source == source for record in records) / len(records)

    return {
        "policy": policy,
        "requests": len(records),
        "failed": sum(record.error is not None for record in records),
        "p50_s": float(np.percentile(latencies, 50)),
        "p95_s": float(np.percentile(latencies, 95)),
        "p99_s": float(np.percentile(latencies, 99)),
        "mean_s": float(latencies.mean()),
        "std_s": float(latencies.std()),
        "groups": len(groups),
        "group_p50_s": float(np.percentile(groups, 50)),
        "group_p95_s": float(np.percentile(groups, 95)),
        "s_cnn_share": share("S_CNN"),
        "replica_share": share("REPLICA"),
        "coded_share": len(coded) / len(records),
        "accuracy": sum(record.right for record in records) / len(records),
        "coded_accuracy": sum(record.right for record in coded) / len(coded) if coded else None,
        "collage_load": collages / len(records),
        "replica_load": replicas / len(records),
    }


def table(title: str, rows: Sequence[Row]) -> Table:
    """Rows of ``summarise`` for a terminal of 80 columns: one policy per column."""
    sections = (
        (_milliseconds, {f"request {name}": f"{name}_s" for name in ("p50", "p95", "p99", "mean", "std")}),
        (_milliseconds, {"group p95": "group_p95_s"}),
        (_percent, {"answered by s-cnn": "s_cnn_share", "by replica": "replica_share", "by collage": "coded_share"}),
        (_percent, {"accuracy": "accuracy", "of coded answers": "coded_accuracy"}),
        (_percent, {"extra load: collages": "collage_load", "replicas": "replica_load"}),
        (str, {"requests": "requests", "failed": "failed"}),
    )
    result = Table(title=title, title_style="bold")
    result.add_column("policy")
    for row in rows:
        result.add_column(row["policy"], justify="right")
    for show, section in sections:
        for name, key in section.items():
            result.add_row(name.rjust(21), *(show(row[key]) for row in rows))
        result.add_section()
    return result


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
