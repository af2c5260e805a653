"""The only summary of a run: from records to figures, and from seeds to intervals."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bench.measured import COLLAGE, NOBODY, REPLICA, S_CNN, Records, RequestRecord, extra_load, mean_of, quantile
from tests.bench.columns import COLUMNS


def record(
    group: int, member: int, latency_s: float, source: str | None = "S_CNN", right: bool = True
) -> RequestRecord:
    coded = source == "COLLAGE"
    return RequestRecord(
        request_id=f"g{group:04d}-{member}",
        group=group,
        member=member,
        image="bag/x",
        label="bag",
        prediction=None if source is None else "bag" if right else "coat",
        source=source,
        coded_confidence=0.9 if coded else None,
        cell=member if coded else None,
        error="UNAVAILABLE: no worker" if source is None else None,
        started_s=0.0,
        latency_s=latency_s,
        total_s=None,
        queue_s=None,
        inference_s=None,
    )


RECORDS = Records(
    [
        *(record(0, member, 0.1) for member in range(3)),
        record(0, 3, 0.5, "REPLICA"),
        *(record(1, member, 0.1) for member in range(2)),
        record(1, 2, 0.2, "COLLAGE"),
        record(1, 3, 0.2, "COLLAGE", right=False),
    ]
)


def test_a_summary_counts_requests_groups_sources_and_loads() -> None:
    row = RECORDS.run(Counter(collages=2, replicas=1)).brief("collage")
    assert (row["policy"], row["requests"], row["groups"], row["failed"]) == ("collage", 8, 2, 0)
    assert (row["p50_s"], row["mean_s"]) == (0.1, pytest.approx(0.175))
    assert row["p95_s"] == pytest.approx(0.395)
    assert row["p99_s"] == pytest.approx(0.479)
    assert row["std_s"] == pytest.approx(np.std([0.1] * 5 + [0.2] * 2 + [0.5]))
    assert row["group_p50_s"] == pytest.approx(0.35)
    assert row["group_p95_s"] == pytest.approx(0.485)
    assert (row["s_cnn_share"], row["replica_share"], row["coded_share"]) == (5 / 8, 1 / 8, 2 / 8)
    assert (row["accuracy"], row["coded_accuracy"]) == (7 / 8, 1 / 2)
    assert (row["collage_load"], row["replica_load"]) == (2 / 8, 1 / 8)


def test_without_coded_answers_their_accuracy_is_undefined_and_failures_are_wrong() -> None:
    row = Records([record(0, 0, 0.1), record(0, 1, 2.0, None)]).run(Counter()).brief("none")
    assert row["coded_accuracy"] is None
    assert (row["failed"], row["accuracy"], row["s_cnn_share"]) == (1, 0.5, 0.5)
    assert float(row["p99_s"] or 0) > 1.9


def test_a_row_has_what_the_caller_knows_beside_what_was_recorded() -> None:
    unsure = np.array([True] + [False] * 5 + [True] * 2)  # the first was answered by its s-cnn
    available = np.array([True] * 6 + [False] * 2)
    run = RECORDS.run(Counter(collages=2, replicas=1), busy_s=1.5, scale=0.5, unsure=unsure, available=available)
    assert run.source.tolist() == [S_CNN] * 3 + [REPLICA] + [S_CNN] * 2 + [COLLAGE] * 2
    assert (run.members, run.collages, run.replicas) == (4, 2, 1)
    about = dict.fromkeys(COLUMNS[:8], "?")
    row = run.row(about)
    assert list(row) == COLUMNS
    assert row["p50_s"] == 0.2, "times had been halved"
    assert (row["busy_s"], row["unsure_share"], row["accuracy_available"]) == (3.0, 2 / 8, 6 / 8)
    assert row["p999_s"] is None, "too few requests"
    assert extra_load(row) == 3 / 8


def test_answers_of_any_code_are_coded_and_failures_are_nobodys() -> None:
    sources = ("PARITY", "CODED", "COLLAGE", None)
    run = Records([record(0, member, 0.1, source) for member, source in enumerate(sources)]).run(Counter())
    assert run.source.tolist() == [COLLAGE] * 3 + [NOBODY]


def test_groups_are_recorded_one_by_one() -> None:
    first, second = RECORDS.run(Counter()).group_records()
    assert first == {"group": 0, "latency_s": 0.5, "slow": True, "coded": 0, "coded_right": 0}
    assert second == {"group": 1, "latency_s": 0.2, "slow": True, "coded": 2, "coded_right": 1}


def test_a_percentile_of_a_thousand_needs_ten_thousand_requests() -> None:
    few = Records([record(group, 0, 0.1) for group in range(9_999)])
    assert few.run(Counter()).row({})["p999_s"] is None
    row = Records([*few, record(9_999, 0, 0.5)]).run(Counter()).row({})
    assert row["p999_s"] == row["group_p999_s"] == 0.1


def test_quantiles_of_nothing_are_undefined() -> None:
    assert quantile([], 0.5) is None
    assert quantile([1.0, 3.0], 0.5) == 2.0


def test_means_come_with_an_interval_if_there_are_several() -> None:
    rows: list[dict[str, float | None]] = [{"x": 1.0, "y": None}, {"x": 3.0, "y": None}]
    mean, spread = mean_of(rows, "x") or (0, 0)
    assert (mean, spread) == (2.0, pytest.approx(12.706))
    assert mean_of(rows, "y") is None
    one = mean_of(rows[:1], "x")
    assert one is not None
    assert np.isnan(one[1])
