"""The measurement of fleets: its arithmetic; real servers are in tests/fleet."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import grpc
import grpc.aio
import pytest

from bench.runs import providers
from bench.runs.fleet import AskedOnce, main, poisson, request, summary
from tests import onnx_models
from tests.bench.tiny import samples


def test_a_summary_counts_failures_and_sources() -> None:
    asked = [
        *(AskedOnce(0.1, "", True) for _ in range(6)),
        AskedOnce(0.2, "COLLAGE", True),
        AskedOnce(0.3, "REPLICA", False),
        AskedOnce(5.0, None),
        AskedOnce(0.1, "S_CNN", True),
    ]
    row = summary(asked)
    assert (row["requests"], row["failed"], row["coded_share"], row["replica_share"]) == (10, 1, 0.1, 0.1)
    assert row["accuracy"] == pytest.approx(8 / 9)
    assert row["p50_s"] == pytest.approx(0.1)
    assert row["p99_s"] == pytest.approx(4.577)


async def test_requests_come_at_random_times_and_a_failure_is_recorded() -> None:
    begun: list[float] = []
    clock = asyncio.get_running_loop().time

    async def ask(number: int) -> tuple[str, str]:
        begun.append(clock())
        if number == 1:
            metadata = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, metadata, metadata)
        return "red", "COLLAGE"

    answers = await poisson(ask, ["red", "red", "blue", "red"], 200.0)
    assert [answer.source for answer in answers] == ["COLLAGE", None, "COLLAGE", "COLLAGE"]
    assert [answer.right for answer in answers] == [True, False, False, True]
    assert all(answer.latency_s >= 0 for answer in answers)
    assert begun == sorted(begun)


def test_a_request_has_raw_pixels() -> None:
    message = request(samples()[0], "s", 8)
    assert (message.model_name, list(message.inputs[0].shape), message.inputs[0].datatype) == (
        "s",
        [1, 8, 8, 3],
        "UINT8",
    )
    assert message.raw_input_contents[0] == bytes([255, 0, 0]) * 64


def test_nothing_to_measure_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "give --triton or --mlserver" in capsys.readouterr().err


def test_providers_are_compared_on_one_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = onnx_models.save_s_cnn(tmp_path / "s.onnx")
    short = ["--models", str(path), "--providers", "CPU,CPU", "--rounds", "2", "--runs", "2", "--out", str(tmp_path)]
    assert providers.main(short) == 0
    rows = json.loads((tmp_path / "providers.json").read_text())["rows"]
    assert [(row["provider"], row["difference"]) for row in rows] == [("CPU", 0.0)] * 2
    assert (rows[0]["ratio"], rows[0]["threads"]) == (1.0, 1)
    assert rows[1]["latency_s"] > 0
    assert capsys.readouterr().out.count("s on CPU: ") == 2
