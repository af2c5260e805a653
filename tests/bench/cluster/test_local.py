"""A small cluster of real frontends and workers with tiny models, and ``up``."""

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from bench.cluster.greeting import greeting
from bench.cluster.local import HOST, S_CNN, Cluster, ProcessError, alone, main, parity_models, until_serving
from bench.cluster.processes import free_port
from bench.offer import closed_groups, random_groups
from collage.cli import CLUSTER_FILE
from collage.client import Client
from tests import onnx_models
from tests.bench.children import BOUND_S, until_gone
from tests.bench.tiny import cluster, samples


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


def test_parity_models_are_found_beside_their_base_model_or_named(tmp_path: Path) -> None:
    s_cnn = tmp_path / "mnist-s-cnn.onnx"
    own = r"/mnist-parity-addition-2\.onnx: make zoo DATA=IMAGES MODELS=.* CODE=addition K=2 trains it; "
    with pytest.raises(ProcessError, match=r"no parity model .*" + own + "those there are: none"):
        parity_models(s_cnn, "addition", 2, 1)
    with pytest.raises(ProcessError, match=r": make data, then make zoo CODE=addition K=9 train it into runs/zoo"):
        parity_models(S_CNN, "addition", 9, 1)
    for name in ("addition-2", "addition-3-r2-row0", "addition-3-r2-row1"):
        (tmp_path / f"mnist-parity-{name}.onnx").touch()
    assert parity_models(s_cnn, "addition", 2, 1) == [tmp_path / "mnist-parity-addition-2.onnx"]
    both = [tmp_path / f"mnist-parity-addition-3-r2-row{row}.onnx" for row in (0, 1)]
    assert parity_models(s_cnn, "addition", 3, 2) == both
    with pytest.raises(
        ProcessError, match=r"stacked-2\.onnx: .* there are: mnist-parity-addition-2\.onnx, mnist-parity"
    ):
        parity_models(s_cnn, "stacked", 2, 1)


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


def test_a_missing_model_is_told_with_those_that_are_called_like_it(tmp_path: Path) -> None:
    s_cnn = onnx_models.save_s_cnn(tmp_path / "mine-s-cnn.onnx")
    for grid in ("2x2", "4x4"):
        (tmp_path / f"mine-collage-{grid}.onnx").touch()
    told = r"/mine-collage-9x9\.onnx: beside it are mine-collage-[24]x[24]\.onnx, mine-collage-[24]x[24]\.onnx, mine-s"
    with pytest.raises(ProcessError, match="no model at .*" + told):
        Cluster(s_cnn, tmp_path / "mine-collage-9x9.onnx")


@pytest.mark.parametrize("flag", ["--port", "--http-port"])
def test_a_port_in_use_is_told_before_anything_starts(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        assert main(["up", "--port", "0", "--http-port", "0", flag, str(port)]) == 1
    out, error = capsys.readouterr()
    assert out == "", "no process is started"
    assert error.startswith(f"port {port} cannot be used (Address already in use): end what listens there, or start")
    assert "/python -m bench cluster up`, which takes other ports (--port, --http-port)\n" in error


async def test_what_cannot_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"there is no model at absent\.onnx$"):
        Cluster(Path("absent.onnx"))
    broken = cluster(tmp_path, "--policy", "hope")
    with pytest.raises(ProcessError, match="frontend ended with exit code") as failure:
        async with broken:
            pass
    assert "hope" in str(failure.value)
    for child in broken.children:
        with pytest.raises(ProcessError, match="not running"):
            _ = child.pid


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, "collage"), (signal.SIGTERM, "addition")])
async def test_up_says_how_to_call_it_and_ends_with_a_signal(number: signal.Signals, code: str, tmp_path: Path) -> None:
    s_cnn = tmp_path / "tiny-s-cnn.onnx"
    protection = ["--collage", str(onnx_models.save_collage_cnn(tmp_path / "collage.onnx"))]
    if code == "collage":
        described = {"name": "tiny", "kind": "s-cnn", "labels": onnx_models.COLOURS, "size": 8}
        onnx_models.save_plain(s_cnn, sidecar=described)  # without mean and std, of which the worker warns
    else:
        onnx_models.save_s_cnn(s_cnn)
        onnx_models.save_parity(tmp_path / "tiny-parity-addition-2.onnx", size=8)
        protection = ["--code", "addition", "--k", "2"]
    arguments = (
        "up",
        *("--s-cnn", str(s_cnn)),
        *protection,
        *("--workers", "2", "--port", "0", "--policy", "none"),
    )
    up = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench", "cluster", *arguments,
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
        redundant = "collage-cnn" if code == "collage" else "row-0"
        assert [process["role"] for process in processes] == ["frontend", "s-cnn", "s-cnn", redundant]
        address = processes[0]["address"]
        assert f"predict {next(iter(said.split('predict ')[1].split()))} --address {address}" in said
        assert processes[0]["metrics"] in said
        assert ": 2 s-cnn and 1 redundant workers\n" in said
        assert "classes of tiny-s-cnn.onnx: red, green, blue\n" in said
        warned = [line for line in said.splitlines() if line.startswith("WARNING")]
        assert len(warned) == (code == "collage"), "what both workers warn of is said once"
        assert all("tiny: the input is float and there is no mean and std" in line for line in warned)
        for process in processes:
            async with Client(process["address"]) as client:
                assert await client.health() == "SERVING"
        up.send_signal(number)
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


async def test_a_cluster_without_a_code_says_what_happens_to_late_requests(tmp_path: Path) -> None:
    cluster = Cluster(onnx_models.save_s_cnn(tmp_path / "s.onnx"), s_cnn_workers=1, coded_workers=0, logs=tmp_path)
    for child in cluster.children:
        child.port = child.metrics_port = child.http_port = free_port()
        child.log.touch()
    said = await greeting(cluster.frontend, cluster.s_cnn, cluster.coded, tmp_path / "s.onnx")
    assert ": 1 s-cnn and 0 redundant workers, so late requests are replicated\n" in said


def test_a_second_up_says_that_one_runs_and_touches_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with alone():
        CLUSTER_FILE.write_text("[]")
        assert main(["up"]) == 1
        assert capsys.readouterr() == (
            "", "a cluster runs already, as out/cluster.json says: end it with Ctrl-C in its terminal first\n"
        )  # fmt: skip
        assert CLUSTER_FILE.read_text() == "[]"
    assert not CLUSTER_FILE.exists()
    with alone():
        pass
