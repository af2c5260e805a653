"""Commands and programs in the documents: what a reader may copy into a shell or into Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("docs/results/README.md"),
        *ROOT.glob("examples/*.md"),
        *ROOT.glob("proto/*.md"),
    )
)
PROGRAMS = r"make(?! = )|python3?|pip|pytest|pre-commit|kubectl|kind|docker|collage|buf|promtool|sh|chrt|h2load"
_START = re.compile(rf"(\. \.venv|([A-Z_]+=\S* )*(\.venv\S*/bin/)?({PROGRAMS})\s+\S)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def commands(page: Path) -> Iterator[str]:
    """Every command of a page: lines of its sh blocks, and code between backticks that starts with a program."""
    text = page.read_text()
    for language, block in _FENCE.findall(text):
        if language in {"sh", "bash", "shell", "console"}:
            for line in block.replace("\\\n", " ").splitlines():
                if command := _plain(line):
                    yield command
    for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", _FENCE.sub("", text)):
        command = _plain(code)
        if _START.match(command):
            yield command


def usage(example: Path) -> str:
    """How an example is called, from its first lines."""
    (command,) = re.findall(r"^.*?: ((?:python|sh) examples/\S+.*?)(?:\"\"\")?$", example.read_text(), re.M)
    return _plain(command)


def programs(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return [block for language, block in _FENCE.findall(page.read_text()) if language == "python"]


def _plain(line: str) -> str:
    """A command without its comment and without more than one space in a row."""
    return " ".join(re.sub(r"(^|\s)#.*", "", line).split())
