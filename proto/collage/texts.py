"""Texts of others, made fit to be shown in logs, on terminals, in errors; and streams that nobody reads."""

from __future__ import annotations

import os
from typing import TextIO


def cut(text: str, most: int) -> str:
    """The first ``most`` characters, and how many there were if that is not all of them."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def within(text: str, most: int) -> str:
    """The beginning of a text, at most ``most`` bytes of UTF-8."""
    return text if 4 * len(text) <= most else text.encode(errors="replace")[:most].decode(errors="ignore")


def printable(text: str) -> str:
    """The text on one line, with escapes for all that a terminal would obey or could not show."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def discard(stream: TextIO) -> None:
    """Let what a standard stream still holds go nowhere, or the process would fail when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
