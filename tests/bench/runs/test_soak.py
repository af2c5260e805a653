"""The soak at CI's length."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.runs.soak import run

REQUESTS = int(os.environ.get("SOAK_REQUESTS", "20000"))


@pytest.mark.timeout(600)
async def test_nothing_is_lost_doubled_or_leaked_while_workers_die_and_freeze(tmp_path: Path) -> None:
    verdict = await run(REQUESTS, logs=tmp_path)
    assert verdict.problems == []
    assert verdict.requests == REQUESTS
    assert verdict.kills + verdict.freezes > 0
    assert verdict.failed < REQUESTS / 100, verdict.failures
