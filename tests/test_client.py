"""The client library and the ``collage`` command against a fake frontend on a real port."""

import asyncio
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from collage.cli import main
from collage.client import Classification, Client, ClientError, Prediction
from collage.serving import ResourceExhausted, boundary
from collage.v1 import predict_pb2
from tests.bench.fakes import FakePredictService, serving

NOBODY = "127.0.0.1:1"


Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def collage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in ``tmp_path``; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    for name, data in (("bag.png", b"\x01"), ("coat.png", b"\x02c"), ("empty.png", b"")):
        (tmp_path / name).write_bytes(data)

    async def run(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, arguments)
        return code, *capsys.readouterr()

    return run


async def test_predict_tells_all_that_the_wire_tells() -> None:
    async with serving(FakePredictService()) as server, Client(f"127.0.0.1:{server.port}") as client:
        answer = await client.predict(b"\x01c", top_k=2, request_id="mine")
    assert answer.classes == (Classification("Bag", 1, 0.75), Classification("T-shirt/top", 0, pytest.approx(0.15)))
    assert (answer.label, answer.source, answer.degraded) == ("Bag", "COLLAGE", True)
    assert (answer.coded_confidence, answer.group_id, answer.cell) == (0.625, "group-1", 4)
    assert (answer.model_name, answer.model_version, answer.request_id) == ("fake", "0123456789ab", "mine")
    assert (answer.queue_s, answer.inference_s, answer.total_s) == (0.25, 0.5, 0.75)
    assert 0 < answer.latency_s < 60


async def test_pixels_travel_as_a_tensor_and_uncoded_answers_have_no_cell() -> None:
    service = FakePredictService()
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}") as client:
        answer = await client.predict(np.full((8, 8, 3), 2, np.uint8))
    assert list(service.requests[0].tensor.shape) == [8, 8, 3]
    assert (answer.label, answer.source, answer.degraded) == ("Coat", "S_CNN", False)
    assert answer.coded_confidence is None
    assert answer.cell is None


async def test_failures_carry_the_status_and_its_text() -> None:
    async with serving(FakePredictService()) as server, Client(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(ClientError, match=r"^INVALID_ARGUMENT: the image is empty: send") as invalid:
            await client.predict(b"")
        assert invalid.value.code is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(ClientError, match="in time") as late:
            await client.predict(b"\x00slow", timeout_s=0.05)
        assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await client.health() == "SERVING"
        assert await client.model() is None
        with pytest.raises(ClientError) as unknown:
            await client.health("no.such.Service")
        assert unknown.value.code is grpc.StatusCode.NOT_FOUND
    async with Client(NOBODY) as client:
        with pytest.raises(ClientError, match=f"nothing answers at {NOBODY}"):
            await client.predict(b"\x00")


class Busy(FakePredictService):
    """Refuses the first requests, and says when to come again."""

    def __init__(self, refusals: int, retry_after_s: float) -> None:
        super().__init__()
        self.refusals, self.retry_after_s = refusals, retry_after_s
        self.came: list[float] = []

    @boundary
    async def Predict(self, request: predict_pb2.PredictRequest, context: Any) -> predict_pb2.PredictResponse:
        self.came.append(asyncio.get_running_loop().time())
        if len(self.came) <= self.refusals:
            raise ResourceExhausted("the queue is full", self.retry_after_s)
        return await self._answer(request)


async def test_a_refused_request_comes_again_when_the_server_says_so() -> None:
    service = Busy(refusals=2, retry_after_s=0.3)
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}") as client:
        assert (await client.predict(b"\x01")).label == "Bag"
    first, second, third = service.came
    assert second - first >= 0.29
    assert third - second >= 0.29


class Leaving(FakePredictService):
    """Ends every stream after the first message, without an answer."""

    @boundary
    async def PredictStream(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        await anext(aiter(request_iterator))


async def test_a_stream_that_the_server_ends_breaks_and_takes_no_more_images() -> None:
    taken: list[str] = []

    async def endless() -> AsyncIterator[tuple[str, bytes]]:
        for number in itertools.count():
            taken.append(f"r{number}")
            yield f"r{number}", b"\x01"
            await asyncio.sleep(0.01)

    async def collect(client: Client, images: Any) -> None:
        async for _ in client.predict_stream(images):
            await asyncio.sleep(0.01)

    async with serving(Leaving()) as server, Client(f"127.0.0.1:{server.port}") as client:
        for images in ([("only", b"\x01")], endless()):
            with pytest.raises(ClientError, match="ended the stream") as caught:
                await collect(client, images)
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        before = len(taken)
        await asyncio.sleep(0.1)
        assert len(taken) == before


@pytest.mark.parametrize(("attempts", "came"), [(3, 3), (1, 1)])
async def test_retries_end(attempts: int, came: int) -> None:
    service = Busy(refusals=100, retry_after_s=0.02)
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}", attempts=attempts) as client:
        with pytest.raises(ClientError, match="RESOURCE_EXHAUSTED: the queue is full"):
            await client.predict(b"\x01")
    assert len(service.came) == came


async def test_retries_never_outlive_the_callers_time() -> None:
    service = Busy(refusals=100, retry_after_s=30.0)
    async with serving(service) as server, Client(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(ClientError):
            await client.predict(b"\x01", timeout_s=0.2)
    assert len(service.came) == 1


async def test_a_stream_yields_in_completion_order_and_survives_bad_images() -> None:
    images = [("late", b"\x02slow"), ("bad", b""), ("good", b"\x01")]
    async with serving(FakePredictService()) as server, Client(f"127.0.0.1:{server.port}") as client:
        results = [pair async for pair in client.predict_stream(images)]
    assert [request_id for request_id, _ in results] == ["bad", "good", "late"]
    assert isinstance(results[0][1], ClientError)
    assert results[0][1].code is grpc.StatusCode.INVALID_ARGUMENT
    labels = [result.label for _, result in results[1:] if isinstance(result, Prediction)]
    assert labels == ["Bag", "Coat"]


async def test_a_stream_takes_images_as_they_come_and_raises_what_their_source_raises() -> None:
    async def camera() -> AsyncIterator[tuple[str, bytes]]:
        yield "first", b"\x01"
        raise OSError("the camera is gone")

    async with serving(FakePredictService()) as server, Client(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(OSError, match="the camera is gone"):
            async for _ in client.predict_stream(camera()):
                pass
    async with Client(NOBODY) as client:
        with pytest.raises(ClientError, match="UNAVAILABLE"):
            async for _ in client.predict_stream([("a", b"\x00")]):
                pass


async def test_predict_prints_a_table(collage: Command) -> None:
    async with serving(FakePredictService()) as server:
        address = f"127.0.0.1:{server.port}"
        code, out, error = await collage("predict", "bag.png", "coat.png", "--top-k", "2", "--address", address)
    assert (code, error) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["file", "label", "probability", "source", "latency"]
    assert lines[1][:4] == ["bag.png", "Bag", "75.0%", "S_CNN"]
    assert lines[1][-1] == "ms"
    assert lines[2] == ["T-shirt/top", "15.0%"]
    assert lines[3][:6] == ["coat.png", "Coat", "75.0%", "COLLAGE", "(confidence", "0.62)"]


async def test_predict_prints_json_lines_with_errors_in_place(collage: Command) -> None:
    async with serving(FakePredictService()) as server:
        address = f"127.0.0.1:{server.port}"
        arguments = ("predict", "coat.png", "empty.png", "absent.png", "--json", "--address", address)
        code, out, error = await collage(*arguments)
    assert (code, error) == (1, "")
    coat, empty, absent = map(json.loads, out.splitlines())
    assert coat["file"] == "coat.png"
    assert coat["classes"] == [{"label": "Coat", "index": 2, "probability": 0.75}]
    assert (coat["source"], coat["coded_confidence"], coat["cell"]) == ("COLLAGE", 0.625, 4)
    assert empty["error"]["code"] == "INVALID_ARGUMENT"
    assert absent["error"] == {"code": "UNREADABLE", "message": "No such file or directory"}


async def test_errors_are_one_line_each_and_good_files_are_still_answered(collage: Command) -> None:
    async with serving(FakePredictService()) as server:
        arguments = ("bag.png", "empty.png", "absent.png", "--address", f"127.0.0.1:{server.port}")
        code, out, error = await collage("predict", *arguments)
    assert code == 1
    assert "Bag" in out
    assert error.splitlines() == [
        "collage: empty.png: INVALID_ARGUMENT: the image is empty: send the bytes of a JPEG, PNG, WebP or BMP file",
        "collage: absent.png: No such file or directory",
    ]


async def test_an_unreachable_server_is_reported_once(collage: Command) -> None:
    code, out, error = await collage("predict", "bag.png", "coat.png", "--address", NOBODY)
    assert (code, out) == (1, "")
    assert error.count("\n") == 1
    assert f"UNAVAILABLE: nothing answers at {NOBODY}" in error


@pytest.mark.parametrize("wrong", [[], ["x.png", "--timeout", "0"], ["x.png", "--top-k", "0"], ["x.png", "--no"]])
def test_wrong_usage_exits_with_2(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["predict", *wrong])
    assert stop.value.code == 2


async def test_health_shows_every_process_of_the_cluster_file(collage: Command, tmp_path: Path) -> None:
    async with serving(FakePredictService()) as frontend, serving(FakePredictService()) as worker:
        addresses = [f"127.0.0.1:{frontend.port}", f"127.0.0.1:{worker.port}"]
        processes = [
            {"role": role, "address": address, "metrics": f"http://{address}/metrics"}
            for role, address in zip(("frontend", "s-cnn"), addresses, strict=True)
        ]
        (tmp_path / "out").mkdir()
        (tmp_path / "out/cluster.json").write_text(json.dumps(processes))
        code, out, _ = await collage("health")
        assert code == 0
        assert [line.split()[:3] for line in out.splitlines()[1:]] == [
            ["frontend", addresses[0], "SERVING"],
            ["s-cnn", addresses[1], "SERVING"],
        ]
        assert f"http://{addresses[1]}/metrics" in out
        worker.set_serving(False)
        code, out, _ = await collage("health")
        assert code == 1
        assert out.count("NOT_SERVING") == 1
        code, out, _ = await collage("health", addresses[0], NOBODY)
        assert code == 1
        assert [line.split() for line in out.splitlines()[1:]] == [[addresses[0], "SERVING"], [NOBODY, "UNREACHABLE"]]


async def test_on_a_terminal_the_table_is_drawn_by_rich(tmp_path: Path) -> None:
    (tmp_path / "bag.png").write_bytes(b"\x01")
    controller, terminal = os.openpty()
    try:
        async with serving(FakePredictService()) as server:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "collage.cli", "predict", "bag.png", "--address", f"127.0.0.1:{server.port}",
                cwd=tmp_path, stdout=terminal, env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
            )  # fmt: skip
            assert await asyncio.wait_for(process.wait(), 60) == 0
        shown = os.read(controller, 65536).decode()
    finally:
        os.close(terminal)
        os.close(controller)
    assert "\x1b[1m" in shown
    assert "Bag" in shown


async def test_a_reader_who_leaves_early_is_no_error_to_report(tmp_path: Path) -> None:
    (tmp_path / "bag.png").write_bytes(b"\x01")
    ours, theirs = os.pipe()
    os.close(ours)  # as `| head` does when it has seen enough
    try:
        async with serving(FakePredictService()) as server:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "collage.cli", "predict", "bag.png", "--json"),
                *("--address", f"127.0.0.1:{server.port}"),
                cwd=tmp_path, stdout=theirs, stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONUNBUFFERED": ""},  # or it would be noticed by the first line already
            )  # fmt: skip
            _, said = await asyncio.wait_for(process.communicate(), 60)
    finally:
        os.close(theirs)
    assert (process.returncode, said) == (1, b"")
