"""Many requests while workers are killed, frozen and restarted at random: ``python -m bench soak --requests 500000``.

Real processes with instant models. Every request has to end exactly once, with the right label if it has one; and when
all is quiet again the frontend must hold no more memory, tasks and file descriptors than after the warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from bench.cluster.standins import LABELS, LOGS, GroupAnswers, StandIns
from collage.client import Client, Image, Prediction
from collage.figures import OUT, write_figures

STREAMS, IN_FLIGHT = 4, 8  # unanswered requests per stream; together no more than the queues of all workers but one
TIMEOUT_S = 20.0
QUIET_S = 60.0
GROWTH = 1.05
DESCRIPTORS = 3  # that may be open by chance: a scrape, a connection attempt


@dataclass
class Ends:
    """Ends of requests, counted by source or status and by request, and the number of wrong labels."""

    sent: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    wrong: int = 0

    @property
    def lost(self) -> int:
        """Requests without an end."""
        return self.sent - len(self.answered)

    @property
    def doubled(self) -> int:
        """Ends beyond the first of a request."""
        return self.answered.total() - len(self.answered)


@dataclass(frozen=True)
class Holdings:
    """Resources of the idle frontend: bytes of memory, tasks, file descriptors."""

    rss: float
    tasks: float
    descriptors: float


@dataclass(frozen=True)
class Verdict:
    """The result of a run, and its ``problems``."""

    requests: int
    seconds: float
    answers: int
    failed: int
    failures: str
    lost: int
    doubled: int
    wrong: int
    kills: int
    freezes: int
    rss_before: float
    rss_after: float
    tasks_before: float
    tasks_after: float
    descriptors_before: float
    descriptors_after: float

    @property
    def problems(self) -> list[str]:
        """One line each; empty if all is well."""
        found = [
            f"{getattr(self, name)} requests {name}" for name in ("lost", "doubled", "wrong") if getattr(self, name)
        ]
        if self.rss_after > GROWTH * self.rss_before:
            found.append(f"memory grew from {self.rss_before / 1e6:.1f} to {self.rss_after / 1e6:.1f} MB")
        if self.tasks_after > self.tasks_before:
            found.append(f"tasks grew from {self.tasks_before:.0f} to {self.tasks_after:.0f}")
        if self.descriptors_after > self.descriptors_before + DESCRIPTORS:
            found.append(f"descriptors grew from {self.descriptors_before:.0f} to {self.descriptors_after:.0f}")
        return found


class Soak:
    """One run: ``seed`` decides which worker suffers which fault, and when."""

    def __init__(self, cluster: StandIns, client: Client, seed: int) -> None:
        self.cluster, self.client = cluster, client
        self.tally = Ends()
        self.kills = self.freezes = 0
        self._random = random.Random(seed)  # noqa: S311 - chooses faults only
        self._pictures = GroupAnswers(np.arange(len(LABELS)), np.arange(len(LABELS)), np.ones(len(LABELS))).pictures()

    async def load(self, requests: int) -> None:
        """Send ``requests`` under faults; returns when all have ended and all workers run again."""
        calm = asyncio.Event()
        faults = asyncio.create_task(self._faults(calm))
        try:
            async with asyncio.TaskGroup() as streams:
                for part in range(STREAMS):
                    count = requests // STREAMS + (part < requests % STREAMS)
                    streams.create_task(self._stream(count))
        finally:
            calm.set()
            await faults

    async def _stream(self, count: int) -> None:
        room = asyncio.Semaphore(IN_FLIGHT)

        async def images() -> AsyncIterator[tuple[str, Image]]:
            for _ in range(count):
                await room.acquire()
                number = self.tally.sent
                self.tally.sent += 1
                yield f"soak-{number}", self._pictures[number % len(LABELS)]

        async for request_id, end in self.client.predict_stream(images(), timeout_s=TIMEOUT_S):
            room.release()
            self.tally.answered[request_id] += 1
            if isinstance(end, Prediction):
                self.tally.ends[end.source] += 1
                self.tally.wrong += end.label != LABELS[int(request_id.removeprefix("soak-")) % len(LABELS)]
            else:
                self.tally.ends[end.code.name] += 1

    async def _faults(self, calm: asyncio.Event) -> None:
        """One fault after the other, on any worker, until ``calm``."""
        while not await _set_within(calm, self._random.uniform(0.2, 1.0)):
            worker = self._random.choice(self.cluster.workers)
            pause = self._random.uniform(0.1, 1.5)
            if self._random.random() < 0.4:
                self.kills += 1
                await worker.kill()
                await _set_within(calm, pause)
                await worker.start()
            else:
                self.freezes += 1
                worker.freeze()
                await _set_within(calm, pause)
                worker.resume()

    async def holdings(self) -> Holdings:
        """Resources of the frontend as soon as it is idle: no request in flight, all workers ready, tasks steady."""
        wanted = {"s_cnn": len(self.cluster.s_cnn), "coded": len(self.cluster.coded)}
        frontend = self.cluster.frontend
        before = -1.0
        async with asyncio.timeout(QUIET_S):
            while True:
                metrics = await frontend.metrics()
                ready = all(metrics.value("collage_workers", role=r, state="ready") == n for r, n in wanted.items())
                tasks = metrics.value("collage_tasks")
                if ready and metrics.value("collage_in_flight") == 0 and tasks == before:
                    return Holdings(
                        metrics.value("process_resident_memory_bytes"), tasks, metrics.value("process_open_fds")
                    )
                before = tasks
                await asyncio.sleep(0.5)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def run(requests: int, seed: int = 0, workers: int = 4, logs: Path = LOGS) -> Verdict:
    """A fifth of the requests warms up. Raises ProcessError if one does not start, TimeoutError if never quiet."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = StandIns.instant(Path(folder), workers, frontend_flags=("--timeout-s", "20"), logs=logs)
        async with cluster, Client(cluster.frontend.address) as client:
            soak = Soak(cluster, client, seed)
            started = time.monotonic()
            await soak.load(requests // 5)
            before = await soak.holdings()
            await soak.load(requests - requests // 5)
            after = await soak.holdings()
            seconds = time.monotonic() - started
    tally = soak.tally
    failures = {end: count for end, count in tally.ends.items() if end not in ("S_CNN", "REPLICA", "COLLAGE")}
    failed = sum(failures.values())
    return Verdict(
        requests=tally.sent,
        seconds=seconds,
        answers=tally.answered.total() - failed,
        failed=failed,
        failures=" ".join(f"{end}={count}" for end, count in sorted(failures.items())),
        lost=tally.lost,
        doubled=tally.doubled,
        wrong=tally.wrong,
        kills=soak.kills,
        freezes=soak.freezes,
        rss_before=before.rss,
        rss_after=after.rss,
        tasks_before=before.tasks,
        tasks_after=after.tasks,
        descriptors_before=before.descriptors,
        descriptors_after=after.descriptors,
    )


def main(argv: Sequence[str]) -> int:
    """Run: 0 if all is well, 1 if not, with the problems on standard error."""
    parser = argparse.ArgumentParser(prog="python -m bench soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=500_000, help="in all (%(default)s)")
    parser.add_argument("--workers", type=int, default=4, help="s-cnn workers (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the figures (%(default)s)")
    args = parser.parse_args(argv)
    try:
        verdict = asyncio.run(run(args.requests, args.seed, args.workers))
    except TimeoutError:
        print("the frontend did not become quiet", file=sys.stderr)
        return 1
    write_figures("soak", [asdict(verdict)], directory=args.out)
    for name, value in asdict(verdict).items():
        print(f"{name:20} {value if isinstance(value, str) else f'{value:,.0f}'}")
    for problem in verdict.problems:
        print(problem, file=sys.stderr)
    return 1 if verdict.problems else 0
