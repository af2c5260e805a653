"""What the documents show of codes: how right they are where answers are lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.offer import DEADLINE, load_table
from bench.report.findings import FoundRow, markdown
from bench.report.pictures import Panel, curves
from bench.report.stored import Stored, ms, percent, within
from collage.figures import interval

CODES = "codes"
COLOURS = defaultdict(
    lambda: "#e7298a",  # of learned codes, whose names are their makers'
    {
        **{"not lost": "#8c8c8c", "collage": "#d95f02", "addition": "#1f77b4", "stacked": "#1b9e77"},
        **{
            "concatenation": "#7570b3",
            "student": "#666666",
            "addition-keyed": "#08519c",
            "ApproxIFER": "#a6761d",
            "Berrut": "#e6ab02",
        },
    },
)
MLP = "mlp"
PUBLISHED = (
    ("Kosaian et al., table IV", "fashion-mnist", "ResNet-18", "learned-conv", 2, 0.9285, 0.8892),
    ("Kosaian et al., table IV", "fashion-mnist", "ResNet-18", "learned-mlp", 2, 0.9285, 0.8815),
    ("Kosaian et al., table IV", "fashion-mnist", MLP, "learned-conv", 2, 0.8947, 0.8253),
    ("Kosaian et al., table IV", "fashion-mnist", MLP, "learned-mlp", 2, 0.8947, 0.8196),
    ("Kosaian et al., table IV", "cifar10", "ResNet-18", "learned-conv", 2, 0.9347, 0.8204),
    ("Kosaian et al., figure 9", "cifar10", "ResNet-18", "addition", 2, 0.9347, 0.895),
    ("Kosaian et al., figure 9", "cifar10", "ResNet-18", "addition", 3, 0.9347, 0.745),
    ("Kosaian et al., figure 9", "cifar10", "ResNet-18", "addition", 4, 0.9347, 0.525),
    ("ApproxIFER", "cifar10", "ResNet-18", "ApproxIFER", 8, None, 0.776),
    ("ApproxIFER", "cifar10", "ResNet-18", "ApproxIFER", 12, None, 0.774),
    ("ApproxIFER", "fashion-mnist", "ResNet-18", "ApproxIFER", 8, None, 0.74),
    ("ApproxIFER", "fashion-mnist", "ResNet-18", "ApproxIFER", 12, None, 0.72),
)
"""What others report where one answer is lost: source, data set, base model, code, N, A_a (if told) and A_d.

"Learning-based coded computation" by Kosaian and others; those of its figure 9 follow from the A_o that its text tells.
"""
METRICS = {"top1": "A_a", "iou": "mean IoU"}
"""What tables show, and what they call it where no answer is lost."""
EQUAL = 1.15
"""Times of the base model's inference that a redundant one may take to be drawn beside the others; measured, and so a
little more than one."""
CODING = ("first-come", "collage")
"""Policies of the demo that answer from a code."""
UNAVAILABLE = (0.01, 0.05, 0.1)
"""Shares of answers that are lost, f in the paper."""


def lost(found: Stored) -> str:
    """Accuracy of a lost answer against the number of members, a table for each base model; of boxes, the mean IoU."""
    tables, used = [], []
    for base, rows in _by_base(found):
        codes = _singles(rows)
        members = sorted({k for its in codes.values() for k in its})
        lines = [
            [code, *(percent(_mean(its[k], "a_degraded")) if k in its else "" for k in members)]
            for code, its in codes.items()
        ]
        lines += [[code, *[percent(_mean(same, "a_degraded"))] * len(members)] for code, same in _without(rows).items()]
        what = METRICS[str(rows[0]["metric"])]
        headings = [f"`{base}`, {what} {percent(_available(rows))}; N", *map(str, members)]
        tables.append(markdown(headings, lines))
        used += [row for its in codes.values() for same in its.values() for row in same]
        used += [row for same in _without(rows).values() for row in same]
    return "\n\n".join([*tables, found.origin(CODES, used)])


def draw(found: Stored) -> Path:
    """Draw accuracy of a lost answer against the number of members, at equal cost; returns the file.

    Base models with one number of members have no panel, unless there is no other.
    """
    panels: list[Panel] = []
    points: list[Panel] = []
    for base, rows in _by_base(found):
        codes = _singles([row for row in rows if row["cost_ratio"] <= EQUAL])
        lines = {code: np.array([_point(k, same) for k, same in its.items()]) for code, its in codes.items()}
        members = [k for its in codes.values() for k in its]
        ends = (min(members), max(members))
        for code, same in _without(rows).items():
            lines[code] = np.array([_point(k, same) for k in ends])
        lines["not lost"] = np.array([[k, 100 * _available(rows), 0] for k in ends])
        what = "mean IoU" if rows[0]["metric"] == "iou" else "top-1"
        panel = Panel(base, "N, members of a group", f"{what} of a lost answer, %", lines)
        (panels if ends[0] < ends[1] else points).append(panel)
    path = found.folder / f"{CODES}.png"
    curves(path, panels or points, COLOURS)
    return path


def overall(found: Stored) -> str:
    """A_a, A_d and A_o of every code, for some shares of lost answers; of boxes, the mean IoU in place of accuracy."""
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


def published(found: Stored) -> str:
    """What others report beside what we measured with the same code, data set and N, on any base model."""
    lines, used = [], []
    for source, dataset, base, code, members, a_available, a_degraded in PUBLISHED:
        theirs = [
            source,
            dataset,
            code,
            str(members),
            base,
            percent(a_available) if a_available else "",
            percent(a_degraded),
        ]
        ours = [
            (name, same)
            for name, rows in _by_base(found)
            if rows[0]["dataset"].startswith(dataset) and name.endswith(f"-{MLP}") == (base == MLP)
            for label, its in _singles(rows).items()
            if label in (code, f"{code}-{MLP}") and (same := its.get(members))
        ]
        for name, same in ours:
            lines.append(
                [*theirs, f"`{name}`", percent(_mean(same, "a_available")), percent(_mean(same, "a_degraded"))]
            )
            used += same
        if not ours:
            lines.append([*theirs, "", "", ""])
    headings = ["source", "data set", "code", "N", "base model", "A_a", "A_d", "ours", "A_a", "A_d"]
    return f"{markdown(headings, lines)}\n\n{found.origin(CODES, used)}"


def demo(found: Stored) -> str:
    """The demo with parity models for two requests, beside the collage's: the same stragglers, policy by policy."""
    collages, sums = found.rows("demo"), found.rows("demo-addition-2")
    lines = [
        [
            name,
            f"`{row['policy']}`",
            f"{ms(row['p50_s'])} / {ms(row['p99_s'])}",
            ms(_p99_at_best(row["policy"], needed)),
            percent(row["coded_share"]),
            percent(row["accuracy"]),
            percent(row["coded_accuracy"]) if row["coded_accuracy"] is not None else "",
            percent(row["collage_load"] + row["replica_load"]),
        ]
        for name, rows, needed in (("collage, N = 9", collages, 1), ("addition, N = 2", sums, 2))
        for row in rows
        if row["policy"] != "replicate"
    ]
    headings = ["code", "policy", "request p50 / p99, ms", "p99 at best, ms", "coded answers", "accuracy"]
    headings += ["of coded answers", "extra load"]
    origins = (found.origin("demo", collages), found.origin("demo-addition-2", sums))
    return "\n\n".join((markdown(headings, lines), *origins))


def _p99_at_best(policy: str, needed: int) -> float:
    """The 99th percentile, in seconds, where workers straggle as in the demo and nothing else takes time.

    A request is late with its own worker and with one of those that a coded answer needs; ``collage`` waits for its
    deadline before it gives such an answer.
    """
    share = np.linspace(0, 1, 10_001)
    late = float(np.interp(0.01, share * (1 - (1 - share) ** needed), share)) if policy in CODING else 0.01
    table = load_table()
    return max(table.quantile(1 - late), table.quantile(DEADLINE) if policy == "collage" else 0.0)


def _by_base(found: Stored) -> Sequence[tuple[str, list[FoundRow]]]:
    rows = [row for row in found.rows(CODES) if row["metric"] in METRICS]
    names = sorted({str(row["base"]) for row in rows})
    return [(name, [row for row in rows if row["base"] == name]) for name in names]


def _singles(rows: Sequence[FoundRow]) -> dict[str, dict[int, list[FoundRow]]]:
    """The rows of a base model where one answer is lost and one input is redundant, by code and number of members."""
    single = [row for row in rows if row["lost"] == 1 and row["r"] == 1]
    found: dict[str, dict[int, list[FoundRow]]] = {}
    for row in sorted(single, key=lambda row: (str(row["code"]), row["k"])):
        found.setdefault(str(row["code"]), {}).setdefault(row["k"], []).append(row)
    return found


def _without(rows: Sequence[FoundRow]) -> dict[str, list[FoundRow]]:
    """The rows of answers that need no group, such as one box for all images."""
    return {str(row["code"]): [row] for row in rows if row["r"] == 0}


def _point(members: int, rows: Sequence[FoundRow]) -> list[float]:
    right = _mean(rows, "a_degraded")
    return [members, 100 * right, 100 * interval(right, rows[0]["images"])]


def _available(rows: Sequence[FoundRow]) -> float:
    """The base model's own accuracy: ApproxIFER has no answers of members themselves."""
    return _mean([row for row in rows if row["code"] != "ApproxIFER"] or rows, "a_available")


def _mean(rows: Sequence[FoundRow], column: str) -> float:
    return float(np.mean([row[column] for row in rows]))


PASSAGES = {"codes-lost": lost, "codes-overall": overall, "codes-published": published, "codes-demo": demo}
