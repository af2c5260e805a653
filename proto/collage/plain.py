"""Classifiers of any origin: how they want their pixels, and what their scores are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collage.specs import brief, check_number

LAYOUTS = ("NHWC", "NCHW")
COLOURS = ("RGB", "BGR")
SCORES = ("logits", "probabilities")
_TYPES: Mapping[str, type[Any]] = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}
"""Types of inputs that can be fed, as ONNX Runtime names them."""
_LEAST_STD = 1e-6  # a thousandth of the least that makes sense: 1/255 for a model that takes 0 to 255
_LEAST_PROBABILITY = np.float32(1e-12)
_TOLERANCE = 1e-3  # of a sum of probabilities: some models compute in float16


@dataclass(frozen=True)
class PlainFormat:
    """What a description says of a graph's own input and scores; None where it says nothing.

    Raises ValueError for a value that makes no sense. A model takes (pixel / 255 - mean) / std of each channel.
    """

    mean: tuple[float, float, float] | None = None
    """From 0 to 1, in the order of ``colours``."""
    std: tuple[float, float, float] | None = None
    """Above 0, to 1, in the order of ``colours``."""
    scores: str | None = None
    """"logits" or "probabilities"; without it, logits."""
    layout: str | None = None
    """"NCHW" or "NHWC"; without it, that of the graph's input."""
    colours: str | None = None
    """"RGB" or "BGR", the order of the channels; without it, RGB."""

    def __post_init__(self) -> None:
        for name, least in (("mean", 0.0), ("std", _LEAST_STD)):
            values = getattr(self, name)
            if values is None:
                continue
            if not isinstance(values, list | tuple) or len(values) != 3:
                raise ValueError(f"{name} must be a list of three numbers, one per channel, not {brief(values)}")
            for value in values:
                check_number(f"{name}, in shares of 255,", value, least, 1)
            object.__setattr__(self, name, tuple(map(float, values)))
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: one of them is missing")
        for name, known in (("scores", SCORES), ("layout", LAYOUTS), ("colours", COLOURS)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(f"{name} must be {' or '.join(known)}, not {brief(value)}")

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> PlainFormat:
        """From the keys of a description."""
        return cls(**{name: content[name] for name in FORMAT_KEYS & content.keys()})

    @property
    def told(self) -> dict[str, Any]:
        """What the description says, by key."""
        return {name: value for name in sorted(FORMAT_KEYS) if (value := getattr(self, name)) is not None}


FORMAT_KEYS = frozenset(entry.name for entry in fields(PlainFormat))
"""Keys of a description that are about the graph's own input and scores."""


class PlainInput:
    """The one input of a graph: makes it from uint8 RGB ``[N, ..., size, size, 3]``, normalised as the format says.

    ``assumed`` lists, in words for the operator, what neither the graph nor the description says.
    """

    def __init__(self, told: PlainFormat, kind: str, shape: Sequence[Any], image: Sequence[int]) -> None:
        """``kind`` and ``shape`` are the graph's, as ONNX Runtime tells them; ``image`` is ``[..., size, size, 3]``.

        Raises ValueError if the graph cannot be fed.
        """
        dtype = _TYPES.get(kind)
        layouts = [name for name in LAYOUTS if dtype and _fits(shape, (1, *_extents(name, image)))]
        if not dtype or not layouts:
            able = " or ".join(f"[N, {', '.join(map(str, _extents(name, image)))}]" for name in LAYOUTS)
            raise ValueError(f"it needs one, uint8 or float32 {able}")
        if told.layout and told.layout not in layouts:
            raise ValueError(f"layout is {told.layout}, and the graph takes {layouts[0]}")
        self.assumed: list[str] = []
        whole = dtype is np.uint8
        self._dtype = np.dtype(dtype)
        self._first = (told.layout or layouts[0 if whole else -1]) == "NCHW"
        self._swapped = told.colours == "BGR"
        if whole and told.mean:
            raise ValueError("it takes uint8 pixels, so that nothing is normalised before it: leave out mean and std")
        if not whole and len(layouts) > 1 and not told.layout:
            self.assumed.append("the graph leaves its layout open: NCHW is assumed; give layout")
        if not whole and not told.mean:
            self.assumed.append(
                "the input is float and there is no mean and std: pixels are divided by 255 and not normalised; give "
                "mean and std (0, 0, 0 and 1, 1, 1 if that is right)"
            )
        self._scale: NDArray[np.float32] | None = None
        if not whole:
            mean, std = np.array(told.mean or (0, 0, 0)), np.array(told.std or (1, 1, 1))
            channels = (3, 1, 1) if self._first else (3,)
            self._scale = (1 / (255 * std)).astype(np.float32).reshape(channels)
            self._shift = (mean / std).astype(np.float32).reshape(channels)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """The graph's input for images, uint8 RGB ``[N, ..., size, size, 3]``; the same array if it takes that."""
        pixels: NDArray[Any] = images[..., ::-1] if self._swapped else images
        if self._first:
            pixels = np.moveaxis(pixels, -1, -3)
        if self._scale is None:
            return np.ascontiguousarray(pixels)
        values = pixels.astype(np.float32, order="C")
        values *= self._scale
        values -= self._shift
        return values.astype(self._dtype, copy=False)


def logarithm(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores of probabilities: their logarithm."""
    scores: NDArray[np.float32] = np.log(np.maximum(probabilities, _LEAST_PROBABILITY))
    return scores


def like_probabilities(values: NDArray[np.float32]) -> bool:
    """Whether a classifier's output for one image, ``[classes]``, could be probabilities."""
    return bool((values >= -_TOLERANCE).all() and abs(float(values.sum()) - 1) <= _TOLERANCE)


def _extents(layout: str, image: Sequence[int]) -> tuple[int, ...]:
    *apart, height, width, channels = image
    return (*apart, height, width, channels) if layout == "NHWC" else (*apart, channels, height, width)


def _fits(declared: Sequence[Any], shape: Sequence[int]) -> bool:
    """Whether a declared shape, in which strings and None stand for any extent, allows ``shape``."""
    return len(declared) == len(shape) and all(
        have == want or not isinstance(have, int) for have, want in zip(declared, shape, strict=True)
    )
