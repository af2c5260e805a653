"""Parts of a model's description: its tensors and its code, with bounds on every value."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from collage.v1 import model_pb2, tensor_pb2

MAX_MEMBERS = 4096
MAX_K = 16
MAX_LABEL = 1024
WIRE_TYPES = {"uint8": tensor_pb2.DATA_TYPE_UINT8, "float32": tensor_pb2.DATA_TYPE_FLOAT32}
DTYPES = {name: np.dtype(name) for name in WIRE_TYPES}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of one call, without a batch dimension. Raises ValueError where a value is out of bounds.

    ``dtype`` is uint8 or float32. In ``shape``, -1 stands for an extent that may differ from call to call.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        check_text("a tensor's name", self.name, 256)
        if self.dtype not in WIRE_TYPES:
            raise ValueError(f"the type of tensor {self.name!r} must be uint8 or float32, not {self.dtype!r}")
        if len(self.shape) > 8:
            raise ValueError(f"tensor {self.name!r} has {len(self.shape)} dimensions: at most 8 are allowed")
        for extent in self.shape:
            if extent != -1:
                check_whole(f"an extent of tensor {self.name!r}", extent, 1, 1 << 24)

    def allows(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape is as described."""
        return len(shape) == len(self.shape) and all(
            want in (-1, have) for want, have in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class CodeInfo:
    """The code that a redundant model takes part in. Raises ValueError where a value is out of bounds.

    Fields: N ``members`` are protected together by r ``inputs``, of which this model takes number ``row`` (from 0).
    ``k``: a collage has k x k cells; 0 for other codes. ``weights``: what every member weighs in this model's input;
    empty for codes without weights. ``detection_threshold``: detections of less confidence (0 to 1) are ignored
    (collages). ``base``: version of the base model that decoded answers stand in for; empty for any with the same
    labels.
    """

    name: str
    members: int
    inputs: int = 1
    row: int = 0
    k: int = 0
    weights: tuple[float, ...] = ()
    detection_threshold: float = 0.15
    base: str = ""

    def __post_init__(self) -> None:
        check_text("the code's name", self.name, 64)
        check_whole("k", self.k, 0, MAX_K)
        check_whole("the code's members", self.members, 1, MAX_MEMBERS)
        check_whole("the code's inputs", self.inputs, 1, 64)
        check_whole("the code's row", self.row, 0, self.inputs - 1)
        if self.k and (self.members, self.inputs) != (self.k**2, 1):
            raise ValueError(f"a collage of {self.k} x {self.k} cells has {self.k**2} members and 1 input")
        if len(self.weights) not in (0, self.members):
            raise ValueError(f"the code needs {self.members} weights, one per member, or none: not {len(self.weights)}")
        for weight in self.weights:
            check_number("a weight of the code", weight, -1e6, 1e6)
        check_number("detection_threshold", self.detection_threshold, 0, 1)
        check_text("the code's base", self.base, 64, least=0)


def spec_to_proto(spec: TensorSpec) -> model_pb2.TensorSpec:
    """The wire's form."""
    return model_pb2.TensorSpec(name=spec.name, data_type=WIRE_TYPES[spec.dtype], shape=spec.shape)


def spec_from_proto(message: model_pb2.TensorSpec) -> TensorSpec:
    """Read the wire's form; raises ValueError that names what is wrong."""
    dtypes = {wire: dtype for dtype, wire in WIRE_TYPES.items()}
    if message.data_type not in dtypes:
        raise ValueError(f"tensor {brief(message.name)} has an unknown data type ({message.data_type})")
    return TensorSpec(message.name, dtypes[message.data_type], tuple(message.shape))


def shown(spec: TensorSpec) -> str:
    """A tensor's name, type and shape, for messages."""
    return f"{spec.name} {spec.dtype} [{', '.join('any' if extent == -1 else str(extent) for extent in spec.shape)}]"


def parse(text: str) -> object:
    """JSON, with or without a byte order mark; raises ValueError."""
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def check_text(what: str, value: object, most: int, least: int = 1) -> None:
    """Raise ValueError unless this is one line of text that is neither too short nor too long."""
    if not isinstance(value, str) or not least <= len(value) <= most or not value.isprintable():
        raise ValueError(f"{what} must be one line of {least} to {most} characters, not {brief(value)}")


def check_labels(labels: Sequence[object]) -> None:
    """Raise ValueError unless these are class names that can be sent, none of them too long."""
    if not all(isinstance(label, str) and len(label) <= MAX_LABEL for label in labels):
        raise ValueError(f"labels must be a list of class names in index order, of at most {MAX_LABEL} characters each")
    try:
        "".join(map(str, labels)).encode()
    except UnicodeEncodeError:
        raise ValueError(
            "labels must be a list of class names, and one of these is no text (half a surrogate)"
        ) from None


def check_whole(what: str, value: object, least: int, most: int) -> None:
    """Raise ValueError unless this is a whole number from ``least`` to ``most``."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{what} must be a whole number from {least} to {most}, not {brief(value)}")


def check_number(what: str, value: object, least: float, most: float) -> None:
    """Raise ValueError unless this is a finite number from ``least`` to ``most``."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:  # refuses NaN
        raise ValueError(f"{what} must be a number from {least:g} to {most:g}, not {brief(value)}")


def brief(value: object) -> str:
    """A value for a message of one line, at most 80 characters of it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
