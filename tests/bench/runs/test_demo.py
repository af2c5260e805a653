"""The demo on a small cluster, and its table."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

from PIL import Image
from rich.console import Console

from bench.cluster.local import Cluster
from bench.measured import Records
from bench.runs import demo
from collage.figures import MADE, read_figures
from collage.model_info import CodeInfo, ModelKind
from tests import onnx_models
from tests.bench.test_measured import RECORDS
from tests.bench.tiny import cluster, samples


async def test_the_demo_compares_three_policies(tmp_path: Path) -> None:
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps({"quantiles": [[0, 0.01], [0.9, 0.02], [0.9001, 0.4], [1, 0.4]]}))
    console = Console(file=io.StringIO(), width=160)
    rows = await demo.run(
        cluster(tmp_path, worker_flags=("--slowdown", f"quantiles:{slow}")),
        samples(),
        deadline_s=0.1,
        groups=20,
        seed=0,
        out=tmp_path / "out",
        console=console,
    )
    written = read_figures(tmp_path / "out/demo.json")
    assert [{key: value for key, value in row.items() if key not in MADE} for row in written] == rows
    none, replicate, collage = rows
    assert [row["policy"] for row in rows] == ["none", "replicate", "collage"]
    assert all((row["requests"], row["groups"], row["failed"], row["accuracy"]) == (80, 20, 0, 1.0) for row in rows)
    assert (none["collage_load"], none["replica_load"], none["s_cnn_share"]) == (0, 0, 1)
    assert (replicate["collage_load"], replicate["coded_share"], replicate["coded_accuracy"]) == (0, 0, None)
    assert replicate["replica_load"] > 0
    assert 0 < collage["collage_load"] <= 0.25
    assert collage["coded_share"] > 0
    assert collage["coded_accuracy"] == 1
    assert none["p99_s"] >= 0.4
    assert collage["p99_s"] < none["p99_s"]
    lines = [json.loads(line) for line in (tmp_path / "out/demo.jsonl").read_text().splitlines()]
    assert len(lines) == 240
    ids = [[line["request_id"] for line in lines if line["policy"] == row["policy"]] for row in rows]
    assert ids[0] == ids[1] == ids[2]
    for name in ("demo-collage.png", "demo-latency.png"):
        assert Image.open(tmp_path / "out" / name).format == "PNG"


async def test_the_demo_of_another_code_has_parms_policy_and_a_picture_of_a_decoding(tmp_path: Path) -> None:
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps({"quantiles": [[0, 0.01], [0.8, 0.02], [0.8001, 0.4], [1, 0.4]]}))
    cluster = Cluster(
        onnx_models.save_s_cnn(tmp_path / "s-cnn.onnx"),
        [
            onnx_models.save_s_cnn(
                tmp_path / "p.onnx", kind=ModelKind.PARITY, code=CodeInfo("linear", 2, weights=(0.5, 0.5))
            )
        ],
        s_cnn_workers=4,
        coded_workers=2,
        worker_flags=("--slowdown", f"quantiles:{slow}"),
        logs=tmp_path / "logs",
    )
    none, first, deadline = await demo.run(
        cluster,
        samples(),
        deadline_s=0.1,
        groups=12,
        seed=0,
        out=tmp_path / "out",
        console=Console(file=io.StringIO(), width=160),
        name="demo-addition-2",
        policies=("none", "first-come", "collage"),
        extra_load=0.5,
    )
    assert all((row["failed"], row["accuracy"]) == (0, 1.0) for row in (none, first, deadline))
    assert (none["coded_share"], first["replica_load"]) == (0, 0)
    assert 0 < first["collage_load"] <= 0.5
    assert min(first["coded_share"], deadline["coded_share"]) > 0
    assert first["coded_accuracy"] == deadline["coded_accuracy"] == 1
    assert (tmp_path / "out/demo-addition-2.json").exists()
    for name in ("decoding", "latency"):
        assert Image.open(tmp_path / f"out/demo-addition-2-{name}.png").format == "PNG"


def test_the_table_shows_milliseconds_and_percent_within_80_columns() -> None:
    rows = [
        Records(RECORDS[:3]).run(Counter()).brief("none"),
        RECORDS.run(Counter(collages=2, replicas=1)).brief("collage"),
    ]
    file = io.StringIO()
    Console(file=file, width=80).print(demo.table("title", rows))
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
