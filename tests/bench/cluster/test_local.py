"""A small cluster of real frontends and workers with tiny models, and what stands on it: ``up`` and the demo."""

import asyncio
import io
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from bench.cluster.local import Cluster, until_serving
from bench.cluster.processes import ProcessError
from bench.offer.load import Sample, closed_groups, random_groups
from bench.runs import demo
from collage.client import Client
from tests import onnx_models
from tests.bench.children import BOUND_S, until_gone


def samples() -> list[Sample]:
    """One image of every colour that the tiny models know."""
    made = []
    for colour in onnx_models.COLOURS:
        file = io.BytesIO()
        Image.fromarray(onnx_models.solid(colour, 8)).save(file, "PNG")
        made.append(Sample(f"{colour}/0", colour, file.getvalue()))
    return made


def cluster(folder: Path, *frontend_flags: str, worker_flags: tuple[str, ...] = ()) -> Cluster:
    """Four s-cnn workers and one 2 x 2 collage worker."""
    return Cluster(
        onnx_models.save_s_cnn(folder / "s-cnn.onnx"),
        onnx_models.save_collage_cnn(folder / "collage.onnx"),
        s_cnn_workers=4,
        worker_flags=worker_flags,
        frontend_flags=frontend_flags,
        logs=folder / "logs",
    )


async def test_a_cluster_serves_survives_a_restart_of_its_frontend_and_leaves_nothing(tmp_path: Path) -> None:
    groups = random_groups(samples(), members=4, groups=3, seed=0)
    async with cluster(tmp_path, "--policy", "none") as running:
        pids = [child.pid for child in running.children]
        assert [child.role for child in running.children] == ["s-cnn"] * 4 + ["collage-cnn", "frontend"]
        address = running.frontend.address
        async with Client(address) as client:
            assert all(record.right for record in await closed_groups(client, groups))
        assert (await running.frontend.metrics()).value("collage_sent_total", attempt="s_cnn") == 12

        await running.restart_frontend(("--policy", "collage", "--deadline-s", "5"))
        pids.append(running.frontend.pid)
        assert running.frontend.address == address
        async with Client(address) as client:
            assert all(record.right for record in await closed_groups(client, groups))

        await running.s_cnn[0].kill()
        await running.s_cnn[0].restart()
        pids.append(running.s_cnn[0].pid)
        await until_serving(running.s_cnn[0])
    await until_gone(pids)


def threads(pid: int) -> dict[int, str]:
    """Names of a process's threads by their ids."""
    return {int(task.name): (task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()}


@pytest.mark.skipif(sys.platform != "linux", reason="a matter of Linux's scheduler")
async def test_grpcs_threads_are_batch_work_to_a_frontend_and_its_event_loop_is_not(tmp_path: Path) -> None:
    async with cluster(tmp_path, "--policy", "none") as running:
        pid = running.frontend.pid
        engine = [id for id, name in threads(pid).items() if name == "event_engine"]
        assert {os.sched_getscheduler(id) for id in engine} == {os.SCHED_BATCH}
        assert os.sched_getscheduler(pid) == os.SCHED_OTHER


async def test_what_cannot_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"there is no model at absent\.onnx"):
        Cluster(Path("absent.onnx"))
    broken = cluster(tmp_path, "--policy", "hope")
    with pytest.raises(ProcessError, match="frontend ended with exit code") as failure:
        async with broken:
            pass
    assert "hope" in str(failure.value)
    for child in broken.children:
        with pytest.raises(ProcessError, match="not running"):
            _ = child.pid


async def test_up_says_how_to_call_it_and_ends_with_a_signal(tmp_path: Path) -> None:
    arguments = (
        "up",
        *("--s-cnn", str(onnx_models.save_s_cnn(tmp_path / "s-cnn.onnx"))),
        *("--collage", str(onnx_models.save_collage_cnn(tmp_path / "collage.onnx"))),
        *("--workers", "1", "--port", "0", "--policy", "none"),
    )
    up = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.cluster.local", *arguments,
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert up.stdout is not None
        said = ""
        async with asyncio.timeout(60):
            while "Ctrl-C" not in said:
                line = (await up.stdout.readline()).decode()
                assert line, said
                said += line
        processes = json.loads((tmp_path / "out/cluster.json").read_text())
        assert [process["role"] for process in processes] == ["frontend", "s-cnn", "collage-cnn"]
        address = processes[0]["address"]
        assert f"predict {next(iter(said.split('predict ')[1].split()))} --address {address}" in said
        assert processes[0]["metrics"] in said
        for process in processes:
            async with Client(process["address"]) as client:
                assert await client.health() == "SERVING"
        up.send_signal(signal.SIGINT)
        out, error = await asyncio.wait_for(up.communicate(), BOUND_S)
    finally:
        if up.returncode is None:
            up.kill()
    assert (up.returncode, error.decode()) == (0, "")
    assert out.decode().splitlines()[-1] == "stopped"
    assert not (tmp_path / "out/cluster.json").exists()
    for process in processes:
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection(*process["address"].split(":"))


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
    assert json.loads((tmp_path / "out/demo.json").read_text())["rows"] == rows
    none, replicate, collage = rows
    assert [row["policy"] for row in rows] == ["none", "replicate", "collage"]
    assert all((row["requests"], row["groups"], row["failed"], row["accuracy"]) == (80, 20, 0, 1.0) for row in rows)
    assert (none["collage_load"], none["replica_load"], none["s_cnn_share"]) == (0, 0, 1)
    assert (replicate["collage_load"], replicate["coded_share"], replicate["coded_accuracy"]) == (0, 0, None)
    assert replicate["replica_load"] > 0
    assert 0.2 < collage["collage_load"] <= 0.25
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
