"""The soak at CI's length, and that it would tell."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from bench.runs.soak import Verdict, run

REQUESTS = int(os.environ.get("COLLAGE_SOAK_REQUESTS", "20000"))


@pytest.mark.timeout(600)
async def test_nothing_is_lost_doubled_or_leaked_while_workers_die_and_freeze(tmp_path: Path) -> None:
    verdict = await run(REQUESTS, logs=tmp_path)
    assert verdict.problems == []
    assert verdict.requests == REQUESTS
    assert verdict.kills + verdict.freezes > 0
    assert verdict.failed < REQUESTS / 100, verdict.failures


GOOD = Verdict(100, 1.0, 100, 0, "", 0, 0, 0, 1, 1, 1e8, 1.05e8, 20, 20, 30, 33)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lost": 1}, "1 requests lost"),
        ({"doubled": 2}, "2 requests doubled"),
        ({"wrong": 3}, "3 requests wrong"),
        ({"rss_after": 1.06e8}, "memory grew from 100.0 to 106.0 MB"),
        ({"tasks_after": 21}, "tasks grew from 20 to 21"),
        ({"descriptors_after": 34}, "descriptors grew from 30 to 34"),
    ],
)
def test_problems_are_told(change: dict[str, float], told: str) -> None:
    assert GOOD.problems == []
    assert dataclasses.replace(GOOD, **change).problems == [told]  # type: ignore[arg-type]
