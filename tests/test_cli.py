"""The ``collage`` command against a fake frontend on a real port."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from collage.cli import main
from collage.errors import boundary
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


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["x.png", "--no"],
        *(["x.png", "--timeout", wrong] for wrong in ("0", "-1", "nan", "inf", "1e300")),
        *(["x.png", "--top-k", wrong] for wrong in ("0", "4294967296", "1.5")),
    ],
)
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


FOREIGN = ("T\x1b[31m/top\nx\u202e", "B\x1b]0;owned\x07", "Größe 靴")


class Foreign(FakePredictService):
    """Answers labels that command a terminal, or that it cannot show."""

    @boundary
    async def Predict(self, request: predict_pb2.PredictRequest, context: Any) -> predict_pb2.PredictResponse:
        response = await self._answer(request)
        for found in response.classes:
            found.label = FOREIGN[found.index]
        return response


async def running(
    command: Sequence[str | bytes],
    folder: Path,
    output: int | None = None,
    error: int | None = None,
    **environment: str,
) -> tuple[int | None, bytes, bytes]:
    """The command in a process of its own: exit code, and what it wrote to pipes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "collage.cli", *command, cwd=folder,
        stdout=asyncio.subprocess.PIPE if output is None else output,
        stderr=asyncio.subprocess.PIPE if error is None else error,
        env={**os.environ, **environment},
    )  # fmt: skip
    out, said = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out or b"", said or b""


async def test_no_label_and_no_file_name_commands_the_terminal(tmp_path: Path) -> None:
    odd = b"odd\x1b[2J\n\xff.png"
    (tmp_path / os.fsdecode(odd)).write_bytes(b"\x00")
    async with serving(Foreign()) as server:
        to = ("--address", f"127.0.0.1:{server.port}")
        code, out, _ = await running(["predict", odd, "--top-k", "3", *to], tmp_path)
        _, _, said = await running(["predict", b"absent\x1b[2J\n\xff.png", *to], tmp_path)
        _, json_out, _ = await running(["predict", odd, "--json", "--top-k", "3", *to], tmp_path)
    assert code == 0
    rows = [line.split() for line in out.decode().splitlines()]
    assert rows[1][:3] == [r"odd\x1b[2J\n\udcff.png", r"T\x1b[31m/top\nx\u202e", "75.0%"]
    assert rows[2:] == [[r"B\x1b]0;owned\x07", "15.0%"], ["Größe", "靴", "10.0%"]]
    assert said == rb"collage: absent\x1b[2J\n\udcff.png: No such file or directory" + b"\n"
    assert [found["label"] for found in json.loads(json_out)["classes"]] == list(FOREIGN)
    assert json_out.isascii()


async def test_a_label_that_the_output_cannot_show_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "boot.png").write_bytes(b"\x02")
    async with serving(Foreign()) as server:
        command = ["predict", "boot.png", "--address", f"127.0.0.1:{server.port}"]
        code, out, said = await running(command, tmp_path, PYTHONIOENCODING="ascii")
    assert (code, said) == (0, b"")
    assert rb"Gr\xf6\xdfe \u9774" in out


@pytest.mark.parametrize("command", ["predict", "health"])
async def test_an_output_that_cannot_be_written_to_is_told(tmp_path: Path, command: str) -> None:
    (tmp_path / "bag.png").write_bytes(b"\x01")
    async with serving(FakePredictService()) as server:
        address = f"127.0.0.1:{server.port}"
        given = ["predict", "bag.png", "--address", address] if command == "predict" else ["health", address]
        full = os.open("/dev/full", os.O_WRONLY)
        try:
            code, _, said = await running(given, tmp_path, full)
            assert (code, said) == (1, b"collage: standard output cannot be written to: No space left on device\n")
            code, out, _ = await running(["predict", "absent.png", "--address", address], tmp_path, None, full)
            assert (code, out) == (1, b"")
        finally:
            os.close(full)


@pytest.mark.parametrize(("closed", "code"), [(1, 0), (2, 1)])
async def test_the_command_needs_no_open_streams(tmp_path: Path, closed: int, code: int) -> None:
    (tmp_path / "bag.png").write_bytes(b"\x01")
    file = "bag.png" if code == 0 else "absent.png"
    async with serving(FakePredictService()) as server:
        script = f"import os, sys; os.close({closed}); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, "-m", "collage.cli", "predict", file,
            "--address", f"127.0.0.1:{server.port}", cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        written = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, *written) == (code, b"", b"")  # an error is no line of the table


@pytest.mark.parametrize(
    "content", ["[1", "{}", "[5]", '[{"role": "x", "address": 5, "metrics": ""}]', '[{"role": "x"}]']
)
async def test_a_broken_cluster_file_is_told_in_one_line(collage: Command, tmp_path: Path, content: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/cluster.json").write_text(content)
    code, out, error = await collage("health")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert error.startswith("collage: out/cluster.json cannot be used: ")


async def test_a_file_without_end_and_what_is_no_address_are_told_in_one_line(collage: Command) -> None:
    code, _, error = await collage("predict", "/dev/zero", "--address", NOBODY)
    assert (code, error.count("\n")) == (1, 1)
    assert "/dev/zero: INVALID_ARGUMENT: the image is too large for a message" in error
    for command in (("predict", "bag.png", "--address", ""), ("health", "http://host:1")):
        code, out, error = await collage(*command)
        assert code == 1
        assert "INVALID_ARGUMENT: an address is host:port" in out + error


async def test_a_token_that_cannot_be_sent_is_wrong_usage(collage: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLAGE_TOKEN", "schlüssel\n")
    code, out, error = await collage("predict", "bag.png", "--address", NOBODY)
    assert (code, out, error) == (2, "", "collage: a token is a text of printable ASCII characters\n")
