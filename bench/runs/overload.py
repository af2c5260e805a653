"""More requests than a cluster can serve: ``python -m bench overload``.

Real processes with instant models have a fixed injected service time, so that their capacity is known. The load is .5
to 3 times that, in an open loop (Poisson arrivals, latency counted from the intended start).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from bench.cluster.standins import SIDE, StandIns
from bench.measured import quantile
from collage.cli import show
from collage.client import Client, ClientError
from collage.figures import OUT, Scalar, write_figures


@dataclass(frozen=True)
class End:
    """How one request ended: its status, and the seconds from its intended start to then."""

    status: str
    waited: float


async def offer(client: Client, rate: float, seconds: float, timeout_s: float, seed: int) -> list[End]:
    """Send requests at ``rate`` per second for ``seconds``, without waiting for answers; one End each."""
    clock = asyncio.get_running_loop().time
    draw = random.Random(seed)  # noqa: S311 - arrival times only
    image = np.full((SIDE, SIDE, 3), 50, np.uint8)
    start = clock()
    due = 0.0
    ends: list[asyncio.Task[End]] = []

    async def one(number: int, intended: float) -> End:
        try:
            await client.predict(image, request_id=f"o{seed}-{number}", timeout_s=timeout_s)
            status = "OK"
        except ClientError as error:
            status = error.code.name
        return End(status, clock() - intended)

    async with asyncio.TaskGroup() as requests:
        while (due := due + draw.expovariate(rate)) < seconds:
            await asyncio.sleep(start + due - clock())
            ends.append(requests.create_task(one(len(ends), start + due)))
    return [end.result() for end in ends]


def row(offered: float, capacity: float, seconds: float, timeout_s: float, ends: Sequence[End]) -> dict[str, Scalar]:
    """One line of the report. Goodput counts answers within ``timeout_s`` of the intended start."""
    admitted = [end.waited for end in ends if end.status != grpc.StatusCode.RESOURCE_EXHAUSTED.name]
    refused = [end.waited for end in ends if end.status == grpc.StatusCode.RESOURCE_EXHAUSTED.name]
    good = sum(end.status == "OK" and end.waited <= timeout_s for end in ends)
    return {
        "offered_share": offered,
        "offered_per_s": len(ends) / seconds,
        "capacity_per_s": capacity,
        "goodput_per_s": good / seconds,
        "requests": len(ends),
        "admitted": len(admitted),
        "admitted_in_time": good / len(admitted) if admitted else None,
        "admitted_p50_s": quantile(admitted, 0.5),
        "admitted_p99_s": quantile(admitted, 0.99),
        "refused": len(refused),
        "refused_p50_s": quantile(refused, 0.5),
        "refused_p99_s": quantile(refused, 0.99),
        "failed": sum(end.status not in ("OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED") for end in ends),
    }


async def measure(args: argparse.Namespace) -> list[dict[str, Scalar]]:
    """One row per load, all against the same processes."""
    capacity = args.workers / args.service_s
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cluster = StandIns.instant(
            Path(folder),
            args.workers,
            worker_flags=("--slowdown", f"fixed:{args.service_s}"),
            frontend_flags=("--policy", args.policy),
        )
        async with cluster, Client(cluster.frontend.address, attempts=1) as client:
            await offer(client, 0.5 * capacity, 2.0, args.timeout_s, seed=-1)  # until service times are known
            for seed, load in enumerate(args.loads):
                ends = await offer(client, load * capacity, args.seconds, args.timeout_s, seed)
                rows.append(row(load, capacity, args.seconds, args.timeout_s, ends))
    return rows


def _ms(value: Scalar) -> str:
    return f"{1000 * value:.0f} ms" if isinstance(value, float) else "-"


def main(argv: Sequence[str]) -> int:
    """Run: 0 if it could be measured, whatever the figures; ProcessError if the cluster did not start."""
    parser = argparse.ArgumentParser(prog="python -m bench overload", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=8, help="s-cnn workers (%(default)s)")
    parser.add_argument("--service-s", type=float, default=0.1, help="seconds per request in a worker (%(default)s)")
    parser.add_argument("--timeout-s", type=float, default=0.5, help="of every request (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="per load (%(default)s)")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.8, 1.0, 1.5, 2.0, 3.0], help="in capacities")
    parser.add_argument("--policy", default="adaptive", help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the figures (%(default)s)")
    args = parser.parse_args(argv)
    rows = asyncio.run(measure(args))
    write_figures("overload", rows, directory=args.out)
    show(
        ("offered", "goodput", "admitted p50", "p99", "in time", "refused", "refusal p50", "p99"),
        [
            (
                f"{line['offered_share']:g}x {line['offered_per_s']:.0f}/s",
                f"{line['goodput_per_s']:.0f}/s",
                _ms(line["admitted_p50_s"]),
                _ms(line["admitted_p99_s"]),
                f"{line['admitted_in_time']:.1%}",
                str(line["refused"]),
                _ms(line["refused_p50_s"]),
                _ms(line["refused_p99_s"]),
            )
            for line in rows
        ],
    )
    return 0
