"""What servers write into their logs, and that nobody waits for those who read them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from collage.logs import MAX_WAITING, DroppedLines, JsonFormatter, LineHandler, TextFormatter

FORGED = "odd\n2026-01-01 00:00:00,000 ERROR collage: forged\r\x1b[2J\u202e\udcff"
BOUND_S = 60


def record(message: str, failure: str = "", **extra: Any) -> logging.LogRecord:
    caught: Any = None
    try:
        raise RuntimeError(failure)
    except RuntimeError:
        caught = sys.exc_info() if failure else None
    return logging.getLogger("collage.test").makeRecord(
        "collage.test", logging.ERROR, "file", 1, message, (), caught, extra=extra
    )


def test_a_json_log_line_is_one_object_with_its_request_and_traceback() -> None:
    line = JsonFormatter().format(record('odd "text"', "two\nlines", request_id="r\n1"))
    assert "\n" not in line
    entry = json.loads(line)
    assert {key: entry[key] for key in ("level", "logger", "message", "request_id")} == {
        **{"level": "ERROR", "logger": "collage.test", "message": 'odd "text"', "request_id": "r\n1"}
    }
    assert "RuntimeError: two\nlines" in entry["error"]
    assert datetime.fromisoformat(entry["time"]).tzinfo is not None
    assert json.loads(JsonFormatter().format(record("x"))).keys() == {"time", "level", "logger", "message"}


def test_nothing_that_is_logged_can_forge_a_line_or_command_a_terminal() -> None:
    lines = TextFormatter().format(record(FORGED, FORGED, request_id=FORGED)).split("\n")
    shown = r"odd\n2026-01-01 00:00:00,000 ERROR collage: forged\r\x1b[2J\u202e\udcff"
    assert lines[0].endswith(f"ERROR collage.test: {shown} ['{shown}']")
    assert lines[1] == "  Traceback (most recent call last):"
    forged = ["  RuntimeError: odd", "  2026-01-01 00:00:00,000 ERROR collage: forged", r"  \x1b[2J\u202e\udcff"]
    assert lines[-3:] == forged  # indented
    assert all(line.startswith("  ") for line in lines[1:])
    assert all(character.isascii() for character in JsonFormatter().format(record(FORGED)))


@pytest.mark.parametrize("form", [TextFormatter(), JsonFormatter()])
def test_long_texts_are_cut(form: logging.Formatter) -> None:
    line = form.format(record("m" * 20_000_000, "t" * 20_000_000, request_id="i" * 20_000_000))
    assert "mmm... (20000000 characters)" in line
    assert "iii... (20000000 characters)" in line
    assert line.count("m") < 2100
    assert line.count("i") < 1000
    assert 10_000 < line.count("t") < 17_000


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def counted(handler: LineHandler) -> float | None:
    """What Prometheus gets to see while the handler is in use."""
    registry = CollectorRegistry()
    registry.register(DroppedLines())
    logging.getLogger().addHandler(handler)
    try:
        return registry.get_sample_value("collage_log_lines_dropped_total")
    finally:
        logging.getLogger().removeHandler(handler)


def fill(pipe: int) -> None:
    """Write empty lines until a pipe takes no more."""
    os.set_blocking(pipe, False)
    for size in (4096, 1):
        with suppress(BlockingIOError):
            while True:
                os.write(pipe, b"\n" * size)
    os.set_blocking(pipe, True)


def test_lines_that_nobody_reads_are_dropped_and_counted_and_told_of_later(pipe: tuple[int, int]) -> None:
    ours, theirs = pipe
    fill(theirs)
    handler = LineHandler(theirs)
    handler.setFormatter(TextFormatter())
    sent = MAX_WAITING + 500
    handler.handle(record("0 " + "x" * 1000))
    while not handler._waiting.empty():  # the thread takes it, and waits for a reader
        time.sleep(0)
    for number in range(1, sent):
        handler.handle(record(f"{number} " + "x" * 1000))
    dropped = handler.dropped
    assert 400 <= dropped < 500
    assert counted(handler) == dropped
    with os.fdopen(os.dup(ours)) as reader:
        lines = (line for line in iter(reader.readline, "") if line != "\n")
        read = [next(lines) for _ in range(sent - dropped + 1)]
    told = [line for line in read if "dropped" in line]
    assert len(told) == 1
    assert told[0].endswith(
        f"WARNING collage: {dropped} log messages were dropped: nobody read standard error in time\n"
    )
    assert [line.split()[4] for line in read if line not in told] == [str(number) for number in range(sent - dropped)]


def test_lines_for_a_reader_who_has_left_are_counted(pipe: tuple[int, int]) -> None:
    ours, theirs = pipe
    os.close(ours)
    handler = LineHandler(theirs)
    handler.setFormatter(TextFormatter())
    for _ in range(3):
        handler.handle(record("x"))
    handler.flush()
    assert handler.dropped == 3


PROGRAM = """
import logging, sys, warnings
from collage import logs
logs.start("INFO", sys.argv[1])
for number in range(int(sys.argv[2])):
    logging.getLogger("collage").info("line %d", number)
warnings.warn("careful\\nnow")
"""


def program(*arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-W", "always", "-c", PROGRAM, *arguments], **streams)


def test_the_end_waits_for_the_last_lines_and_warnings_are_messages() -> None:
    with program("json", "200", stderr=subprocess.PIPE) as running:
        _, said = running.communicate(timeout=BOUND_S)
    entries = [json.loads(line) for line in said.splitlines()]
    assert [entry["message"] for entry in entries[:-1]] == [f"line {number}" for number in range(200)]
    assert (entries[-1]["logger"], entries[-1]["level"]) == ("py.warnings", "WARNING")
    assert "UserWarning: careful\nnow" in entries[-1]["message"]
    assert running.returncode == 0


def test_a_process_ends_although_nobody_reads_its_log(pipe: tuple[int, int]) -> None:
    with program("text", "20000", stderr=pipe[1]) as running:
        assert running.wait(BOUND_S) == 0


def test_a_process_without_standard_error_logs_nowhere() -> None:
    code = f"import os, sys; os.close(2); os.execv(sys.executable, [sys.executable, '-c', {PROGRAM!r}, 'text', '10'])"
    assert subprocess.run([sys.executable, "-c", code], timeout=BOUND_S, check=False).returncode == 0
