"""Texts of others, made fit to be shown: in logs, on terminals, in errors."""

from __future__ import annotations


def cut(text: str, most: int) -> str:
    """The first ``most`` characters, and how many there were if that is not all of them."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def printable(text: str) -> str:
    """The text on one line, with escapes for all that a terminal would obey or could not show."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
