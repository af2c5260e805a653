"""Rows and raw records of experiments and simulations, read back and compared with each other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.simulator.replay import mean_of

Row = dict[str, Any]
Interval = tuple[float, float]
"""A value and half the width of its 95 % confidence interval, nan from one seed."""

CASE = ("source", "regime", "offered", "load", "n", "redundant", "groups")
VARIANT = ("policy", "setting", "value")  # of a policy; setting and value are None for its defaults
RIVALS = ("replicate", "hedge")
RIVAL_LOAD = 1.08  # times what the collages cost: 12 % at 9 + 1


class Usage(NamedTuple):
    """Tables 1 and 2, in groups: all; slow (a member not answered by its s-cnn); of these with a coded answer; of these
    with all coded answers right. Then coded answers one by one, and how many of them are right.
    """

    groups: int
    slow: int
    available: int
    right: int
    answers: int
    answers_right: int


@dataclass(frozen=True)
class Recorded:
    """Latencies of one run in seconds, of groups and of requests, float64 ``[groups]`` and ``[requests]``.

    Requests of simulated runs are not recorded. ``load`` is None for closed groups; ``title`` is the policy with its
    limit, if that is not a default.
    """

    made: str
    source: str
    regime: str
    n: int
    policy: str
    title: str
    load: float | None
    groups_s: NDArray[np.float64]
    requests_s: NDArray[np.float64]
    usage: Usage


def read(files: Iterable[Path], records: Iterable[Path]) -> tuple[list[Row], list[Recorded]]:
    """Rows of these files, each with what ``made`` it and its ``sent`` redundant requests per request, and records.

    Of equal runs the first counts. Raises OSError, or ValueError for a file that is not of this kind.
    """
    rows: dict[tuple[Any, ...], Row] = {}
    made = "?"
    for file in files:
        content = json.loads(file.read_text())
        if "rows" not in content:
            raise ValueError(f"{file} holds no rows")
        ran = re.sub(r"(--seeds) \d+\b(?!,)", r"\1 ...", content["command"])  # side by side, each seed a run of its own
        made = f"`{ran}` on {describe(content['machine'])}, commit {str(content['commit'])[:7]}"
        for row in content["rows"]:
            if "workers" in row:  # of ``scale``
                rows[made, len(rows)] = {**row, "made": made}
                continue
            row = {"setting": None, "value": None, **row, "made": made}
            row["sent"] = (row["collage_load"] or 0) + (row["replica_load"] or 0)
            rows.setdefault(tuple(row[key] for key in (*CASE, *VARIANT, "seed")), row)
    known = [row for row in rows.values() if "workers" not in row]
    return list(rows.values()), [run for file in records for run in _read_records(file, known)]


def _read_records(file: Path, rows: Sequence[Row]) -> Iterable[Recorded]:
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
            latencies *= row["mean_s"] / latencies.mean()  # to what the row says, where times had been shortened
            groups_s = latencies.reshape(-1, n).max(axis=1)
            known = (groups_s, latencies, count_usage(others[0].reshape(-1, n), others[1]))
        yield Recorded(row["made"], source, regime, n, policy, title(row), load, *known)


def _usage_of_groups(slow: NDArray[np.bool_], coded: NDArray[np.int64], right: NDArray[np.int64]) -> Usage:
    available = coded > 0
    counts = (len(slow), slow.sum(), available.sum(), (available & (right == coded)).sum(), coded.sum(), right.sum())
    return Usage(*map(int, counts))


def count_usage(sources: NDArray[Any], rights: NDArray[np.bool_]) -> Usage:
    """Count groups and coded answers: who answered, ``[groups, n]``, and whether that was right, ``[groups * n]``."""
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


def title(row: Row) -> str:
    """The policy, and its limit if that is not a default."""
    return f"{row['policy']}, {row['setting']} {row['value']:.3g}" if row["setting"] else str(row["policy"])


def select(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows with these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def grouped(rows: Iterable[Row], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by their values of ``keys``, in the order in which they first come."""
    result: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        result.setdefault(tuple(row[key] for key in keys), []).append(row)
    return result


def ratio(above: Iterable[Row], below: Iterable[Row], key: str) -> Interval | None:
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


def best_rival(rows: Iterable[Row]) -> list[Row]:
    """The variant of ``RIVALS`` of lowest group p99 with extra load up to ``RIVAL_LOAD`` times that of all collages."""
    variants = grouped((row for row in rows if row["policy"] in RIVALS), VARIANT).values()
    allowed = [rows for rows in variants if mean(rows, "sent") <= RIVAL_LOAD * rows[0]["redundant"] / rows[0]["n"]]
    return min(allowed, key=lambda rows: mean(rows, "group_p99_s"), default=[])


def mean(rows: Sequence[Row], key: str) -> float:
    """Mean of ``key``, which all rows have."""
    return float(np.mean([row[key] for row in rows]))


def below(rows: Sequence[Row], others: Sequence[Row], key: str) -> bool:
    """Whether ``key`` is lower beyond the interval of the ratio; without an interval, by the means."""
    value, spread = ratio(rows, others, key) or (1.0, 0.0)
    return bool(value + np.nan_to_num(spread) < 1)


def describe(machine: Mapping[str, object]) -> str:
    """A machine in one line."""
    cpu, cores, system, python = (machine.get(key, "?") for key in ("cpu", "cores", "system", "python"))
    return f"{cpu}, {cores} cores, {system}, Python {python}"
