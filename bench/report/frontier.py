"""The tail of latency against extra load: who is below whom, and the curves. Rows of ``python -m bench frontier``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.report import pictures
from bench.report.findings import FoundRow, below, curve_of, grouped, mean, select

PLACE = ("family", "workers", "redundant", "grid", "offered", "load")
VARIANT = ("policy", "setting")
OURS = "adaptive"
TAILS = {"p99_s": "p99", "p999_s": "p99.9"}
EQUAL = 1.02
"""Extra loads are equal if they differ by no more: none comes out as planned."""


class Loss(NamedTuple):
    """A place where a rival has a shorter tail than ``adaptive`` at no more extra load, beyond the interval."""

    place: tuple[Any, ...]
    tail: str  # a key of TAILS
    rival: list[FoundRow]
    ours: list[FoundRow]


def losses(rows: Iterable[FoundRow]) -> Iterator[Loss]:
    """Every place and setting of ``adaptive`` that loses, with the rival of the shortest tail there."""
    for place, here in grouped(rows, PLACE).items():
        variants = list(grouped(here, VARIANT).values())
        rivals = [same for same in variants if same[0]["policy"] != OURS]
        for ours in (same for same in variants if same[0]["policy"] == OURS):
            load = EQUAL * mean(ours, "extra_load")
            for tail in TAILS:
                found = [each for each in rivals if mean(each, "extra_load") <= load and below(each, ours, tail)]
                if found:
                    yield Loss(place, tail, min(found, key=lambda each: mean(each, tail)), ours)


def compared(rows: Iterable[FoundRow]) -> int:
    """The number of places, settings of ``adaptive`` and tails that are compared with rivals."""
    ours = grouped((row for row in rows if row["policy"] == OURS), (*PLACE, *VARIANT)).values()
    return sum(same[0][tail] is not None for same in ours for tail in TAILS)


def best(rows: Iterable[FoundRow], tail: str, most: float) -> Mapping[str, list[FoundRow]]:
    """Each policy's setting with the shortest tail, of those that cost at most this extra load."""
    result: dict[str, list[FoundRow]] = {}
    for (policy, _), same in grouped(rows, VARIANT).items():
        if same[0][tail] is None or mean(same, "extra_load") > most:
            continue
        if policy not in result or mean(same, tail) < mean(result[policy], tail):
            result[policy] = same
    return result


def draw(path: Path, rows: Sequence[FoundRow], family: str = "transient", load: float = 0.5) -> None:
    """Draw p99 and p99.9 against extra load, a row of diagrams for each cluster; up to 15 % of extra load."""
    here = select(rows, source="sim", family=family, load=load, offered="poisson")
    panels = []
    for (workers, redundant, grid), mine in sorted(grouped(here, ("workers", "redundant", "grid")).items()):
        for tail, name in TAILS.items():
            lines = {}
            for (policy,), same in grouped(mine, ("policy",)).items():
                variants = grouped((row for row in same if row[tail] is not None), VARIANT).values()
                points = curve_of((each for each in variants if mean(each, "extra_load") <= 0.15), "extra_load", tail)
                if len(points):
                    lines[str(policy)] = points
            if lines:
                title = f"{workers} + {redundant}, {grid}"
                panels.append(pictures.Panel(title, "extra load, %", f"request {name}, ms", lines))
    if panels:
        pictures.curves(path, panels)
