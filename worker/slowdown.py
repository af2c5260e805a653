"""Injected slowness for experiments: how long a call's inference takes at least.

Every source is the inverse of a distribution function, fed with a hash instead of a random number: a draw depends on
the seed, the request and its attempt only, so that all policies under comparison meet the same stragglers. In a
``mixture`` it depends on the time as well, so that they do not, draw by draw.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger("collage.worker")

COLLAGE_FACTOR = 0.9
"""A collage-cnn is about 10 % faster than the s-cnn it protects (Collage inference, section 5.5)."""
MOVES_EVERY_S = 30.0
"""How long a worker of the mixture stays slow before the slowness moves on; not scaled."""
SLOW_IN = 50
"""One of this number of workers is slow at a time, and at least one: figure 2 has one slow machine among 50."""

Quantiles = Callable[[float], float]
"""The inverse of a distribution function: seconds that a share (0 to 1) of draws stays within."""

_UNUSABLE = (OSError, ValueError, TypeError, KeyError, EOFError)
"""What a specification raises, or the file that it names."""


class SlowdownError(ValueError):
    """A specification of slowness that cannot be used; the message is one line for the operator."""


class Slowdown:
    """Draws of injected service times, in seconds.

    ``specification`` is one of

    - ``off``, ``fixed:SECONDS``
    - ``quantiles:FILE``: JSON ``{"quantiles": [[p, seconds], ...]}``, interpolated linearly
    - ``trace:FILE.npy``: float32 seconds, drawn independently; ``trace:FILE.npy#START-END`` from a slice, END excluded
    - ``bimodal:FAST,SLOW,SHARE``: a SHARE of draws around SLOW seconds, the others around FAST, each within 10 %
    - ``spikes:USUAL,SLOW,SHARE``: USUAL seconds, and SLOW seconds for a SHARE of draws
    - ``uniform:LEAST,MOST``; ``exponential:MEAN``; ``lognormal:MEDIAN,SIGMA``
    - ``pareto:LEAST,SHAPE``: a heavy tail, from LEAST seconds on
    - ``persistent:FILE#INDEX/COUNT``: worker INDEX of COUNT (from 0) plays one machine all the time; the file's ``vms``
      (``{"shares": [p, ...], "seconds": [[...], ...]}``, the slow machine first) are spread evenly over the workers
    - ``switch:FILE``: what the file specifies, read again whenever it changes; ``off`` if there is none
    - ``mixture:FILE#INDEX/COUNT``: draws as with ``quantiles``, but one worker in 50 (at least one) plays the slow
      machine instead, the next one every 30 seconds of the workers' clock (of real ones, the machine's uptime), which
      ``scale`` does not shorten; so all have been slow for as long when all have had their turn
    - ``transfers:USUAL,EXTRA,LONGEST,EVERY,SHARE#INDEX/COUNT``: around USUAL seconds, within 10 %; while a worker moves
      data to or from another one, an exponential time of mean EXTRA more. A SHARE of the workers is paired at random,
      other ones EVERY so many seconds; a pair moves data for half of LONGEST to LONGEST seconds (128 to 256 MB, as
      ParM's background load). ``scale`` does not shorten these times
    """

    def __init__(self, specification: str = "off", seed: int = 0, scale: float = 1.0) -> None:
        """``scale`` multiplies every draw, and no other time. Raises SlowdownError for anything unusable."""
        self.enabled = specification != "off"
        self._seed = seed
        self._scale = scale
        self._slow: Quantiles | None = None  # while a worker is slow
        self._slow_at: Callable[[float], bool] = lambda at: False
        self._switch: Path | None = None
        self._stamp: object = None  # of the switch's file, when it was read last
        source, _, argument = specification.partition(":")
        try:
            if source == "switch":
                self._switch = Path(argument)
                self._usual = _parse("off")
            elif source == "mixture":
                file, index, count = _one_of(argument)
                self._usual, self._slow = _table(file), _machines(file)[0]
                self._slow_at = _in_turn(index, count, first=int(count * _uniform(seed, "slow", 0)))
            elif source == "transfers":
                numbers, index, count = _one_of(argument)
                usual, extra, longest, every, share = _numbers(numbers, 5)
                self._usual = _interpolation([0, 1], [0.9 * usual, 1.1 * usual])
                self._slow = lambda share: self._usual(share) - extra * math.log1p(-share)
                self._slow_at = _moving_data(index, count, share, longest, every, seed)
            else:
                self._usual = _parse(specification)
        except _UNUSABLE as error:
            raise SlowdownError(f"slowdown {specification!r} cannot be used: {error}") from None

    @classmethod
    def sampled(cls, latencies: NDArray[np.float64], seed: int = 0, scale: float = 1.0) -> Slowdown:
        """Independent draws from measured ``latencies``, in seconds, float ``[n]``; raises ValueError for bad ones."""
        slowdown = cls(seed=seed, scale=scale)
        slowdown.enabled, slowdown._usual = True, _sampled(_durations(latencies))
        return slowdown

    def draw(self, request_id: str, attempt: int, at: float = 0.0) -> float:
        """Seconds that this attempt takes at least if it is started at ``at``, by any clock that all workers share.

        0 when off. The time matters to ``mixture`` and ``transfers`` only.
        """
        if self._switch:
            self._look_at(self._switch)
        quantiles = self._slow if self._slow and self._slow_at(at) else self._usual
        return self._scale * quantiles(_uniform(self._seed, request_id, attempt))

    def _look_at(self, switch: Path) -> None:
        try:
            told = switch.stat()
            stamp = told.st_mtime_ns, told.st_size, told.st_ino
            specification = switch.read_text().strip() if stamp != self._stamp else None
        except OSError:
            stamp, specification = None, "off"
        self._stamp = stamp
        if specification is not None:
            try:
                self._usual = _parse(specification)
            except _UNUSABLE as error:
                logger.warning("%s specifies no slowness, the last one stays: %s", switch, error)


def _in_turn(index: int, count: int, first: int) -> Callable[[float], bool]:
    """Whether it is the turn of worker ``index`` to be the slow one, of whom ``first`` is when the clock starts."""
    many = max(1, count // SLOW_IN)
    return lambda at: (index - first - many * int(at / MOVES_EVERY_S)) % count < many


def _moving_data(
    index: int, count: int, share: float, longest: float, every: float, seed: int
) -> Callable[[float], bool]:
    """Whether worker ``index`` moves data: the pairs of a turn do not all begin at once, but evenly within it."""
    if not (share <= 1 and 0 < longest <= every):
        raise ValueError("SHARE must be at most 1, and LONGEST above 0 and at most EVERY")
    pairs = round(share * count / 2)

    def moving(at: float) -> bool:
        turns = at / every
        for turn in (int(turns), int(turns) - 1):
            begins, lasts = _transfers(seed, turn, pairs, count).get(index, (0.0, 0.0))
            if 0 <= turns - turn - begins < lasts * longest / every:
                return True
        return False

    return moving


@functools.lru_cache(maxsize=64)
def _transfers(seed: int, turn: int, pairs: int, count: int) -> Mapping[int, tuple[float, float]]:
    """Workers that are paired in a turn: when each begins to move data, in turns, and for which share of LONGEST."""
    random = np.random.default_rng((seed, turn + 1))
    workers = random.permutation(count)[: 2 * pairs].tolist()
    lengths = random.uniform(0.5, 1.0, pairs).tolist()
    return {worker: (place // 2 / pairs, lengths[place // 2]) for place, worker in enumerate(workers)}


def _uniform(seed: int, request_id: str, attempt: int) -> float:
    """A number in [0, 1) by a hash that is the same in every process and release."""
    digest = hashlib.blake2b(f"{seed}\n{attempt}\n{request_id}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53  # 53 bits: all that a float can hold


def _parse(specification: str) -> Quantiles:
    source, _, argument = specification.partition(":")
    match source:
        case "off" if not argument:
            return lambda share: 0.0
        case "fixed":
            (seconds,) = _numbers(argument, 1)
            return lambda share: seconds
        case "quantiles":
            return _table(argument)
        case "trace":
            return _sampled(_trace(argument))
        case "bimodal":
            fast, slow, slow_share = _numbers(argument, 3)
            if slow_share > 1 or slow < fast:
                raise ValueError("SHARE must be at most 1, and SLOW not below FAST")
            shares = [0, 1 - slow_share, 1 - slow_share, 1]
            return _interpolation(shares, [0.9 * fast, 1.1 * fast, 0.9 * slow, 1.1 * slow])
        case "spikes":
            usual, slow, slow_share = _numbers(argument, 3)
            if slow_share > 1:
                raise ValueError("SHARE must be at most 1")
            return lambda share: slow if share >= 1 - slow_share else usual
        case "uniform":
            least, most = _numbers(argument, 2)
            if most < least:
                raise ValueError("MOST must not be below LEAST")
            return _interpolation([0, 1], [least, most])
        case "exponential":
            (mean,) = _numbers(argument, 1)
            return lambda share: -mean * math.log1p(-share)
        case "lognormal":
            median, sigma = _numbers(argument, 2)
            normal = NormalDist().inv_cdf
            return lambda share: median * math.exp(sigma * normal(max(share, 2.0**-53)))
        case "pareto":
            least, shape = _numbers(argument, 2)
            power = -1 / shape if shape else -math.inf
            if not math.isfinite(power):
                raise ValueError("its SHAPE must be above 0")
            return lambda share: float(least * (1 - share) ** power)
        case "persistent":
            file, index, count = _one_of(argument)
            machines = _machines(file)
            return machines[index * len(machines) // count]
        case _:
            raise ValueError(
                "it is none of off, fixed:SECONDS, quantiles:FILE.json, trace:FILE.npy, trace:FILE.npy#START-END, "
                "bimodal:FAST,SLOW,SHARE, spikes:USUAL,SLOW,SHARE, uniform:LEAST,MOST, exponential:MEAN, "
                "lognormal:MEDIAN,SIGMA, pareto:LEAST,SHAPE, persistent:FILE.json#INDEX/COUNT, "
                "mixture:FILE.json#INDEX/COUNT, transfers:USUAL,EXTRA,LONGEST,EVERY,SHARE#INDEX/COUNT, switch:FILE"
            )


def _numbers(argument: str, count: int) -> list[float]:
    numbers = [float(number) for number in argument.split(",")]
    if len(numbers) != count:
        raise ValueError(f"{count} numbers are needed")
    return [float(number) for number in _durations(np.array(numbers))]


def _one_of(argument: str) -> tuple[str, int, int]:
    file, _, place = argument.rpartition("#")
    index, _, count = place.partition("/")
    if not file or not 0 <= int(index) < int(count):
        raise ValueError("FILE.json#INDEX/COUNT is needed, with INDEX from 0 to COUNT - 1")
    return file, int(index), int(count)


def _sampled(latencies: NDArray[np.float64]) -> Quantiles:
    count = len(latencies)
    return lambda share: float(latencies[int(share * count)])


def _interpolation(shares: list[float], seconds: list[float]) -> Quantiles:
    """Like np.interp, which takes several times as long for one number."""
    last = len(shares) - 1

    def quantile(share: float) -> float:
        right = bisect_right(shares, share)
        if right == 0 or right > last:
            return seconds[0 if right == 0 else last]
        left = right - 1
        part = (share - shares[left]) / (shares[right] - shares[left])
        return seconds[left] + part * (seconds[right] - seconds[left])

    return quantile


@functools.cache
def _content(file: str) -> dict[str, Any]:
    content = json.loads(Path(file).read_text())
    return content if isinstance(content, dict) else {}


@functools.cache
def _table(file: str) -> Quantiles:
    """The quantile table of a file, which may hold other keys beside it."""
    table = np.array(_content(file).get("quantiles", ()), np.float64)
    if table.ndim != 2 or table.shape[1] != 2:
        raise ValueError('it is not JSON of the form {"quantiles": [[p, seconds], ...]}')
    return _checked(table[:, 0], table[:, 1])


@functools.cache
def _machines(file: str) -> list[Quantiles]:
    """Quantile functions of single machines, the slow one first."""
    machines = _content(file).get("vms", {})
    shares, seconds = np.array(machines.get("shares", ()), float), np.array(machines.get("seconds", ()), float)
    if shares.ndim != 1 or seconds.ndim != 2 or len(shares) != seconds.shape[1]:
        raise ValueError('it is not JSON of the form {"vms": {"shares": [p, ...], "seconds": [[...], ...]}}')
    return [_checked(shares, row) for row in seconds]


def _checked(shares: NDArray[np.float64], seconds: NDArray[np.float64]) -> Quantiles:
    if not (shares.min() >= 0 and shares.max() <= 1 and (np.diff(shares) > 0).all() and (np.diff(seconds) >= 0).all()):
        raise ValueError("p must rise within 0 to 1, and seconds must not fall")
    return _interpolation(shares.tolist(), _durations(seconds).tolist())


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
