"""The latency generator: a quantile table fitted to measured latencies, ``python -m bench.latency fit TRACE.npy``.

The table is a piecewise linear quantile function. A draw is ``interp(u, probabilities, seconds)`` of a uniform ``u``;
a worker started with ``--slowdown quantiles:bench/latency.json`` does just that. Beside it the file holds a table for
each of the machines (VMs) that were measured, for ``--slowdown persistent:bench/latency.json#INDEX/COUNT``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LATENCY_TABLE = Path(__file__).parents[1] / "latency.json"
TOLERANCE = 0.003  # relative; leaves most of the promised 2 % to the noise of finite runs
VMS = 50
VM_SHARES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.999, 1.0)
DEADLINE, STEP, STEP_END = 0.95, 0.979, 0.982  # the usual deadline; where the slow mode begins and levels off


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


def load(path: Path = LATENCY_TABLE) -> QuantileTable:
    """Read a table; raises ValueError when the file does not hold a quantile function."""
    content = json.loads(path.read_text())
    probabilities, seconds = np.array(content["quantiles"], float).T
    return QuantileTable(probabilities, seconds)


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


def main() -> None:
    """Fit a table to a trace and write it."""
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fitting = commands.add_parser("fit", help="fit the quantile table to measured latencies")
    fitting.add_argument("trace", type=Path, help=".npy file of latencies in seconds")
    fitting.add_argument("--out", type=Path, default=LATENCY_TABLE)
    args = parser.parse_args()
    latencies = np.load(args.trace)
    table = fit(latencies)
    save(
        table,
        args.out,
        f"{len(latencies):,} single-image inference latencies of {VMS} cloud VMs, pooled",
        fit_vms(latencies),
    )
    percentiles = np.array([*range(1, 100), 99.9]) / 100
    fitted = np.array([table.quantile(p) for p in percentiles])
    error = np.abs(fitted / np.quantile(latencies, percentiles) - 1).max()
    print(f"{args.out}: {len(table.seconds)} knots, off by at most {error:.2%} at percentiles 1 to 99 and 99.9")


if __name__ == "__main__":
    main()
