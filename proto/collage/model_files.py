"""Files of models: an ONNX file with the data beside it, its description, and the version that all of them make."""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from collage.model_info import METADATA_KEY, ModelInfo
from collage.specs import parse

_LOCATION = re.compile(rb"\x0a\x08location\x12")
"""In a tensor of an ONNX file, what comes before the name of the file that holds its data: its length, and itself."""


def sidecar(path: Path) -> Path:
    """Where a description may lie beside an ONNX file."""
    return path.with_name(path.name + ".json")


def describe(path: Path, metadata: Mapping[str, str]) -> ModelInfo:
    """The description of an ONNX file with this metadata, and with its version.

    What a sidecar says comes in the place of what the metadata says, key by key, and so within ``extra``. Raises
    FileNotFoundError where there is neither, OSError for what cannot be read, and ValueError that names what is wrong.
    """
    beside = sidecar(path)
    content: object = parse(metadata[METADATA_KEY]) if metadata.get(METADATA_KEY) else {}
    if not content or beside.exists():
        content = _completed(content, parse(beside.read_text("utf-8")))
    return replace(ModelInfo.from_content(content), version=version(path))


def version(path: Path) -> str:
    """Made from all that decides about a model's answers: the file, the data beside it, and its sidecar; 12 digits."""
    whole = _digest(path)
    others = [*sorted(data_files(path)), *([sidecar(path)] if sidecar(path).exists() else [])]
    if not others:
        return whole.hexdigest()[:12]
    parts = [whole.digest(), *(_digest(other).digest() for other in others)]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def _completed(content: object, others: object) -> object:
    if not isinstance(content, dict) or not isinstance(others, dict):
        return others  # which is refused
    extra, more = content.get("extra"), others.get("extra")
    both = {"extra": {**extra, **more}} if isinstance(extra, dict) and isinstance(more, dict) else {}
    return {**content, **others, **both}


def data_files(path: Path) -> set[Path]:
    """The files that hold tensors of the graph, which its tensors name."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return {found for name in _names(content) if (found := _beside(path, name))}


def _names(content: mmap.mmap) -> Iterator[bytes]:
    # Searched for instead of parsed: that would take the onnx package, or all of the file in memory. A stray match in a
    # tensor's own bytes does no harm unless it names a file beside the model.
    for match in _LOCATION.finditer(content):
        at = match.end() + 1
        length = int.from_bytes(content[at - 1 : at])
        if length > 127:  # of two bytes
            length += 128 * (int.from_bytes(content[at : at + 1]) - 1)
            at += 1
        yield content[at : at + length]


def _beside(path: Path, name: bytes) -> Path | None:
    try:
        found = path.parent / name.decode()
        return found if found.is_file() else None
    except (ValueError, OSError):  # no text, or no name of a file
        return None


def _digest(path: Path) -> hashlib._Hash:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")
