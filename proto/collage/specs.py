"""Parts of a model's description: its tensors and its code, with bounds on every value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from collage.v1 import model_pb2, tensor_pb2

MAX_MEMBERS = 4096
MAX_K = 16
MAX_LABEL = 1024
MAX_KEY = 7
MAX_WHOLE = 16
"""Members of a code whose models take or give something for each of them."""
MAX_ERROR_RATES = 64
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
    labels. ``heads``: the model gives an output for every member, ``[members, m]``. ``stacked``: it takes the members'
    inputs whole, ``[members, size, size, 3]``. ``keys``: how every member's image is turned in this model's input, 0 to
    7 as model.proto says; empty if none is.
    """

    name: str
    members: int
    inputs: int = 1
    row: int = 0
    k: int = 0
    weights: tuple[float, ...] = ()
    detection_threshold: float = 0.15
    base: str = ""
    heads: bool = False
    stacked: bool = False
    keys: tuple[int, ...] = ()

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
        if len(self.keys) not in (0, self.members):
            raise ValueError(f"the code needs {self.members} keys, one per member, or none: not {len(self.keys)}")
        for key in self.keys:
            check_whole("a key of the code", key, 0, MAX_KEY)
        for flag in ("heads", "stacked"):
            if not isinstance(getattr(self, flag), bool):
                raise ValueError(f"the code's {flag} must be true or false, not {brief(getattr(self, flag))}")  # noqa: TRY004 - every mistake is a ValueError
        if self.heads or self.stacked:
            check_whole("the members of a code with heads, or stacked,", self.members, 1, MAX_WHOLE)
        check_number("detection_threshold", self.detection_threshold, 0, 1)
        check_text("the code's base", self.base, 64, least=0)


@dataclass(frozen=True)
class ErrorRate:
    """The cost of coded answers from a ``confidence`` on; shares from 0 to 1. ValueError where one is out of bounds.

    ``errors``: answers that are wrong beyond the s-cnn's own, with their ``standard_error`` over images. ``differs``:
    answers that are not the s-cnn's.
    """

    confidence: float
    errors: float
    standard_error: float
    differs: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_number(f"{name} of an error rate", value, 0, 1)


def input_shape(size: int, code: CodeInfo | None) -> tuple[int, ...]:
    """The shape of a model's input: one image, or one of each member."""
    image = (size, size, 3)
    return (code.members, *image) if code and code.stacked else image


def check_errors(rates: Sequence[ErrorRate]) -> None:
    """Raise ValueError unless confidences rise from 0 on, with errors that do not, or there are none."""
    rising = all(one.confidence < other.confidence and one.errors >= other.errors for one, other in pairwise(rates))
    if len(rates) > MAX_ERROR_RATES or not rising or (rates and rates[0].confidence):
        raise ValueError(
            f"errors must be a list of at most {MAX_ERROR_RATES} whose confidences rise from 0 on, and errors do not"
        )


def code_from_json(content: Mapping[str, Any], *, collage: bool) -> CodeInfo | None:
    """The code of a description: what its key ``code`` says, else the collage that ``k`` and the threshold say.

    ``collage``: it is that of a collage-cnn. Raises ValueError that says what is wrong.
    """
    k, threshold = content.get("k", 1), content.get("detection_threshold", CodeInfo.detection_threshold)
    check_whole("k", k, 1, MAX_K)
    check_number("detection_threshold", threshold, 0, 1)
    if not collage and k != 1:
        raise ValueError(f"k is for collage-cnns: a {content['kind']} has none")
    if "code" not in content:
        return CodeInfo("collage", k * k, k=k, detection_threshold=threshold) if collage else None
    told, known = content["code"], {entry.name for entry in fields(CodeInfo)}
    if not isinstance(told, dict) or not {"name", "members"} <= told.keys() <= known:
        raise ValueError(f"code must be a JSON object with name, members (known: {', '.join(sorted(known))})")
    lists = {name: told.get(name, []) for name in ("weights", "keys")}
    for name, value in lists.items():
        if not isinstance(value, list):
            raise ValueError(f"the code's {name} must be a list of numbers")  # noqa: TRY004 - every mistake is a ValueError
    code = CodeInfo(**{**told, **{name: tuple(value) for name, value in lists.items()}})
    if "k" in content and collage and code.k != k:
        raise ValueError(f"k is {k}, and the code's k is {code.k}")
    return code


def code_from_proto(message: model_pb2.Code) -> CodeInfo:
    """Read the wire's form; raises ValueError that says what is wrong."""
    told = {entry.name: getattr(message, entry.name) for entry in fields(CodeInfo)}
    return CodeInfo(**{**told, "weights": tuple(told["weights"]), "keys": tuple(told["keys"])})


def errors_from_json(told: object) -> tuple[ErrorRate, ...]:
    """Parse a list of JSON objects; raises ValueError that says what is wrong."""
    known = {entry.name for entry in fields(ErrorRate)}
    if not isinstance(told, list) or not all(isinstance(rate, dict) and rate.keys() == known for rate in told):
        raise ValueError(f"errors must be a list of JSON objects with {', '.join(sorted(known))}")
    return tuple(ErrorRate(**rate) for rate in told)


def errors_to_proto(rates: Sequence[ErrorRate]) -> list[model_pb2.ErrorRate]:
    """The wire's form."""
    return [model_pb2.ErrorRate(**asdict(rate)) for rate in rates]


def errors_from_proto(messages: Iterable[model_pb2.ErrorRate]) -> tuple[ErrorRate, ...]:
    """Read the wire's form; raises ValueError that says what is wrong."""
    return tuple(ErrorRate(rate.confidence, rate.errors, rate.standard_error, rate.differs) for rate in messages)


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
