"""What a model says of itself: in its ONNX metadata, and on the wire."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from collage.v1 import worker_pb2

METADATA_KEY = "collage"


class ModelKind(StrEnum):
    """What a model is for."""

    S_CNN = "s-cnn"
    COLLAGE_CNN = "collage-cnn"
    PARITY = "parity"


_WIRE_KINDS = {
    ModelKind.S_CNN: worker_pb2.MODEL_KIND_S_CNN,
    ModelKind.COLLAGE_CNN: worker_pb2.MODEL_KIND_COLLAGE_CNN,
    ModelKind.PARITY: worker_pb2.MODEL_KIND_PARITY,
}


@dataclass(frozen=True)
class ModelInfo:
    """A model's description.

    ``size`` is the side of its square uint8 RGB input in pixels (of the whole collage for a collage-cnn), ``k`` the
    grid (1 for an s-cnn). ``detection_threshold`` and ``accept_threshold`` are shares from 0 to 1. ``version`` is made
    from the file's content when a worker loads it. ``extra`` holds what only people read: data, recipe, accuracy.
    """

    name: str
    kind: ModelKind
    labels: tuple[str, ...]
    size: int
    k: int = 1
    detection_threshold: float = 0.15
    accept_threshold: float = 1.0
    version: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text stored under ``METADATA_KEY`` in an ONNX file, or in a sidecar beside a plain one."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelInfo:
        """Parse ``to_json``; raises ValueError that names what is missing, unknown or wrong."""
        content = json.loads(text)
        known = {entry.name for entry in fields(cls)}
        if not isinstance(content, dict) or not {"name", "kind", "labels", "size"} <= content.keys() <= known:
            raise ValueError(
                "a model description is a JSON object with name, kind, labels, size "
                f"(known: {', '.join(sorted(known))})"
            )
        labels = content["labels"]
        if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
            raise ValueError("labels must be a list of class names in index order")
        for key in ("size", "k"):
            extent = content.get(key, 1)
            if not isinstance(extent, int) or extent < 1:
                raise ValueError(f"{key} must be a whole number of at least 1, not {extent!r}")
        if not isinstance(content.get("extra", {}), dict):
            raise ValueError("extra must be a JSON object")  # noqa: TRY004 - every mistake is a ValueError
        return cls(**{**content, "kind": ModelKind(content["kind"]), "labels": tuple(labels)})

    def to_proto(self) -> worker_pb2.GetModelInfoResponse:
        """The wire's form; ``extra`` stays behind."""
        return worker_pb2.GetModelInfoResponse(
            name=self.name,
            version=self.version,
            kind=_WIRE_KINDS[self.kind],
            labels=self.labels,
            size=self.size,
            k=self.k,
            detection_threshold=self.detection_threshold,
            accept_threshold=self.accept_threshold,
        )

    @classmethod
    def from_proto(cls, message: worker_pb2.GetModelInfoResponse) -> ModelInfo:
        """Read the wire's form; raises ValueError for an unknown kind."""
        kinds = {wire: kind for kind, wire in _WIRE_KINDS.items()}
        if message.kind not in kinds:
            raise ValueError(f"model {message.name!r} has an unknown kind ({message.kind})")
        return cls(
            name=message.name,
            version=message.version,
            kind=kinds[message.kind],
            labels=tuple(message.labels),
            size=message.size,
            k=message.k,
            detection_threshold=message.detection_threshold,
            accept_threshold=message.accept_threshold,
        )
