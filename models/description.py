"""The description in a model's file: the one place where ``models`` makes, reads and writes it. Needs no torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime

from collage.model_files import describe as describe_file
from collage.model_info import CLASSIFICATION, METADATA_KEY, CodeInfo, ModelInfo, ModelKind
from encoder.collage import CollageCode
from encoder.grid import Grid


def describe(
    name: str,
    kind: str,
    labels: Sequence[str],
    size: int,
    k: int,
    extra: Mapping[str, Any],
    accept: float = 1.0,
    code: CodeInfo | None = None,
    task: str = CLASSIFICATION,
) -> ModelInfo:
    """A new model's description; ``k`` is the grid of a collage-cnn, ``accept`` its threshold.

    ``code`` is that of a parity model. A localiser has no labels.
    """
    if ModelKind(kind) is ModelKind.COLLAGE_CNN:
        return ModelInfo.collage(name, labels, size, k, accept_threshold=accept, extra=dict(extra))
    others: dict[str, Any] = {"task": task, "code": code, "accept_threshold": accept, "extra": dict(extra)}
    return ModelInfo.make(name, ModelKind(kind), labels, size, **others)


def read(metadata: Mapping[str, str], origin: Path | None) -> ModelInfo:
    """The description in a file's metadata, and in the sidecar if it is a file; ValueError if there is none."""
    try:
        return describe_file(origin, metadata) if origin else ModelInfo.from_json(metadata[METADATA_KEY])
    except (FileNotFoundError, KeyError):
        raise ValueError(f"{origin or 'the model'} does not describe itself: export it") from None


def entry(info: ModelInfo) -> dict[str, str]:
    """The metadata that holds a description."""
    return {METADATA_KEY: info.to_json()}


def code_of(info: ModelInfo) -> CollageCode:
    """The code of a collage-cnn, as a frontend makes it."""
    return CollageCode(Grid(info.k, info.size), info.detection_threshold)


def of_file(path: Path) -> ModelInfo:
    """The description of an ONNX file, and of its sidecar; ValueError if there is none, or ONNX Runtime's own error."""
    return read(onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map, path)


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m models.description FILE.onnx`` prints what a fleet of another make is to be described by."""
    parser = argparse.ArgumentParser(
        prog="python -m models.description",
        description="Print the description of a model, for a fleet of another make.",
    )
    parser.add_argument("model", type=Path, help="ONNX file that describes itself, or has its description beside it")
    parser.add_argument("--name", help="the model's name in the fleet, if it is another one")
    args = parser.parse_args(argv)
    try:
        info = of_file(args.model)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        print(f"{parser.prog}: {(str(error) or type(error).__name__).splitlines()[0]}", file=sys.stderr)
        return 2
    print(replace(info, name=args.name or info.name, version="", extra={}).to_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
