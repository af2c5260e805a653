"""Injected slowness for experiments: how long a call's inference takes at least.

Every source is the inverse of a distribution function, fed with a hash instead of a random number: a draw depends on
the seed, the request and its attempt only, so that all policies under comparison meet the same stragglers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

COLLAGE_FACTOR = 0.9
"""A collage-cnn is about 10 % faster than the s-cnn it protects (Collage inference, section 5.5)."""


class SlowdownError(ValueError):
    """A specification of slowness that cannot be used; the message is one line for the operator."""


class Slowdown:
    """Draws of injected service times, in seconds.

    ``specification`` is ``off``, ``fixed:SECONDS``, ``quantiles:FILE`` (JSON ``{"quantiles": [[p, seconds], ...]}``,
    interpolated linearly), ``trace:FILE.npy`` (float32 seconds, drawn independently) or ``trace:FILE.npy#START-END``
    (from a slice of it, END excluded).
    """

    def __init__(self, specification: str = "off", seed: int = 0, scale: float = 1.0) -> None:
        """``scale`` multiplies every draw. Raises SlowdownError for anything unusable."""
        self.enabled = specification != "off"
        self._seconds_at = _parse(specification)
        self._seed = seed
        self._scale = scale

    def draw(self, request_id: str, attempt: int) -> float:
        """Seconds that this attempt takes at least; 0 when off."""
        return self._scale * self._seconds_at(_uniform(self._seed, request_id, attempt))


def _uniform(seed: int, request_id: str, attempt: int) -> float:
    """A number in [0, 1) by a hash that is the same in every process and release."""
    digest = hashlib.blake2b(f"{seed}\n{attempt}\n{request_id}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53  # 53 bits: all that a float can hold


def _parse(specification: str) -> Callable[[float], float]:
    source, _, argument = specification.partition(":")
    try:
        match source:
            case "off" if not argument:
                return lambda share: 0.0
            case "fixed":
                seconds = float(_durations(np.array([float(argument)]))[0])
                return lambda share: seconds
            case "quantiles":
                shares, values = _table(Path(argument))
                return lambda share: float(np.interp(share, shares, values))
            case "trace":
                trace = _trace(argument)
                return lambda share: float(trace[int(share * len(trace))])
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise SlowdownError(f"slowdown {specification!r} cannot be used: {error}") from None
    raise SlowdownError(
        f"slowdown {specification!r} is none of off, fixed:SECONDS, quantiles:FILE.json, trace:FILE.npy, "
        "trace:FILE.npy#START-END"
    )


def _table(file: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares and seconds of a quantile table; the file may hold other keys beside it."""
    content = json.loads(file.read_text())
    table = np.array(content.get("quantiles", ()) if isinstance(content, dict) else (), np.float64)
    if table.ndim != 2 or table.shape[1] != 2:
        raise ValueError('it is not JSON of the form {"quantiles": [[p, seconds], ...]}')
    shares, values = table.T
    if not (shares.min() >= 0 and shares.max() <= 1 and (np.diff(shares) > 0).all() and (np.diff(values) >= 0).all()):
        raise ValueError("p must rise within 0 to 1, and seconds must not fall")
    return shares, _durations(values)


def _trace(argument: str) -> NDArray[np.float64]:
    file, _, part = argument.partition("#")
    trace = np.load(file, allow_pickle=False)
    if not isinstance(trace, np.ndarray) or trace.ndim != 1:
        raise ValueError("it is not a one-dimensional array")
    if part:
        start, _, end = part.partition("-")
        if not 0 <= int(start) < int(end) <= len(trace):
            raise ValueError(f"{part} is not a slice of its {len(trace)} values")
        trace = trace[int(start) : int(end)]
    return _durations(trace.astype(np.float64))


def _durations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(values) or not np.isfinite(values).all() or values.min() < 0:
        raise ValueError("seconds must be finite and not negative, and there must be some")
    return values
