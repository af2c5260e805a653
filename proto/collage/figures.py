"""Figures are data: what a reporting command found, as ``out/<target>.json`` and ``out/<target>.jsonl``."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

OUT = Path("out")

Scalar = str | int | float | bool | None
Row = Mapping[str, Scalar]

MADE = ("command", "commit", "machine")
"""Columns that say what made a row."""


def write_figures(
    target: str, rows: Sequence[Row], records: Iterable[Row] | None = None, directory: Path = OUT
) -> Path:
    """Write ``rows`` and, line by line, the raw ``records``, if there are any.

    Rows and records are flat objects: seconds in ``*_s``, shares and accuracies from 0 to 1. Every row says which
    ``command`` of which ``commit`` made it on which ``machine``: this process, unless the row names another. Returns
    the path of ``<directory>/<target>.json``; the records lie beside it as ``<target>.jsonl``. Either file is replaced
    whole, and earlier records without successors are removed.
    """
    made: Row = {"command": command(), "commit": commit(), "machine": in_words(machine())}
    text = json.dumps({"rows": [{**row, **({} if "command" in row else made)} for row in rows]}, indent=2) + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{target}.json"
    beside = path.with_suffix(".jsonl")
    if records is None:
        beside.unlink(missing_ok=True)
    else:
        _replace(beside, (json.dumps(dict(record)) + "\n" for record in records))
    _replace(path, [text])
    return path


def read_figures(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of figures, each with its ``command``, ``commit`` and ``machine``.

    Files of earlier versions name them once for all rows that do not name their own. Raises OSError, or ValueError for
    a file that is not of this kind.
    """
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or "rows" not in content:
        raise ValueError(f"{path} holds no rows")
    made = {key: content[key] for key in MADE if key in content}
    if isinstance(made.get("machine"), dict):
        made["machine"] = in_words(made["machine"])
    rows = [{**made, **row} for row in content["rows"]]
    if nameless := next((row for row in rows if not all(row.get(key) for key in MADE)), None):
        raise ValueError(f"{path}: this row does not say what made it: {json.dumps(nameless)[:200]}")
    return rows


def interval(share: float, images: int) -> float:
    """Half the 95 % interval of a share of images that are right; share and result from 0 to 1.

    The image is the unit: an image that was sent again, or sits at another place of another collage, adds nothing.
    """
    return 1.96 * math.sqrt(share * (1 - share) / images)


def command() -> str:
    """The command line of this process, as one would type it."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def machine() -> dict[str, str | int]:
    """Processor, cores that this process may use, operating system, and versions that decide about speed."""
    versions: dict[str, str | int] = {"python": platform.python_version()}
    for package in ("numpy", "onnxruntime", "grpcio", "torch"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"cpu": _processor(), "cores": cores, "system": platform.platform(), **versions}


def in_words(machine: Mapping[str, str | int]) -> str:
    """A machine in one line: processor, cores, operating system, versions."""
    forms = {"cpu": "{}", "cores": "{} core" if machine.get("cores") == 1 else "{} cores", "system": "{}"}
    return ", ".join(forms.get(name, f"{name} {{}}").format(value) for name, value in machine.items())


def commit() -> str:
    """The checked-out git commit of this source tree, or "unknown"."""
    here = Path(__file__).parent
    try:
        asked = ["git", "rev-parse", "HEAD"]
        found = subprocess.run(asked, cwd=here, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _replace(path: Path, lines: Iterable[str]) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.writelines(lines)
    partial.replace(path)
