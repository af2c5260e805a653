"""What a cluster has to cope with: regimes of slowness, worker failures, and arrivals."""

from __future__ import annotations

import csv
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.offer.latency import LATENCY_TABLE
from worker.slowdown import Slowdown

Seconds = NDArray[np.float64]

FAILS_EVERY_S, DOWN_S = 200.0, 5.0  # of one worker, on average


@dataclass(frozen=True)
class Outage:
    """Worker ``index`` (from 0) crashes ``at`` and is back at ``until``, in seconds since the warm-up ended.

    Or it is ``frozen`` in between: it neither answers nor hangs up, and then goes on.
    """

    at: float
    until: float
    index: int
    frozen: bool = False


@dataclass(frozen=True)
class Regime:
    """How slow workers are, and whether they fail.

    ``specification`` is the ``--slowdown`` of real workers, where ``{index}`` and ``{count}`` stand for the worker's
    place among all, s-cnn workers first; ``latencies`` (seconds, float64 ``[n]``) are drawn from instead, if given.
    """

    name: str
    specification: str = ""
    latencies: Seconds | None = None
    failing: bool = False

    def flags(self, index: int, count: int, seed: int) -> tuple[str, ...]:
        """Flags that make a real worker draw what ``slowdown`` draws."""
        specification = self.specification.format(index=index, count=count)
        return "--slowdown", specification, "--slowdown-seed", str(seed)

    def slowdown(self, index: int, count: int, seed: int, scale: float = 1.0) -> Slowdown:
        """The draws of worker ``index`` of ``count``; ``scale`` is 0.9 for a collage worker."""
        if self.latencies is not None:
            return Slowdown.sampled(self.latencies, seed, scale)
        return Slowdown(self.specification.format(index=index, count=count), seed, scale)

    @functools.cached_property
    def sample(self) -> Seconds:
        """Latencies in seconds, evenly from 50 workers and over time, float64 ``[20,000]``."""
        workers = [self.slowdown(index, 50, 0) for index in range(50)]
        places = zip(range(20_000), itertools.cycle(workers), strict=False)
        return np.array([worker.draw(f"sample-{draw}", 0, 0.1 * draw) for draw, worker in places])

    def outages(self, count: int, seed: int) -> Iterator[Outage]:
        """When which worker of ``count`` is down, in order, without end; nothing unless the regime is failing.

        Workers crash and freeze in turn. One that is down already is spared.
        """
        if not self.failing:
            return
        rng, at, frozen = np.random.default_rng((seed, 1)), 0.0, False
        back = [0.0] * count
        while True:
            at += float(rng.exponential(FAILS_EVERY_S / count))
            index = int(rng.integers(count))
            if at >= back[index]:
                back[index] = at + DOWN_S
                yield Outage(at, back[index], index, frozen)
                frozen = not frozen


_FILE = str(LATENCY_TABLE)
REGIMES = {
    regime.name: regime
    for regime in (
        Regime("transient", f"quantiles:{_FILE}"),
        Regime("persistent", f"persistent:{_FILE}#{{index}}/{{count}}"),
        Regime("mixture", f"mixture:{_FILE}#{{index}}/{{count}}"),
        Regime("failures", f"quantiles:{_FILE}", failing=True),
        Regime("bimodal", "bimodal:0.14,0.7,0.02"),
        Regime("pareto", "pareto:0.1,2.5"),
    )
}
"""The regimes that are compared; a fixed deadline is the 95th percentile of figure 2, or of the distribution."""


@dataclass(frozen=True)
class Images:
    """What the models make of images: the confidence of each one's cell (nan: empty; float32), and whether collage-cnn
    and s-cnn are right (bool); all ``[count]``.
    """

    confidence: NDArray[np.float32]
    coded_right: NDArray[np.bool_]
    s_cnn_right: NDArray[np.bool_]


class Models(Protocol):
    """The models of a simulated cluster; from confidence ``accept`` on (0 to 1) a cell is sure."""

    @property
    def accept(self) -> float:
        """The collage-cnn's threshold."""
        ...

    def draw(self, count: int, seed: int) -> Images:
        """``count`` images, in the order sent."""
        ...


@dataclass(frozen=True)
class Measured:
    """What real models said of real images, in the order sent."""

    images: Images
    accept: float

    def draw(self, count: int, seed: int) -> Images:
        """The first ``count``, whatever the seed; ValueError if there are not so many."""
        if count > len(self.images.confidence):
            raise ValueError(f"{count} images are needed, {len(self.images.confidence)} are known")
        known = self.images
        return Images(known.confidence[:count], known.coded_right[:count], known.s_cnn_right[:count])


@dataclass(frozen=True)
class Model:
    """What models are worth; shares and accuracies from 0 to 1.

    A cell is sure (confidence 1), unsure (0.25), or seen as empty. Images that the collage-cnn is sure of are easy for
    the s-cnn as well. Defaults: a 3 x 3 collage-cnn on CIFAR-10.
    """

    sure: float = 0.6
    empty: float = 0.003
    sure_accuracy: float = 0.989
    accuracy: float = 0.9  # of the collage-cnn, over all cells
    s_cnn_sure_accuracy: float = 0.99
    s_cnn_accuracy: float = 0.93
    accept: float = 0.5

    def draw(self, count: int, seed: int) -> Images:
        """``count`` random images."""
        rng = np.random.default_rng((seed, 2))
        kind, coded, exact = rng.random((3, count))
        sure = kind < self.sure
        confidence = np.where(sure, 1.0, np.where(kind < 1 - self.empty, 0.25, np.nan)).astype(np.float32)

        def right(draws: NDArray[np.float64], of_sure: float, of_all: float) -> NDArray[np.bool_]:
            of_unsure = (of_all - self.sure * of_sure) / (1 - self.sure) if self.sure < 1 else 0.0
            return draws < np.where(sure, of_sure, of_unsure)

        return Images(
            confidence,
            right(coded, self.sure_accuracy, self.accuracy) & ~np.isnan(confidence),
            right(exact, self.s_cnn_sure_accuracy, self.s_cnn_accuracy),
        )


def poisson(rate: float, count: int, seed: int) -> Seconds:
    """Times in seconds of ``count`` arrivals, ``rate`` per second, float64 ``[count]``."""
    return np.cumsum(np.random.default_rng((seed, 0)).exponential(1 / rate, count))


def read_numbers(file: Path, column: str | None = None, unit_s: float = 1.0) -> Seconds:
    """One column of a CSV file in seconds, float64 ``[n]``: the one headed ``column``, or the last.

    A header is needed to choose a column only. ``unit_s`` is the file's unit, 0.001 for milliseconds. Raises OSError,
    or ValueError with one line that says what is wrong.
    """
    with file.open(newline="") as lines:
        rows = [row for row in csv.reader(lines) if any(field.strip() for field in row)]
    if not rows:
        raise ValueError(f"{file} is empty")
    place = -1
    if column is not None:
        names = [name.strip() for name in rows[0]]
        if column not in names:
            raise ValueError(f"{file} has no column {column!r}: its first line is {', '.join(names)}")
        place = names.index(column)
    elif _number(rows[0][place]) is not None:
        rows.insert(0, [])
    numbers = []
    for line, row in enumerate(rows[1:], 1):
        number = _number(row[place]) if place < len(row) else None
        if number is None or not 0 <= number < np.inf:
            raise ValueError(f"{file}: value {line} is no latency: {','.join(row)!r}")
        numbers.append(number * unit_s)
    if not numbers:
        raise ValueError(f"{file} has a header and no values")
    return np.array(numbers)


def read_arrivals(file: Path, unit_s: float = 1.0) -> Seconds:
    """Times of arrivals from the last column of a CSV file, in seconds since the first, float64 ``[n]``.

    Raises as ``read_numbers``, and ValueError if they do not rise.
    """
    times = read_numbers(file, None, unit_s)
    if (np.diff(times) < 0).any() or times[0] == times[-1]:
        raise ValueError(f"{file}: the times do not rise")
    since_first: Seconds = times - times[0]
    return since_first


def load_of(arrivals: Seconds, capacity: float) -> float:
    """The load of these arrivals, as a share of a capacity in requests per second."""
    return len(arrivals) / float(arrivals[-1] - arrivals[0]) / capacity


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
