"""Callers who mean harm, and callers who do not: ``python -m bench hostile``.

A frontend before instant workers is attacked in one way after the other (bench/offer/attacks.py), while a bystander on
a connection of its own asks 20 times a second. A row says how the attack's calls ended, how the bystander fared, how
much memory the frontend had at most, and what it still holds afterwards. All processes are on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.cluster.local import Child, free_port
from bench.cluster.rig import CORES, Bench, spread
from bench.measured import quantile
from bench.offer.attacks import ATTACKS, Victim
from collage.cli import show
from collage.client import Client, ClientError
from collage.figures import OUT, Scalar, write_figures

EVERY_S = 0.05
SETTLE_S = 15.0
MOST_RSS = 400 * 1024 * 1024
SLOWEST_S = 0.25
SIZE = 32
WORKERS = 9
HELD = ("collage_tasks", "process_open_fds", "collage_in_flight")


@dataclass
class Bystander:
    """How the requests of one who means no harm ended, and how long they took from their intended start, in seconds."""

    statuses: Counter[str] = dataclasses.field(default_factory=Counter)
    waited: list[float] = dataclasses.field(default_factory=list)

    @property
    def ok_share(self) -> float | None:
        """Share of requests that were answered."""
        return self.statuses["OK"] / self.statuses.total() if self.statuses else None


@asynccontextmanager
async def bystanding(client: Client) -> AsyncIterator[Bystander]:
    """Ask at a steady pace while the block runs; every request has ended when it is left."""
    seen = Bystander()
    image = np.full((SIZE, SIZE, 3), 90, np.uint8)
    clock = asyncio.get_running_loop().time

    async def ask(due: float) -> None:
        try:
            await client.predict(image, timeout_s=2.0)
            seen.statuses["OK"] += 1
        except ClientError as error:
            seen.statuses[error.code.name] += 1
        seen.waited.append(clock() - due)

    async def repeat(requests: asyncio.TaskGroup) -> None:
        due = clock()
        while True:
            requests.create_task(ask(due))
            due += EVERY_S
            await asyncio.sleep(due - clock())

    async with asyncio.TaskGroup() as requests:
        pace = requests.create_task(repeat(requests))
        try:
            yield seen
        finally:
            pace.cancel()


async def attacked(name: str, victim: Victim, share: float) -> Counter[str]:
    """Run an attack in a process of its own, which would slow down the bystander in this one."""
    command = (sys.executable, "-m", "bench.runs.hostile", name, json.dumps(dataclasses.asdict(victim)), str(share))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(90):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return Counter(json.loads(printed))


def peak(pid: int) -> int:
    """The most memory that a process has had since ``forget``, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def forget(pid: int) -> None:
    """Let the peak begin at what the process has now."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


async def held(frontend: Child) -> dict[str, float]:
    """What it holds now."""
    metrics = await frontend.metrics()
    return {name: metrics.value(name) for name in HELD}


async def left(frontend: Child, before: dict[str, float]) -> dict[str, float]:
    """What it holds more than before, after some seconds to let go."""
    until = time.monotonic() + SETTLE_S
    while True:
        now = await held(frontend)
        more = {name: max(0.0, now[name] - before[name]) for name in HELD}
        if not any(more.values()) or time.monotonic() > until:
            return more
        await asyncio.sleep(0.2)


def refused(before: dict[str, float], after: dict[str, float]) -> int:
    """How many calls and requests the frontend has refused meanwhile."""
    names = ("collage_refused_total{", "collage_calls_refused_total{")
    return round(sum(value - before.get(name, 0.0) for name, value in after.items() if name.startswith(names)))


async def measure(name: str, frontend: Child, victim: Victim, share: float) -> dict[str, Scalar]:
    """One row."""
    attack = ATTACKS[name]
    async with Client(frontend.address, attempts=1) as client:
        async with bystanding(client):  # until everything is warm
            await asyncio.sleep(1)
        before, counted = await held(frontend), await frontend.metrics()
        forget(frontend.pid)
        async with bystanding(client) as seen:
            if name == "SIGTERM":
                attacking = asyncio.create_task(attacked(name, victim, share))
                await asyncio.sleep(2)
                started = time.monotonic()
                code = await frontend.stop()
                took_s, ends = time.monotonic() - started, await attacking
            else:
                code, took_s, ends = 0, 0.0, await attacked(name, victim, share)
                most = peak(frontend.pid)
    line: dict[str, Scalar] = {
        "attack": name,
        "sent": attack.sent,
        "ends": " ".join(f"{v} {k}" for k, v in ends.items()),
    }
    good = set(ends) <= attack.allowed and bool(ends) and code == 0
    if name == "SIGTERM":
        return {**line, "exit_s": took_s, "good": good and took_s < 5}
    over = await left(frontend, before)
    line |= {
        "refused": refused(counted, await frontend.metrics()),
        "peak_rss_bytes": most,
        "bystanders": " ".join(f"{count} {status}" for status, count in seen.statuses.items()),
        "bystanders_ok": seen.ok_share,
        "bystanders_p99_s": quantile(seen.waited, 0.99),
        **{f"left_{key.split('_', 1)[1]}": value for key, value in over.items()},
    }
    calm = seen.ok_share == 1 and (quantile(seen.waited, 0.99) or 0) <= SLOWEST_S
    return {**line, "good": good and calm and most <= MOST_RSS and not any(over.values())}


async def run(args: argparse.Namespace) -> list[dict[str, Scalar]]:
    """All rows, each against a frontend of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        async with Bench(Path(folder)) as bench:
            addresses = await bench.workers("hostile", WORKERS, SIZE, args.service_s)
            for name in args.attacks:
                health_port = free_port()
                frontend = await bench.frontend("hostile", addresses, "--health-port", str(health_port))
                spread(frontend.pid, CORES)  # its own threads may be what an attack keeps busy
                victim = Victim(frontend.port, health_port, frontend.metrics_port, "instant", SIZE)
                try:
                    rows.append(await measure(name, frontend, victim, args.share))
                finally:
                    await frontend.stop()
                print(f"{name}: {'held' if rows[-1]['good'] else 'BROKEN'}", file=sys.stderr, flush=True)
    return rows


def _text(line: dict[str, Scalar]) -> tuple[str, ...]:
    def number(key: str, scale: float, unit: str) -> str:
        value = line.get(key)
        return f"{scale * value:.0f}{unit}" if isinstance(value, float | int) else "-"

    kept = "/".join(number(f"left_{what}", 1, "") for what in ("tasks", "open_fds", "in_flight"))
    return (
        str(line["sent"]),
        str(line["ends"]),
        number("peak_rss_bytes", 1e-6, " MB"),
        number("bystanders_ok", 100, " %"),
        number("bystanders_p99_s", 1000, " ms"),
        kept,
        "held" if line["good"] else "BROKEN",
    )


def main(argv: Sequence[str]) -> int:
    """Run: 0 if every row held, 1 if one did not; ProcessError if a process did not start."""
    parser = argparse.ArgumentParser(prog="python -m bench hostile", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS), help="which (all)")
    parser.add_argument("--share", type=float, default=1.0, help="part of the calls of each attack (%(default)s)")
    parser.add_argument("--service-s", type=float, default=0.002, help="seconds per request in a worker (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the figures (%(default)s)")
    args = parser.parse_args(argv)
    rows = asyncio.run(run(args))
    write_figures("hostile", rows, directory=args.out)
    show(
        ("sent", "its calls", "peak memory", "bystanders OK", "p99", "left: tasks/files/in flight", ""),
        list(map(_text, rows)),
    )
    return 0 if all(line["good"] for line in rows) else 1


def _attack(name: str, victim: str, share: str) -> None:
    """What the process of an attack does."""
    os.sched_setaffinity(0, {CORES[-1]})  # not the frontend's, which would be an attack of its own
    print(json.dumps(asyncio.run(ATTACKS[name].run(Victim(**json.loads(victim)), float(share)))))  # type: ignore[arg-type]


if __name__ == "__main__":
    _attack(*sys.argv[1:])
