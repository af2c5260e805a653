"""The speed measurement: its arithmetic, and a short run on real processes."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import pytest
from PIL import Image

from bench.cluster.processes import Child
from bench.offer.callers import jpeg
from bench.runs.doors import alternating
from bench.runs.doors import main as doors
from bench.runs.speed import Contender, Round, main, rows
from tests.needed import needs


async def _nothing(in_flight: int, seconds: float) -> int:
    return 1


def test_ratios_are_medians_of_the_rounds() -> None:
    child = Child("role", "name", (), Path("log"))
    cases = [Contender("bare", child, _nothing), Contender("ours", child, _nothing, "bare", 0.7)]
    samples = {
        "bare": [Round(100, 0.001), Round(200, 0.001), Round(400, 0.002)],
        "ours": [Round(90, 0.002), Round(100, 0.003), Round(240, 0.002)],
    }
    bare, ours = rows(cases, samples)
    assert bare == {"case": "bare", "per_s": 200, "cpu_s": 0.001}
    assert (ours["per_s"], ours["ratio"], ours["cpu_ratio"], ours["bar"]) == (100, 0.6, 2.0, 0.7)


@pytest.mark.parametrize("kilobytes", [20, 150])
def test_a_jpeg_is_about_as_large_as_asked(kilobytes: float) -> None:
    data = jpeg(kilobytes)
    assert 0.7 < len(data) / 1000 / kilobytes < 1.3
    assert Image.open(io.BytesIO(data)).size == (224, 224)


def test_a_short_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--rounds", "1", "--seconds", "0.2", "--in-flight", "2", "--parts", "tensors", "jpegs", "latency", "codes"]
    assert main([*short, "--out", str(tmp_path)]) == 0
    found = {row["case"]: row for row in json.loads((tmp_path / "speed.json").read_text())["rows"]}
    assert found["frontend, 3 KB"]["ratio"] > 0
    assert found["frontend, 3 KB, PredictStream"]["per_s"] > 0
    assert found["latency"]["p50_s"] > 0
    decode, encode = "decode, addition, k = 2, 1,000 classes", "encode, Berrut, k = 4, 224 pixels"
    assert 0 < found[decode]["p50_s"] < found[encode]["p50_s"]
    assert capsys.readouterr().out.startswith("case")


@needs("h2load", "nghttp2-client")
def test_a_short_run_that_saturates(tmp_path: Path) -> None:
    assert main(["--rounds", "1", "--seconds", "0.2", "--parts", "coding", "--out", str(tmp_path)]) == 0
    found = {row["case"]: row for row in json.loads((tmp_path / "speed.json").read_text())["rows"]}
    for size in ("3 KB", "150 KB"):
        assert found[f"frontend, {size}, saturated"]["ratio"] > 0
        assert found[f"collages per request, {size}"]["share"] >= 0


async def test_single_requests_are_compared_pair_by_pair() -> None:
    waits = iter((0.01, 0.03, 0.02, 0.02, 0.01, 0.05))
    clock = iter(itertools.accumulate(itertools.chain.from_iterable((0.0, wait) for wait in waits)))

    async def ask() -> None:
        pass

    found = await alternating([("one", ask), ("other", ask)], 3, lambda: next(clock))
    assert [row["case"] for row in found] == ["latency, one", "latency, other"]
    assert found[0]["p50_s"] == pytest.approx(0.01)
    assert "ratio" not in found[0]
    assert (found[1]["baseline"], found[1]["ratio"]) == ("one", pytest.approx(3))


def test_a_short_run_of_all_doors(tmp_path: Path) -> None:
    assert doors(["--rounds", "1", "--seconds", "0.2", "--count", "20", "--out", str(tmp_path)]) == 0
    found = {row["case"]: row for row in json.loads((tmp_path / "doors.json").read_text())["rows"]}
    for case in (
        "latency, HTTP",
        "latency, gRPC, traced",
        "HTTP",
        "gRPC, traced",
        "latency, gRPC, 3 KB tensor, traced",
    ):
        assert found[case]["ratio"] > 0
