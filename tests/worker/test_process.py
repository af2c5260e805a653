"""The worker as a process: flags, the ready line, SIGTERM, and errors that an operator can read."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from collage.tensors import to_tensor
from collage.v1 import model_pb2, model_pb2_grpc
from tests import onnx_models
from tests.worker.conftest import BOUND_S

FREE_PORTS = ("--host", "127.0.0.1", "--port", "0", "--metrics-port", "0")


@asynccontextmanager
async def process(*flags: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """``python -m worker``, killed at the end if it still runs."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "worker", *FREE_PORTS, *flags,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment},
    )  # fmt: skip
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def ports(running: asyncio.subprocess.Process) -> dict[str, int]:
    """The ports that the ready line tells."""
    assert running.stdout is not None
    async with asyncio.timeout(60):
        line = (await running.stdout.readline()).decode()
    assert line.startswith("ready "), line
    return {name: int(port) for name, _, port in (part.partition("=") for part in line.split()[1:])}


async def metrics(port: int) -> dict[str, float]:
    """All samples but buckets by name, requests by name and outcome: ``..._total ok``."""
    async with asyncio.timeout(BOUND_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        page = (await reader.read()).decode().partition("\r\n\r\n")[2]
        writer.close()
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return {
        f"{sample.name} {sample.labels.get('outcome', '')}".strip(): sample.value
        for sample in samples
        if "le" not in sample.labels
    }


async def test_sigterm_finishes_the_call_in_flight_and_exits_0(s_cnn: Path) -> None:
    async with process("--model", str(s_cnn), "--slowdown", "fixed:1.0") as running:
        port = await ports(running)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port['port']}") as channel:
            request = model_pb2.RunRequest(input=to_tensor(onnx_models.solid("red", 8)), request_id="r")
            call = model_pb2_grpc.ModelServiceStub(channel).Run(request, timeout=BOUND_S)
            async with asyncio.timeout(BOUND_S):
                while (await metrics(port["metrics_port"]))["collage_worker_queue_seconds_count"] == 0:
                    pass
            running.send_signal(signal.SIGTERM)
            response = await call
        assert response.inference_s >= 1.0
        async with asyncio.timeout(BOUND_S):
            _, errors = await running.communicate()
        assert running.returncode == 0, errors
        assert b"Traceback" not in errors


async def test_settings_come_from_the_environment_as_well(s_cnn: Path) -> None:
    async with process(COLLAGE_MODEL=str(s_cnn), COLLAGE_QUEUE_SIZE="3") as running:
        samples = await metrics((await ports(running))["metrics_port"])
        assert samples["collage_worker_requests_total ok"] == samples["collage_worker_queue_length"] == 0
        running.send_signal(signal.SIGINT)
        async with asyncio.timeout(BOUND_S):
            assert await running.wait() == 0


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--model", "missing.onnx"], "worker: there is no model file missing.onnx"),
        (["--model", "{s_cnn}", "--slowdown", "sometimes"], "slowdown 'sometimes' cannot be used: it is none of off"),
        (["--model", "{mislabelled}"], "with 2 labels give [2]"),
        (["--threads", "0", "--model", "x.onnx"], "--threads: Input should be greater than or equal to 1"),
        ([], "--model: Field required"),
    ],
)
async def test_a_worker_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, s_cnn: Path, flags: list[str], told: str
) -> None:
    sidecar = {"name": "m", "kind": "s-cnn", "labels": ["a", "b"], "size": 8}
    mislabelled = onnx_models.save_plain(tmp_path / "m.onnx", sidecar=sidecar)
    filled = [flag.format(s_cnn=s_cnn, mislabelled=mislabelled) for flag in flags]
    async with process(*filled) as running, asyncio.timeout(60):
        output, errors = await running.communicate()
    assert running.returncode == 2
    assert output == b""
    assert told in errors.decode()
    assert len(errors.decode().splitlines()) == 1, errors.decode()


async def test_a_taken_port_is_named(s_cnn: Path) -> None:
    listening = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    taken = str(listening.sockets[0].getsockname()[1])
    async with listening, process("--model", str(s_cnn), "--metrics-port", taken) as running, asyncio.timeout(60):
        _, errors = await running.communicate()
    assert running.returncode == 2
    assert f"cannot listen on 127.0.0.1:{taken} for metrics" in errors.decode()
    assert "Traceback" not in errors.decode()


async def test_a_worker_whose_log_nobody_reads_answers_and_ends(s_cnn: Path) -> None:
    ours, theirs = os.pipe()
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", *FREE_PORTS, "--model", str(s_cnn), "--log-level", "DEBUG"),
        stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    try:
        port = await ports(running)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port['port']}") as channel, asyncio.timeout(BOUND_S * 3):
            stub = model_pb2_grpc.ModelServiceStub(channel)
            for _ in range(3000):  # each is logged; a pipe has room for 400 of them, and 1,024 may wait
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.Run(model_pb2.RunRequest(request_id=100 * "r"), timeout=BOUND_S)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert (await metrics(port["metrics_port"]))["collage_log_lines_dropped_total"] > 1000
            request = model_pb2.RunRequest(input=to_tensor(onnx_models.solid("red", 8)))
            assert (await stub.Run(request, timeout=BOUND_S)).outputs
        running.send_signal(signal.SIGTERM)
        async with asyncio.timeout(BOUND_S):
            assert await running.wait() == 0
    finally:
        os.close(ours)
        if running.returncode is None:
            running.kill()
            await running.wait()
