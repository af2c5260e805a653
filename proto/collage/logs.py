"""How log messages look: text for people, or one JSON object a line for log collectors."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime


class TextFormatter(logging.Formatter):
    """Time, level, logger and message, and the request's id where there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line before any traceback."""
        request_id = getattr(record, "request_id", "")
        return super().formatMessage(record) + (f" [{request_id!r}]" if request_id else "")


class JsonFormatter(logging.Formatter):
    """Keys ``time`` (UTC, ISO 8601), ``level``, ``logger``, ``message``; if there is one ``request_id``, ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in the message or the traceback."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := getattr(record, "request_id", ""):
            entry["request_id"] = request_id
        if record.exc_info and record.exc_info[0]:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry)
