"""What servers write into their logs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from typing import Any

from collage.logs import JsonFormatter, TextFormatter


def formatted(formatter: logging.Formatter, message: str, **extra: Any) -> str:
    logger = logging.getLogger("collage.test")
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        failure = sys.exc_info()
    record = logger.makeRecord("collage.test", logging.ERROR, "file", 1, message, (), failure, extra=extra)
    return formatter.format(record)


def test_a_json_log_line_is_one_object_with_its_request_and_traceback() -> None:
    line = formatted(JsonFormatter(), 'odd "text"\n', request_id="r\n1")
    assert "\n" not in line
    entry = json.loads(line)
    assert {key: entry[key] for key in ("level", "logger", "message", "request_id")} == {
        **{"level": "ERROR", "logger": "collage.test", "message": 'odd "text"\n', "request_id": "r\n1"}
    }
    assert "RuntimeError: two\nlines" in entry["error"]
    assert datetime.fromisoformat(entry["time"]).tzinfo is not None


def test_a_text_log_line_shows_a_request_id_that_cannot_forge_lines() -> None:
    first, *_ = formatted(TextFormatter(), "odd", request_id="r1\nERROR forged").splitlines()
    assert first.endswith(r"ERROR collage.test: odd ['r1\nERROR forged']")
