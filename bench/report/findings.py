"""Rows and raw records of experiments and simulations: read back, compared with each other, and put into words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.measured import Interval, extra_load, mean_of
from collage.figures import MADE, Row, read_figures

FoundRow = dict[str, Any]
"""A row of figures that was read back."""

REGIME = "transient"  # that of the paper's figures
DENSITY = ("none", "replicate", "hedge", "collage", "adaptive")
"""Policies whose groups are recorded one by one and drawn as densities."""
CASE = ("source", "regime", "offered", "load", "n", "redundant", "groups")
VARIANT = ("policy", "setting", "value")  # of a policy; setting and value are None for its defaults
RIVALS = ("replicate", "hedge")
RIVAL_LOAD = 1.08  # times what the collages cost: 12 % at 9 + 1


class Usage(NamedTuple):
    """Tables 1 and 2 of Collage inference: counts of groups, then of coded answers."""

    groups: int
    slow: int  # a member was not answered by its s-cnn
    available: int  # of the slow ones: with a coded answer
    right: int  # of these: with all coded answers right
    answers: int  # coded, one by one
    answers_right: int


PAPER_USAGE = {9: Usage(8310, 1480, 1280, 1119, 1280, 1119), 16: Usage(4680, 1002, 689, 563, 689, 563)}
Made = Callable[[Iterable[str]], str]
"""A line that says which runs made these figures."""


@dataclass(frozen=True)
class Recorded:
    """Latencies of one run in seconds, of groups and of requests, float64 ``[groups]`` and ``[requests]``.

    Requests of simulated runs are not recorded. ``row`` has the run's figures. ``load`` is None for closed groups;
    ``title`` is the policy with its limit, if that is not a default.
    """

    row: FoundRow
    source: str
    regime: str
    n: int
    policy: str
    title: str
    load: float | None
    groups_s: NDArray[np.float64]
    requests_s: NDArray[np.float64]
    usage: Usage

    @property
    def made(self) -> str:
        """The command, machine and commit of the run."""
        return str(self.row["made"])

    def usage_row(self) -> Row:
        """How the collage-cnn was used, as figures."""
        about = {"source": self.source, "regime": self.regime, "n": self.n, "policy": self.policy}
        titled = {"title": self.title, "seed": self.row["seed"], "load": self.load}
        return {**about, **titled, **self.usage._asdict(), **{key: self.row[key] for key in MADE}}


def read(files: Iterable[Path], records: Iterable[Path]) -> tuple[list[FoundRow], list[Recorded]]:
    """Rows of these files, and their records.

    A row gets two more columns: ``made``, its command, machine and commit, and ``sent``, its extra load.

    Of equal runs the first counts. Raises OSError, or ValueError for a file that is not of this kind.
    """
    rows: dict[tuple[Any, ...], FoundRow] = {}
    for file in files:
        for row in read_figures(file):
            ran = re.sub(r"(--seeds) \d+\b(?!,)", r"\1 ...", row["command"])  # seeds that ran side by side
            row["made"] = f"`{ran}` on {row['machine']}, commit {row['commit'][:7]}"
            if "collage_load" in row:
                row["sent"] = extra_load(row)
            if "offered" in row:
                row = {"setting": None, "value": None, **row}
                rows.setdefault(tuple(row[key] for key in (*CASE, *VARIANT, "seed")), row)
            else:
                rows[file, len(rows)] = row
    known = runs_of(rows.values())
    return list(rows.values()), [run for file in records for run in _read_records(file, known)]


def runs_of(rows: Iterable[FoundRow]) -> list[FoundRow]:
    """The rows of runs; others are of larger clusters, or of the use of the collage-cnn."""
    return [row for row in rows if "offered" in row]


def _read_records(file: Path, rows: Sequence[FoundRow]) -> Iterable[Recorded]:
    """Real records are one per request, simulated ones one per group."""
    runs: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    with file.open() as lines:
        for line in lines:
            record = json.loads(line)
            simulated = "simulated" in record
            key = (simulated, *(record.get(name) for name in ("regime", "n", *VARIANT, "seed", "load")))
            if simulated:
                entry: tuple[Any, ...] = tuple(record[name] for name in ("latency_s", "slow", "coded", "coded_right"))
            else:
                entry = (record["latency_s"], record["source"], record["prediction"] == record["label"])
            runs.setdefault(key, []).append(entry)
    for (simulated, regime, n, policy, setting, value, seed, load), entries in runs.items():
        source, offered = "sim" if simulated else "real", "closed" if load is None else "open"
        about = {"source": source, "regime": regime, "n": n, "policy": policy, "seed": seed, "load": load}
        row = next(iter(select(rows, offered=offered, setting=setting, value=value, **about)), None)
        if row is None:
            raise ValueError(f"{file}: there is no row of {about}")
        latencies, *others = (np.array(column) for column in zip(*entries, strict=True))
        if simulated:
            known = (latencies, np.empty(0), _usage_of_groups(*others))
        else:
            latencies *= row["mean_s"] / latencies.mean()  # to the row's mean, where times had been shortened
            groups_s = latencies.reshape(-1, n).max(axis=1)
            known = (groups_s, latencies, count_usage(others[0].reshape(-1, n), others[1]))
        yield Recorded(row, source, regime, n, policy, title(row), load, *known)


def _usage_of_groups(slow: NDArray[np.bool_], coded: NDArray[np.int64], right: NDArray[np.int64]) -> Usage:
    available = coded > 0
    counts = (len(slow), slow.sum(), available.sum(), (available & (right == coded)).sum(), coded.sum(), right.sum())
    return Usage(*map(int, counts))


def count_usage(sources: NDArray[Any], rights: NDArray[np.bool_]) -> Usage:
    """Count groups and coded answers.

    ``sources`` are names of sources, None for a failure, ``[groups, n]``; ``rights`` says which answers were right,
    ``[groups * n]``.
    """
    coded = sources == "COLLAGE"
    right = rights.reshape(coded.shape)
    available = coded.any(axis=1)
    return Usage(
        groups=len(coded),
        slow=int((sources != "S_CNN").any(axis=1).sum()),
        available=int(available.sum()),
        right=int((available & (right | ~coded).all(axis=1)).sum()),
        answers=int(coded.sum()),
        answers_right=int((coded & right).sum()),
    )


def title(row: FoundRow) -> str:
    """The policy, and its limit if that is not a default."""
    return f"{row['policy']}, {row['setting']} {row['value']:.3g}" if row["setting"] else str(row["policy"])


def select(rows: Iterable[FoundRow], **wanted: Any) -> list[FoundRow]:
    """The rows with these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def grouped(rows: Iterable[FoundRow], keys: Sequence[str]) -> dict[tuple[Any, ...], list[FoundRow]]:
    """Rows by their values of ``keys``, in the order in which they first come."""
    result: dict[tuple[Any, ...], list[FoundRow]] = {}
    for row in rows:
        result.setdefault(tuple(row[key] for key in keys), []).append(row)
    return result


def ratio(above: Iterable[FoundRow], below: Iterable[FoundRow], key: str) -> Interval | None:
    """Ratio of the means over the seeds that both have, with its interval; None if undefined.

    The runs of a seed are a pair (they meet the same draws, but for mixtures and failures, where the interval is as
    wide as that of independent runs): the interval is that of the mean of ``above - ratio * below``, divided by the
    mean of ``below`` (the usual ratio estimator).
    """
    tops, bottoms = ({row["seed"]: row[key] for row in rows if row[key] is not None} for rows in (above, below))
    seeds = sorted(tops.keys() & bottoms.keys())
    bottom = sum(bottoms[seed] for seed in seeds) / len(seeds) if seeds else 0.0
    if not bottom:
        return None
    value = sum(tops[seed] for seed in seeds) / len(seeds) / bottom
    errors = mean_of([{"error": tops[seed] - value * bottoms[seed]} for seed in seeds], "error")
    return value, errors[1] / bottom if errors else float("nan")


def best_rival(rows: Iterable[FoundRow]) -> list[FoundRow]:
    """The variant of ``RIVALS`` of lowest group p99 with extra load up to ``RIVAL_LOAD`` times that of all collages."""
    variants = grouped((row for row in rows if row["policy"] in RIVALS), VARIANT).values()
    allowed = [rows for rows in variants if mean(rows, "sent") <= RIVAL_LOAD * rows[0]["redundant"] / rows[0]["n"]]
    return min(allowed, key=lambda rows: mean(rows, "group_p99_s"), default=[])


def mean(rows: Sequence[FoundRow], key: str) -> float:
    """Mean of ``key``, which all rows have."""
    return float(np.mean([row[key] for row in rows]))


def below(rows: Sequence[FoundRow], others: Sequence[FoundRow], key: str) -> bool:
    """True if ``key`` is lower by more than the interval of the ratio; without an interval, if its mean is lower."""
    value, spread = ratio(rows, others, key) or (1.0, 0.0)
    return bool(value + np.nan_to_num(spread) < 1)


def latencies(runs: Iterable[Recorded], of: str) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Latencies ``of`` each policy's groups or requests, all seeds together, for each regime, N and source."""
    panels: dict[str, dict[str, NDArray[np.float64]]] = {}
    for run in runs:
        panel = panels.setdefault(f"{run.regime}, {run.n} + 1, {run.source}, per {of}", {})
        seconds = run.groups_s if of == "group" else run.requests_s
        panel[run.title] = np.concatenate((panel.get(run.title, np.empty(0)), seconds))
    return panels


def curve(rows: Iterable[FoundRow], x: str, y: str, x_scale: float = 100, y_scale: float = 1000) -> NDArray[np.float64]:
    """x, y and half the interval of y, a point for each variant and case, from left to right; float64 ``[P, 3]``."""
    return curve_of(grouped(rows, (*CASE, *VARIANT)).values(), x, y, x_scale, y_scale)


def curve_of(
    variants: Iterable[Sequence[FoundRow]], x: str, y: str, x_scale: float = 100, y_scale: float = 1000
) -> NDArray[np.float64]:
    """As ``curve``, a point for the rows of each variant."""
    points = []
    for same in variants:
        if (found := mean_of(same, y)) is not None:
            points.append((x_scale * mean(same, x), y_scale * found[0], y_scale * found[1]))
    return np.array(sorted(points)).reshape(-1, 3)


def less(share: Interval | None) -> Interval | None:
    """A ratio as the difference from 1."""
    return share and (share[0] - 1, share[1])


def show(value: Interval | None, scale: float = 1, digits: int = 1) -> str:
    """A value with its interval, if there is one, in text."""
    if value is None:
        return "-"
    spread = f" ± {scale * value[1]:.{digits}f}" if value[1] == value[1] else ""
    return f"{scale * value[0]:.{digits}f}{spread}"


def show_mean(rows: Sequence[FoundRow], key: str, scale: float = 1, digits: int = 1) -> str:
    """The mean of ``key`` over the seeds in text."""
    return show(mean_of(rows, key), scale, digits)


def show_case(case: tuple[Any, ...]) -> str:
    """The values of ``CASE`` in words."""
    source, regime, _, load, n, redundant, groups, *_ = case
    offered = "closed groups" if load is None else f"{load:.0%} load"
    return f"{source}{source and ', '}{regime}, {n} + {redundant}, {groups:,} {offered}"


def markdown(headings: Sequence[str], lines: Iterable[Iterable[object]]) -> str:
    """A table in Markdown; the first column is text, the others are numbers."""
    rows = [headings, ["---", *["---:"] * (len(headings) - 1)], *lines]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def usage_table(rows: Iterable[FoundRow], made: Made) -> str:
    """Tables 1 and 2 beside ours, in Markdown; early answers count as well. Empty without rows."""
    ours = [row for row in rows if row["available"] and row["load"] is None and row["regime"] == REGIME]
    if not ours:
        return ""
    columns: dict[str, Usage] = {}
    for n in sorted({row["n"] for row in ours}):
        if n in PAPER_USAGE:
            columns[f"paper, {n} + 1"] = PAPER_USAGE[n]
        for (policy, source), same in grouped(select(ours, n=n), ("title", "source")).items():
            total = Usage(*(sum(row[name] for row in same) for name in Usage._fields))
            columns[f"{policy}, {n} + 1, {source}"] = total
    lines: Mapping[str, Callable[[Usage], object]] = {
        "groups": lambda usage: usage.groups,
        "with a slowdown (a member not answered by its s-cnn)": lambda usage: usage.slow,
        "of these without a coded answer": lambda usage: usage.slow - usage.available,
        "with a coded answer": lambda usage: usage.available,
        "of these all coded answers right": lambda usage: usage.right,
        "recovery accuracy": lambda usage: f"{100 * usage.right / usage.available:.1f} %",
        "accuracy of coded answers one by one": lambda usage: f"{100 * usage.answers_right / usage.answers:.1f} %",
    }
    table = [[line, *(value(usage) for usage in columns.values())] for line, value in lines.items()]
    note = "The adaptive policy gives coded answers early: its first lines count these too.\n\n"
    return f"{markdown(['', *columns], table)}\n\n{note}{made(row['made'] for row in ours)}"


def cluster_table(rows: Sequence[FoundRow], made: Made) -> str:
    """The cost of simulated clusters of more and more workers, in Markdown; empty without rows."""
    if not rows:
        return ""
    headings = "workers|frontends|policy|load|requests|µs each|request p50|request p99|extra load %|coded %"
    lines = (
        [
            f"{row['workers'] - row['redundant']:,} + {row['redundant']:,}",
            *(row["frontends"], row["policy"], f"{row['load']:.0%}", f"{row['requests']:,}"),
            *(f"{row['us_per_request']:.0f}", f"{1000 * row['p50_s']:.0f}", f"{1000 * row['p99_s']:.0f}"),
            f"{100 * row['sent']:.1f}",
            f"{100 * row['coded_share']:.1f}",
        ]
        for row in rows
    )
    note = (
        "Simulated, one seed; microseconds of one core per request. Several frontends do not see each other's "
        "calls, which then meet at the same workers, and fill groups more slowly."
    )
    return f"{note}\n\n{markdown(headings.split('|'), lines)}\n\n{made(row['made'] for row in rows)}"
