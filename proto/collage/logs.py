"""Log messages: text for people, or one JSON object a line for log collectors. No writer of logs waits for a reader."""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from collage.texts import cut, printable

MAX_MESSAGE = 2048
MAX_ID = 128
MAX_TRACEBACK = 16 * 1024
"""Longest message, request id and traceback logged, in characters: others may have written them."""
MAX_WAITING = 1024
"""Lines that may wait to be written."""
LAST_S = 1.0
"""Seconds that the lines still waiting may take when the process ends."""


def _parts(record: logging.LogRecord) -> tuple[str, str, str]:
    """Message, request id and traceback, each empty if there is none."""
    trace = logging.Formatter().formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
    request_id = str(getattr(record, "request_id", ""))
    return cut(record.getMessage().rstrip(), MAX_MESSAGE), cut(request_id, MAX_ID), cut(trace, MAX_TRACEBACK)


class TextFormatter(logging.Formatter):
    """Time, level, logger and message, and the request's id where there is one; tracebacks are indented.

    A line that is not indented is a message, and begins with our time: nothing that is logged can forge one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The message on one line, and a line for each one of the traceback."""
        message, request_id, trace = _parts(record)
        line = f"{self.formatTime(record)} {record.levelname} {record.name}: {printable(message)}"
        if request_id:
            line += f" [{request_id!r}]"
        return "\n".join([line, *("  " + printable(each) for each in trace.splitlines())])


class JsonFormatter(logging.Formatter):
    """Keys ``time`` (UTC, ISO 8601), ``level``, ``logger``, ``message``; if there is one ``request_id``, ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in the message or the traceback."""
        message, request_id, trace = _parts(record)
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": message,
        }
        if request_id:
            entry["request_id"] = request_id
        if trace:
            entry["error"] = trace
        return json.dumps(entry)


class LineHandler(logging.Handler):
    """Writes lines to a file descriptor on a thread of its own.

    If nobody reads them, at most ``MAX_WAITING`` wait, and further ones are dropped and counted. The descriptor is
    written to directly: a thread that waits for a reader holds no lock that the end of the process needs.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._refused = self._unread = 0  # each counted by one thread
        self._waiting: queue.Queue[str | threading.Event] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return self._refused + self._unread

    def emit(self, record: logging.LogRecord) -> None:
        """Hand over one line."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="log", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(self.format(record))
        except queue.Full:
            self._refused += 1
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait until all lines are written, for ``LAST_S`` at most."""
        written = threading.Event()
        if self._thread is not None:
            with suppress(queue.Full):
                self._waiting.put(written, timeout=LAST_S)
                written.wait(LAST_S)

    def _write(self) -> None:
        told = 0
        while True:
            line = self._waiting.get()
            if isinstance(line, threading.Event):
                line.set()
                continue
            if (dropped := self.dropped) > told:
                line = self.format(_dropped(dropped - told)) + "\n" + line
                told = dropped
            try:
                _write_all(self._descriptor, line.encode(errors="backslashreplace") + b"\n")
            except OSError:  # the reader is gone
                self._unread += 1


def _dropped(count: int) -> logging.LogRecord:
    text = "%d log messages were dropped: nobody read standard error in time"
    return logging.LogRecord("collage", logging.WARNING, __file__, 0, text, (count,), None)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


class DroppedLines(Collector):
    """Counts for Prometheus the lines that this process has dropped."""

    def collect(self) -> Iterable[Metric]:
        """See docs/metrics.md."""
        handlers = logging.getLogger().handlers
        dropped = sum(handler.dropped for handler in handlers if isinstance(handler, LineHandler))
        text = "Log messages dropped because nobody read standard error in time"
        yield CounterMetricFamily("collage_log_lines_dropped", text, dropped)


def start(level: str, form: str) -> None:
    """Log to standard error what is at least of this level, Python's warnings included, as ``text`` or ``json``."""
    handler: logging.Handler = logging.NullHandler()
    if sys.stderr is not None:  # or the number 2 may belong to another file by now
        handler = LineHandler(2)
        handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler])
    logging.captureWarnings(True)
