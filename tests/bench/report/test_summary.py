"""Summaries from hand-made records, the table, and the files."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from bench.offer.load import Record
from bench.report import pictures, summary
from encoder.grid import Grid


def record(group: int, member: int, latency_s: float, source: str | None = "S_CNN", right: bool = True) -> Record:
    coded = source == "COLLAGE"
    return Record(
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


RECORDS = [
    *(record(0, member, 0.1) for member in range(3)),
    record(0, 3, 0.5, "REPLICA"),
    *(record(1, member, 0.1) for member in range(2)),
    record(1, 2, 0.2, "COLLAGE"),
    record(1, 3, 0.2, "COLLAGE", right=False),
]


def test_a_summary_counts_requests_groups_sources_and_loads() -> None:
    row = summary.summarise("collage", RECORDS, collages=2, replicas=1)
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
    row = summary.summarise("none", [record(0, 0, 0.1), record(0, 1, 2.0, None)], collages=0, replicas=0)
    assert row["coded_accuracy"] is None
    assert (row["failed"], row["accuracy"], row["s_cnn_share"]) == (1, 0.5, 0.5)
    assert row["p99_s"] > 1.9


def test_the_table_shows_milliseconds_and_percent_within_80_columns() -> None:
    rows = [summary.summarise("none", RECORDS[:3], 0, 0), summary.summarise("collage", RECORDS, 2, 1)]
    file = io.StringIO()
    Console(file=file, width=80).print(summary.table("title", rows))
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in file.getvalue().splitlines()]
    figures = {line[0]: line[1:] for line in cells if line}
    assert "none" in file.getvalue()
    assert figures["request p99"] == ["100 ms", "479 ms"]
    assert figures["request std"] == ["0 ms", "130 ms"]
    assert figures["group p95"] == ["100 ms", "485 ms"]
    assert figures["by replica"] == ["0.0 %", "12.5 %"]
    assert figures["accuracy"] == ["100.0 %", "87.5 %"]
    assert figures["of coded answers"] == ["-", "50.0 %"]
    assert figures["extra load: collages"] == ["0.0 %", "25.0 %"]
    assert figures["replicas"] == ["0.0 %", "12.5 %"]


def test_pictures_are_drawn(tmp_path: Path) -> None:
    grid = Grid(2, 64)
    pixels = np.zeros((64, 64, 3), np.uint8)
    predicted = ["Bag", None, "Coat", "Bag"]
    pictures.collage(tmp_path / "collage.png", pixels, grid, grid.boxes, predicted, ["Bag", "Bag", "Coat", "Coat"])
    runs = {name: np.linspace(0.1, 0.1 * i, 50) for i, name in enumerate(("none", "replicate", "collage"), start=2)}
    pictures.latencies(tmp_path / "latency.png", runs)
    for name in ("collage", "latency"):
        image = Image.open(tmp_path / f"{name}.png")
        assert min(image.size) > 400
        assert len(np.unique(np.asarray(image))) > 20
