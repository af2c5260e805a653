"""Figures are data: what a reporting command found, as ``out/<target>.json`` and ``out/<target>.jsonl``."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

OUT = Path("out")

Scalar = str | int | float | bool | None
Row = Mapping[str, Scalar]


def write_figures(target: str, rows: Sequence[Row], records: Iterable[Row] = (), directory: Path = OUT) -> Path:
    """Write ``rows`` with the command, machine and commit that made them, and the raw ``records`` line by line.

    Rows and records are flat objects: seconds in ``*_s``, shares and accuracies from 0 to 1. Returns the path of
    ``<directory>/<target>.json``; the records lie beside it as ``<target>.jsonl``. Either file is replaced whole.
    """
    content = {"command": command(), "machine": machine(), "commit": commit(), "rows": [dict(row) for row in rows]}
    text = json.dumps(content, indent=2) + "\n"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{target}.json"
    _replace(path.with_suffix(".jsonl"), (json.dumps(dict(record)) + "\n" for record in records))
    _replace(path, [text])
    return path


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
