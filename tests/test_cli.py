"""The ``collage`` command against a fake frontend on a real port."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from collage.cli import main
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
