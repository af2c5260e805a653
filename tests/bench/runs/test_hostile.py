"""Every attack of ``python -m bench hostile`` in small on a frontend in this process, and a short run on real ones."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bench.offer.attacks import ATTACKS, Victim, closed_loop, picture
from bench.runs.hostile import MOST_RSS, _text, main
from collage.serving import Server
from collage.v1 import predict_pb2
from tests.frontend.fakes import SIZE
from tests.frontend.grpc_workers import cluster

SHARE = 0.05
BOUND_S = 40.0


def victim(server: Server) -> Victim:
    return Victim(server.port, server.health_port or 0, server.metrics_port, "s", SIZE)


@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - {"SIGTERM"}))
async def test_an_attack_gets_statuses_and_leaves_nothing(name: str) -> None:
    async with asyncio.timeout(BOUND_S), cluster(policy="none", health_port=0) as (stub, server, _):
        await stub.Predict(predict_pb2.PredictRequest(image=picture(SIZE)))
        before = len(asyncio.all_tasks())
        ends = await ATTACKS[name].run(victim(server), SHARE)
        assert ends
        assert set(ends) <= ATTACKS[name].allowed, ends
        while server.registry.get_sample_value("collage_in_flight") or len(asyncio.all_tasks()) > before:
            await asyncio.sleep(0.05)


async def test_callers_who_call_again_and_again_are_told_that_it_ends() -> None:
    async with asyncio.timeout(BOUND_S), cluster(policy="none", health_port=0, drain_s=10.0) as (_, server, _):
        attacking = asyncio.create_task(closed_loop(victim(server), SHARE))
        while (server.registry.get_sample_value("collage_requests_total", {"code": "OK"}) or 0) < 50:
            await asyncio.sleep(0.01)
        await server.stop()
        ends = await attacking
        assert ends["OK"] >= 50
        assert set(ends) <= {"OK", "UNAVAILABLE"}


def test_a_short_run_writes_what_happened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--attacks", "half-closed", "unfinished messages", "--share", str(SHARE), "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "hostile.json").read_text())["rows"]
    assert [row["attack"] for row in rows] == ["half-closed", "unfinished messages"]
    assert rows[0]["ends"] == "15 INVALID_ARGUMENT"
    for row in rows:
        assert 0 < row["peak_rss_bytes"] <= MOST_RSS
        assert [row[f"left_{what}"] for what in ("tasks", "open_fds", "in_flight")] == [0, 0, 0]
        assert 0 < row["bystanders_p99_s"] < 10
    printed = capsys.readouterr().out
    assert "118 calls of 16 MB without their last bytes" in printed


def test_a_row_says_whether_it_held() -> None:
    line = {"sent": "much", "ends": "5 OK", "good": True, "peak_rss_bytes": 1e8, "bystanders_ok": 1.0}
    line |= {"bystanders_p99_s": 0.05, "left_tasks": 0.0, "left_open_fds": 1.0, "left_in_flight": 0.0}
    assert _text(line) == ("much", "5 OK", "100 MB", "100 %", "50 ms", "0/1/0", "held")
    assert _text({"sent": "much", "ends": "", "good": False})[2:] == ("-", "-", "-", "-/-/-", "BROKEN")
