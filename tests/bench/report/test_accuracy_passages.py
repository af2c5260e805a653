"""The table of bounds on the loss of accuracy."""

from __future__ import annotations

import json
from pathlib import Path

from bench.report.accuracy_passages import PASSAGES
from bench.report.stored import Stored

MADE = {"command": "c", "commit": "0123456789", "machine": "m, 2 cores"}
CASE = {"model": "small", "family": "uniform", "workers": 100, "redundant": 4, "requests": 20_000}


def row(budget: float | None, seed: int, loss: float, p99_s: float) -> dict[str, object]:
    return {**MADE, **CASE, "budget": budget, "seed": seed, "loss": loss, "p99_s": p99_s}


def test_a_loss_above_its_budget_is_bold(tmp_path: Path) -> None:
    rows = [row(None, 0, 0.009, 0.2), row(0.001, 0, 0.0008, 0.22), row(0.001, 1, 0.0010, 0.24)]
    rows += [row(0.0005, 0, 0.0004, 0.25), row(0.0005, 1, 0.0008, 0.25)]
    (tmp_path / "accuracy-budget.json").write_text(json.dumps({"rows": rows}))
    heading, _, line, *_, told, _, made = PASSAGES["accuracy-budget"](Stored(tmp_path)).splitlines()
    assert heading == "| model | family | no budget | 0.1 | 0.05 |"
    assert line == "| small | uniform | 0.900 / 200 | 0.090 / 230 | **0.060** / 250 |"
    assert told.endswith("20,000 requests, 2 for each cell.")
    assert "0123456" in made
