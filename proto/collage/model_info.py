"""What a model says of itself: in its ONNX metadata, in a sidecar, and on the wire."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collage.plain import FORMAT_KEYS, PlainFormat
from collage.specs import (
    DTYPES,
    MAX_K,
    brief,
    check_errors,
    check_labels,
    check_number,
    check_text,
    check_whole,
    code_from_json,
    code_from_proto,
    errors_from_json,
    errors_from_proto,
    errors_to_proto,
    input_shape,
    parse,
    shown,
    spec_from_proto,
    spec_to_proto,
)
from collage.specs import CodeInfo as CodeInfo
from collage.specs import ErrorRate as ErrorRate
from collage.specs import TensorSpec as TensorSpec
from collage.v1 import model_pb2

METADATA_KEY = "collage"
CLASSIFICATION, LOCALISATION = "classification", "localisation"
MAX_SIZE = 8192
MAX_LABELS = 65536
MAX_DETECTIONS, MAX_OVERLAPS = 16384, 1 << 20
"""Detections in one answer, and overlaps of detections with cells: more would keep a frontend busy."""
ANSWER_EXTRA_BYTES = 8192
"""What an answer may have beside its numbers: times, shapes, or the text of an error."""
_TOLERANCE = 1e-2  # of probabilities, in their sum and at their ends: models compute in float32, some in less


class ModelKind(StrEnum):
    """The part that a model plays."""

    S_CNN = "s-cnn"
    COLLAGE_CNN = "collage-cnn"
    PARITY = "parity"


_WIRE_KINDS = {
    ModelKind.S_CNN: model_pb2.MODEL_KIND_S_CNN,
    ModelKind.COLLAGE_CNN: model_pb2.MODEL_KIND_COLLAGE_CNN,
    ModelKind.PARITY: model_pb2.MODEL_KIND_PARITY,
}
_WIRE_TASKS = {
    CLASSIFICATION: model_pb2.MODEL_TASK_CLASSIFICATION,
    LOCALISATION: model_pb2.MODEL_TASK_LOCALISATION,
}


@dataclass(frozen=True)
class ModelInfo:
    """A model's description. Raises ValueError where values are out of bounds or contradict each other.

    ``input`` and ``outputs`` describe one call, without a batch dimension: uint8 RGB ``[size, size, 3]`` in, one for
    each member if its code is ``stacked``; out come what model.proto lists for its kind and task. ``labels`` are empty
    for a localiser. ``code`` says how a redundant model's input is made; None for an s-cnn. ``accept_threshold`` is a
    share from 0 to 1; ``errors`` say what coded answers cost by their confidence, empty if nobody measured it.
    ``version`` is made from the file's content when a worker loads it; ``provider``, which runs it there, tells no
    models apart. ``plain`` is what the graph takes and gives where that differs; it and ``extra`` (data, recipe,
    accuracy, for people) stay off the wire.
    """

    name: str
    kind: ModelKind
    labels: tuple[str, ...]
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    task: str = CLASSIFICATION
    code: CodeInfo | None = None
    accept_threshold: float = 1.0
    errors: tuple[ErrorRate, ...] = ()
    version: str = ""
    provider: str = field(default="", compare=False)
    plain: PlainFormat = field(default_factory=PlainFormat)
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        name: str,
        kind: ModelKind,
        labels: Sequence[str],
        size: int,
        *,
        task: str = CLASSIFICATION,
        code: CodeInfo | None = None,
        **others: Any,
    ) -> ModelInfo:
        """A description with the usual input and outputs of its kind and task."""
        check_whole("size", size, 1, MAX_SIZE)
        image = TensorSpec("collage" if kind is ModelKind.COLLAGE_CNN else "image", "uint8", input_shape(size, code))
        outputs = usual_outputs(kind, task, len(labels), code)
        return cls(name, kind, tuple(labels), image, outputs, task=task, code=code, **others)

    @classmethod
    def collage(
        cls, name: str, labels: Sequence[str], size: int, k: int, detection_threshold: float = 0.15, **others: Any
    ) -> ModelInfo:
        """The description of a collage-cnn for ``k`` x ``k`` cells in ``size`` pixels."""
        check_whole("k", k, 1, MAX_K)
        code = CodeInfo("collage", k * k, k=k, detection_threshold=detection_threshold)
        return cls.make(name, ModelKind.COLLAGE_CNN, labels, size, code=code, **others)

    def __post_init__(self) -> None:
        check_text("name", self.name, 256)
        check_text("version", self.version, 64, least=0)
        check_text("provider", self.provider, 64, least=0)
        check_number("accept_threshold", self.accept_threshold, 0, 1)
        check_errors(self.errors)
        check_labels(self.labels)
        if not isinstance(self.extra, dict):
            raise ValueError("extra must be a JSON object")  # noqa: TRY004 - every mistake is a ValueError
        if self.task not in list(_WIRE_TASKS):
            raise ValueError(f"task must be {CLASSIFICATION} or {LOCALISATION}, not {brief(self.task)}")
        if self.task == LOCALISATION and (self.labels or self.kind is ModelKind.COLLAGE_CNN):
            raise ValueError("a localiser has no labels, and a collage-cnn is none")
        if self.kind is not ModelKind.S_CNN and self.code is None:
            raise ValueError(f"a {self.kind} model needs a code")
        if self.kind is ModelKind.COLLAGE_CNN and not (self.code and self.code.k):
            raise ValueError("a collage-cnn needs k, the number of cells in a row")
        size = self.size if len(self.input.shape) > 2 else 0
        if self.input.dtype != "uint8" or size < 1 or self.input.shape != input_shape(size, self.code):
            wanted = str(input_shape(0, self.code)).replace("0, 0", "size, size").strip("()")
            raise ValueError(f"the input must be uint8 [{wanted}], not {self.input.dtype} {list(self.input.shape)}")
        check_whole("size", size, 1, MAX_SIZE)
        usual = usual_outputs(self.kind, self.task, len(self.labels), self.code)
        for spec, like in zip(self.outputs, usual, strict=False):
            if spec.dtype != like.dtype or not like.allows(spec.shape):
                raise ValueError(f"{shown(spec)} does not go with {len(self.labels)} labels: expected {shown(like)}")
        if len(self.outputs) != len(usual):
            raise ValueError(f"a {self.kind} model has {len(usual)} outputs, not {len(self.outputs)}")
        if self.kind is ModelKind.COLLAGE_CNN:
            told = {spec.shape[0] for spec in self.outputs} - {-1}
            if len(told) > 1:
                raise ValueError("boxes, confidences and class probabilities differ in their number of detections")
            if told and max(told) > self.most_detections:
                raise ValueError(f"{max(told)} detections are too many: at most {self.most_detections} in one collage")

    @property
    def size(self) -> int:
        """Side of the input image in pixels; of the whole collage for a collage-cnn."""
        return self.input.shape[-2]

    @property
    def k(self) -> int:
        """The collage's number of cells in a row; 1 for a model that takes no collage."""
        return self.code.k if self.code and self.code.k else 1

    @property
    def detection_threshold(self) -> float:
        """Detections of less confidence (0 to 1) are ignored; the usual threshold for a model that detects nothing."""
        return self.code.detection_threshold if self.code else CodeInfo.detection_threshold

    @property
    def gives_probabilities(self) -> bool:
        """Whether the graph's scores are probabilities, of which the logarithm is to be taken."""
        return (self.kind, self.task, self.plain.scores) == (ModelKind.S_CNN, CLASSIFICATION, "probabilities")

    @property
    def most_detections(self) -> int:
        """How many detections an answer may have."""
        return min(MAX_DETECTIONS, MAX_OVERLAPS // self.k**2)

    @property
    def answer_bytes(self) -> int:
        """Most bytes that an answer of this model can need on the wire."""
        extents = ([self.most_detections if extent == -1 else extent for extent in spec.shape] for spec in self.outputs)
        return ANSWER_EXTRA_BYTES + sum(4 * math.prod(each) for each in extents)

    def problem(self, outputs: Sequence[NDArray[Any]]) -> str | None:
        """What keeps a worker's outputs from being this model's; None if nothing does.

        All numbers must be finite, but scores may be minus infinity as long as one of them is not; class probabilities
        must sum to 1, and these and confidences lie between 0 and 1.
        """
        if len(outputs) != len(self.outputs):
            return f"there are {len(outputs)} outputs instead of {len(self.outputs)}"
        for output, spec in zip(outputs, self.outputs, strict=True):
            if output.dtype != DTYPES[spec.dtype] or not (output.shape == spec.shape or spec.allows(output.shape)):
                return f"{spec.name} is {output.dtype} {list(output.shape)} instead of {shown(spec)}"
        if self.kind is ModelKind.COLLAGE_CNN:
            if len(outputs[0]) > self.most_detections:
                return f"there are {len(outputs[0])} detections: at most {self.most_detections} make sense"
            return _detections_problem(*outputs)
        if self.task == CLASSIFICATION:
            scores = outputs[0]  # usually of one dimension, for which there is a way that takes a seventh of the time
            known = math.isfinite(scores[scores.argmax()]) if scores.ndim == 1 else np.isfinite(scores.max(-1)).all()
            return None if known else "a score is no number, or all are minus infinity"
        return None if np.isfinite(outputs[0]).all() else "a side of the box is no finite number"

    def to_json(self) -> str:
        """The text stored under ``METADATA_KEY`` in an ONNX file, or in a sidecar beside a plain one.

        Without the names of inputs and outputs, which the graph tells. A code that is no plain collage has the key
        ``code``, a task that is no classification the key ``task``.
        """
        code = self.code
        content: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "labels": self.labels,
            "size": self.size,
            "accept_threshold": self.accept_threshold,
            "version": self.version,
            "extra": self.extra,
        }
        if code is None or code.k:
            content["k"] = self.k
            content["detection_threshold"] = self.detection_threshold
        if code and (not code.k or code.base):
            content["code"] = asdict(code)
        if self.task != CLASSIFICATION:
            content["task"] = self.task
        if self.errors:
            content["errors"] = [asdict(rate) for rate in self.errors]
        content |= self.plain.told
        return json.dumps(content, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelInfo:
        """Parse ``to_json``; raises ValueError that names what is missing, unknown or wrong."""
        return cls.from_content(parse(text))

    @classmethod
    def from_content(cls, content: object) -> ModelInfo:
        """From what ``parse`` gives; raises ValueError that names what is missing, unknown or wrong."""
        if not isinstance(content, dict) or not _REQUIRED <= content.keys() <= _KNOWN:
            raise ValueError(
                "a model description is a JSON object with name, kind, labels, size "
                f"(known: {', '.join(sorted(_KNOWN))})"
            )
        labels, kind = content["labels"], content["kind"]
        if not isinstance(labels, list):
            raise ValueError("labels must be a list of class names in index order")  # noqa: TRY004 - as all mistakes
        if kind not in list(ModelKind):
            raise ValueError(f"kind must be {', '.join(ModelKind)}, not {brief(kind)}")
        others = {key: content[key] for key in ("task", "accept_threshold", "version", "extra") if key in content}
        others |= {
            "errors": errors_from_json(content.get("errors", [])),
            "code": code_from_json(content, collage=kind == ModelKind.COLLAGE_CNN),
            "plain": PlainFormat.of(content),
        }
        return cls.make(content["name"], ModelKind(kind), labels, content["size"], **others)

    def to_proto(self) -> model_pb2.GetModelInfoResponse:
        """The wire's form; ``plain`` and ``extra`` stay behind."""
        message = model_pb2.GetModelInfoResponse(
            name=self.name,
            version=self.version,
            provider=self.provider,
            kind=_WIRE_KINDS[self.kind],
            task=_WIRE_TASKS[self.task],
            labels=self.labels,
            input=spec_to_proto(self.input),
            outputs=[spec_to_proto(spec) for spec in self.outputs],
            accept_threshold=self.accept_threshold,
            errors=errors_to_proto(self.errors),
        )
        if self.code:
            message.code.CopyFrom(model_pb2.Code(**asdict(self.code)))
        return message

    @classmethod
    def from_proto(cls, message: model_pb2.GetModelInfoResponse) -> ModelInfo:
        """Read the wire's form; raises ValueError that names what is wrong."""
        kinds = {wire: kind for kind, wire in _WIRE_KINDS.items()}
        tasks = {wire: task for task, wire in _WIRE_TASKS.items()}
        if message.kind not in kinds:
            raise ValueError(f"model {brief(message.name)} has an unknown kind ({message.kind})")
        if message.task not in tasks:
            raise ValueError(f"model {brief(message.name)} has an unknown task ({message.task})")
        return cls(
            name=message.name,
            version=message.version,
            provider=message.provider,
            kind=kinds[message.kind],
            task=tasks[message.task],
            labels=tuple(message.labels),
            input=spec_from_proto(message.input),
            outputs=tuple(map(spec_from_proto, message.outputs)),
            code=code_from_proto(message.code) if message.HasField("code") else None,
            accept_threshold=message.accept_threshold,
            errors=errors_from_proto(message.errors),
        )


_REQUIRED = {"name", "kind", "labels", "size"}
_KNOWN = (
    _REQUIRED
    | FORMAT_KEYS
    | {"k", "detection_threshold", "accept_threshold", "errors", "version", "extra", "task", "code"}
)


def usual_outputs(kind: ModelKind, task: str, labels: int, code: CodeInfo | None) -> tuple[TensorSpec, ...]:
    """The outputs of a model of this kind, task, number of labels and code, in the order of the wire.

    Raises ValueError for a classifier without labels, or with too many.
    """
    if task == CLASSIFICATION and not 1 <= labels <= MAX_LABELS:
        raise ValueError(f"labels must be a list of 1 to {MAX_LABELS} class names, not of {labels}")
    if kind is ModelKind.COLLAGE_CNN:
        return (
            TensorSpec("boxes", "float32", (-1, 4)),
            TensorSpec("confidences", "float32", (-1,)),
            TensorSpec("class_probabilities", "float32", (-1, labels)),
        )
    rows = (code.members,) if code and code.heads else ()
    if task == LOCALISATION:
        return (TensorSpec("box", "float32", (*rows, 4)),)
    return (TensorSpec("scores", "float32", (*rows, labels)),)


def _detections_problem(
    boxes: NDArray[np.float32], confidences: NDArray[np.float32], probabilities: NDArray[np.float32]
) -> str | None:
    if not len(boxes) == len(confidences) == len(probabilities):
        return f"there are {len(boxes)} boxes, {len(confidences)} confidences and {len(probabilities)} rows of classes"
    if not len(boxes):
        return None
    if not np.isfinite(boxes).all():
        return "a side of a box is no finite number"
    if not -_TOLERANCE <= confidences.min() <= confidences.max() <= 1 + _TOLERANCE:  # also catches NaN
        return "a confidence is not from 0 to 1"
    if not -_TOLERANCE <= probabilities.min() <= probabilities.max() <= 1 + _TOLERANCE:
        return "a class probability is not from 0 to 1"
    if np.abs(probabilities.sum(-1) - 1).max() > _TOLERANCE:
        return "the class probabilities of a detection do not sum to 1"
    return None
