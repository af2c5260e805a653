"""Regimes of slowness, worker failures, and arrivals.

Slowness as measured is a quantile table: a piecewise linear quantile function. A draw is ``interp(u, probabilities,
seconds)`` of a uniform ``u``; a worker started with ``--slowdown quantiles:bench/latency.json`` does just that. Beside
it the file holds a table for each of the machines (VMs) that were measured, for ``--slowdown
persistent:bench/latency.json#INDEX/COUNT``.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.slowdown import Slowdown

Seconds = NDArray[np.float64]

LATENCY_TABLE = Path(__file__).parents[1] / "latency.json"
"""The quantile table of figure 2 of Collage inference, and a table for each of its machines."""
TOLERANCE = 0.003  # relative; leaves most of the promised 2 % to the noise of finite runs
VMS = 50
VM_SHARES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.999, 1.0)
DEADLINE, STEP, STEP_END = 0.95, 0.979, 0.982  # the usual deadline; where the slow mode begins and levels off
FAILS_EVERY_S, DOWN_S = 200.0, 5.0  # of one worker, on average


@dataclass(frozen=True)
class QuantileTable:
    """Knots of a quantile function: float64 ``[P]`` probabilities from 0 to 1, strictly rising, and as many seconds."""

    probabilities: NDArray[np.float64]
    seconds: NDArray[np.float64]

    def __post_init__(self) -> None:
        p, s = self.probabilities, self.seconds
        if p.shape != s.shape or p.ndim != 1 or len(p) < 2 or p[0] != 0 or p[-1] != 1:
            raise ValueError("a quantile table needs as many seconds as probabilities, which run from 0 to 1")
        if (np.diff(p) <= 0).any() or (np.diff(s) < 0).any() or s[0] < 0:
            raise ValueError(
                "a quantile table must rise: probabilities strictly, seconds (not negative) at least weakly"
            )

    def quantile(self, p: float) -> float:
        """Seconds that a share ``p`` (0 to 1) of all draws does not exceed."""
        return float(np.interp(p, self.probabilities, self.seconds))


def load_table(path: Path = LATENCY_TABLE) -> QuantileTable:
    """Read a table; raises ValueError when the file does not hold a quantile function."""
    content = json.loads(path.read_text())
    probabilities, seconds = np.array(content["quantiles"], float).T
    return QuantileTable(probabilities, seconds)


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
        """Outages of ``count`` workers in order of time, without end; none unless the regime is failing.

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


def transfers(share: float) -> Regime:
    """ParM's background load, where this share of the workers is paired to move 128 to 256 MB there and back.

    ParM's inference takes about 25 ms. Here everything takes four times as long, so that a frontend's own milliseconds
    weigh less. How often and how much slower a worker gets is not published. With pairs that move data for half a
    second to a second in every four, and then an exponential time of .8 inferences more, ParM's code at k = 2 is as far
    below equal resources at the 99.9th percentile as its authors measured: about one half.
    """
    return Regime("transfers", f"transfers:0.1,0.08,4,16,{share:g}#{{index}}/{{count}}")


_FILE = str(LATENCY_TABLE)
PARM_SHARE = 0.5  # four pairs among 12 + 4 workers
REGIMES = {
    regime.name: regime
    for regime in (
        Regime("transient", f"quantiles:{_FILE}"),
        Regime("persistent", f"persistent:{_FILE}#{{index}}/{{count}}"),
        Regime("mixture", f"mixture:{_FILE}#{{index}}/{{count}}"),
        Regime("failures", f"quantiles:{_FILE}", failing=True),
        Regime("bimodal", "bimodal:0.14,0.7,0.02"),
        Regime("pareto", "pareto:0.1,2.5"),
        Regime("uniform", "uniform:0.05,0.2"),
        Regime("exponential", "exponential:0.15"),
        Regime("lognormal-0.4", "lognormal:0.14,0.4"),
        Regime("lognormal-0.8", "lognormal:0.14,0.8"),
        Regime("pareto-1.6", "pareto:0.1,1.6"),
        Regime("constant", "fixed:0.1"),
        Regime("spikes", "spikes:0.1,3,0.005"),
        transfers(PARM_SHARE),
    )
}
"""The regimes that are compared; a fixed deadline is the 95th percentile of figure 2, or of the distribution."""
FAMILIES = (
    *("transient", "persistent", "mixture", "uniform", "exponential", "lognormal-0.4", "lognormal-0.8", "pareto-1.6"),
    *("constant", "spikes", "transfers"),
)
"""Regimes of which a policy should do no harm in any: our trace, families that users may have, ParM's background."""


def poisson(rate: float, count: int, seed: int, together: int = 1) -> Seconds:
    """Times in seconds of ``count`` arrivals, ``rate`` per second on average, float64 ``[count]``.

    They come in bursts of as many as come ``together``, at one moment each.
    """
    bursts = np.cumsum(np.random.default_rng((seed, 0)).exponential(together / rate, -(-count // together)))
    times: Seconds = np.repeat(bursts, together)[:count]
    return times


def load_of(arrivals: Seconds, capacity: float) -> float:
    """The load of these arrivals, as a share of a capacity in requests per second."""
    return len(arrivals) / float(arrivals[-1] - arrivals[0]) / capacity


def fit(latencies: NDArray[np.float32], tolerance: float = TOLERANCE) -> QuantileTable:
    """The table with few knots that stays within ``tolerance`` (relative) of every quantile from 0.5 % to 99.9 %.

    The extremes and the far tail are kept as they are. Greedy: the worst quantile becomes a knot until none is too
    far off.

    The trace has two modes and jumps from the fast to the slow one just below its 98th percentile. There the table
    jumps at once and rises a little less after it (every percentile within 2 %), or the 98th percentile of a run of
    some 100,000 draws would be anywhere between .4 and .65 s.
    """
    targets = np.concatenate(
        (np.linspace(0.005, 0.995, 199), np.linspace(0.97, 0.99, 41), np.linspace(0.995, 0.999, 9))
    )
    targets = np.unique(targets.round(6))
    targets = targets[(targets <= STEP) | (targets >= STEP_END)]
    wanted = np.quantile(latencies, targets).astype(np.float64)
    fixed = (0.0, DEADLINE, STEP, 0.98, 0.981, STEP_END, 0.999, 0.9995, 0.9999, 1.0)
    knots = dict(zip(fixed, np.quantile(latencies, fixed).astype(float), strict=True))
    knots[STEP + 0.0001] = max(knots[STEP], 0.98 * knots[0.98])
    knots[0.981] = max(knots[0.98], 0.981 * knots[0.981])
    while True:
        probabilities = np.array(sorted(knots))
        table = QuantileTable(probabilities, np.array([knots[p] for p in probabilities]))
        errors = np.abs(np.interp(targets, table.probabilities, table.seconds) / wanted - 1)
        worst = int(errors.argmax())
        if errors[worst] <= tolerance:
            return table
        knots[float(targets[worst])] = wanted[worst]


def fit_vms(latencies: NDArray[np.float32]) -> list[list[float]]:
    """Quantiles at ``VM_SHARES`` of each machine, in seconds: the slow one first, the others in the trace's order.

    The trace holds one machine after the other, with equally many latencies each.
    """
    vms = [np.quantile(part, VM_SHARES) for part in np.array_split(latencies.astype(float), VMS)]
    vms.insert(0, vms.pop(int(np.argmax([vm[VM_SHARES.index(0.5)] for vm in vms]))))
    return [[round(float(seconds), 5) for seconds in vm] for vm in vms]


def save(table: QuantileTable, path: Path, source: str, vms: Sequence[Sequence[float]] = ()) -> None:
    """Write a table, six digits each, and those of ``fit_vms``; ``source`` says in words what they were fitted to."""
    about = f"Quantile function of {source}: pairs of p (0 to 1) and the seconds that a share p of draws stays within."
    pairs = [json.dumps([round(p, 6), round(s, 6)]) for p, s in zip(table.probabilities, table.seconds, strict=True)]
    lines = ",\n  ".join(pairs)
    machines = ",\n  ".join(json.dumps(list(vm)) for vm in vms)
    path.write_text(
        f'{{"about": {json.dumps(about)},\n "quantiles": [\n  {lines}\n],\n'
        f' "vms": {{"shares": {json.dumps(VM_SHARES)}, "seconds": [\n  {machines}\n]}}}}\n'
    )


def main(argv: Sequence[str]) -> int:
    """Fit a table to a trace, write it, and say how close it is: 0, or 2 if the trace cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m bench fit", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("trace", type=Path, help=".npy file of latencies in seconds, one machine after the other")
    parser.add_argument("--out", type=Path, default=LATENCY_TABLE, help="the table, JSON (%(default)s)")
    args = parser.parse_args(argv)
    try:
        latencies = np.load(args.trace)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    table = fit(latencies)
    about = f"{len(latencies):,} single-image inference latencies of {VMS} cloud VMs, pooled"
    save(table, args.out, about, fit_vms(latencies))
    percentiles = np.array([*range(1, 100), 99.9]) / 100
    fitted = np.array([table.quantile(p) for p in percentiles])
    worst = np.abs(fitted / np.quantile(latencies, percentiles) - 1).max()
    print(f"{args.out}: {len(table.seconds)} knots, off by at most {worst:.2%} at percentiles 1 to 99 and 99.9")
    return 0
