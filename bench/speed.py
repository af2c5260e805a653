"""What the frontend costs: ``python -m bench speed``.

Workers that answer at once, on loopback, so that all there is to see is what lies between client and worker. Every
case is measured in turn, round after round, and compared with its baseline within the round; the median of the rounds
counts. What is measured runs on one core, all else (client, workers) on another, as far as there are two.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import numpy as np
from google.protobuf.message import Message

from bench.callers import Call, Load, jpeg, stream, unary
from bench.cluster import until_serving
from bench.instant import ADDRESSES
from bench.processes import HOST, LOGS, Child, ProcessError, ProcessGroup
from collage.client import show
from collage.figures import OUT, Scalar, write_figures
from collage.model_info import ModelKind
from collage.serving import channel_options
from collage.tensors import to_tensor
from collage.v1 import predict_pb2, predict_pb2_grpc, worker_pb2, worker_pb2_grpc
from encoder.image import decode, shrink
from models.measure import medians

SIZE = 32  # of the s-cnn's input: 3 KB
LARGE = 224  # of the other s-cnn's: 150 KB
WORKERS = 9
MANY = (9, 100, 400)
CORES = sorted(os.sched_getaffinity(0))
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Case:
    """Something to measure: a process under a load, and the case whose cost it is compared with."""

    name: str
    process: Child
    load: Load
    baseline: str = ""
    bar: float | None = None  # of the throughput's ratio to the baseline's


@dataclass(frozen=True)
class Sample:
    """One round of one case."""

    per_s: float
    cpu_s: float  # of the measured process, per request


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def pin(pid: int, core: int) -> None:
    """Keep a process with all its threads on one core, where there are two."""
    if len(CORES) > 1:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), {CORES[core]})


class Bench(ProcessGroup):
    """The processes: instant workers, proxies, frontends. ``folder`` takes the lists of addresses."""

    def __init__(self, folder: Path, logs: Path = LOGS) -> None:
        super().__init__(logs)
        self.folder = folder
        self._stack = AsyncExitStack()

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        await self.stop()

    async def channel(self, child: Child) -> grpc.aio.Channel:
        """To a child, closed in the end."""
        channel = grpc.aio.insecure_channel(child.address, channel_options())
        return await self._stack.enter_async_context(channel)

    async def _launch(self, name: str, core: int, *command: str) -> Child:
        child = self.add(name, name, (sys.executable, "-m", *command))
        await child.start()
        pin(child.pid, core)
        return child

    async def workers(self, name: str, s_cnn: int, size: int) -> list[str]:
        """So many s-cnn workers and one collage worker, in one process; the addresses of the former."""
        folder = self.folder / name
        folder.mkdir()
        flags = ("--s-cnn", str(s_cnn), "--size", str(size), "--addresses", str(folder))
        await self._launch(f"workers-{name}", 1, "bench.instant", "workers", *flags)
        return (folder / ADDRESSES[ModelKind.S_CNN]).read_text().split()

    async def proxy(self, name: str, size: int) -> Child:
        """In front of the s-cnn workers of this name."""
        file = self.folder / name / ADDRESSES[ModelKind.S_CNN]
        return await self._launch(
            f"proxy-{name}", 0, "bench.instant", "proxy", "--workers", str(file), "--size", str(size)
        )

    async def frontend(self, name: str, s_cnn: Sequence[str], *flags: str) -> Child:
        """With coding on, over these workers and the collage worker of this name; returns when all are ready."""
        collage = self.folder / name / ADDRESSES[ModelKind.COLLAGE_CNN]
        targets = ("--s-cnn-workers", ",".join(s_cnn), "--collage-workers", f"file://{collage}")
        child = await self._launch(
            f"frontend-{name}-{len(s_cnn)}",
            0,
            "frontend",
            "--host",
            HOST,
            "--policy",
            "adaptive",
            *targets,
            *flags,
        )
        await until_serving(child)
        async with asyncio.timeout(60):
            while (await child.metrics()).value("collage_workers", role="s_cnn", state="ready") < len(s_cnn):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        pin(child.pid, 0)  # the threads that have come since
        return child


async def rounds(cases: Sequence[Case], count: int, in_flight: int, seconds: float) -> dict[str, list[Sample]]:
    """Measure every case in turn, ``count`` times, after a short warm-up."""
    samples: dict[str, list[Sample]] = {case.name: [] for case in cases}
    for case in cases:
        await case.load(in_flight, min(1.0, seconds))
    for _ in range(count):
        for case in cases:
            cpu, started = cpu_seconds(case.process.pid), time.monotonic()
            done = await case.load(in_flight, seconds)
            cpu, elapsed = cpu_seconds(case.process.pid) - cpu, time.monotonic() - started
            samples[case.name].append(Sample(done / elapsed, cpu / done))
    return samples


def rows(cases: Sequence[Case], samples: dict[str, list[Sample]]) -> list[dict[str, Scalar]]:
    """One line per case: medians, and medians of the ratios to the baseline round by round."""
    lines: list[dict[str, Scalar]] = []
    for case in cases:
        own = samples[case.name]
        line: dict[str, Scalar] = {
            "case": case.name,
            "per_s": statistics.median(sample.per_s for sample in own),
            "cpu_s": statistics.median(sample.cpu_s for sample in own),
        }
        if case.baseline:
            pairs = list(zip(own, samples[case.baseline], strict=True))
            line |= {
                "baseline": case.baseline,
                "ratio": statistics.median(one.per_s / other.per_s for one, other in pairs),
                "cpu_ratio": statistics.median(one.cpu_s / other.cpu_s for one, other in pairs),
                "bar": case.bar,
            }
        lines.append(line)
    return lines


async def added_latency(bare: Call, ours: Call, count: int) -> dict[str, Scalar]:
    """Medians of single requests, one after the other in turn, nothing else running."""
    waited: tuple[list[float], list[float]] = ([], [])
    for _ in range(count):
        for call, times in zip((bare, ours), waited, strict=True):
            started = time.perf_counter()
            await call()
            times.append(time.perf_counter() - started)
    bare_s, ours_s = (statistics.median(times[count // 10 :]) for times in waited)
    return {"case": "latency", "bare_p50_s": bare_s, "p50_s": ours_s, "added_p50_s": ours_s - bare_s}


def asking(method: Callable[..., Awaitable[object]], message: type[Message], **fields: object) -> Call:
    """Calls that send a new message with these fields each."""
    return lambda: method(message(**fields), timeout=10)


async def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, Scalar]]:
    """All rows."""
    small, large = jpeg(20), jpeg(150)
    rng = np.random.default_rng(1)
    tensor = to_tensor(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8))
    big = to_tensor(rng.integers(0, 256, (LARGE, LARGE, 3), np.uint8))
    found: list[dict[str, Scalar]] = []
    async with Bench(folder) as bench:
        addresses = await bench.workers("small", WORKERS, SIZE)
        bare = await bench.proxy("small", SIZE)
        ours = await bench.frontend("small", addresses)
        classify = worker_pb2_grpc.ClassifierServiceStub(await bench.channel(bare)).Classify
        decoded = predict_pb2_grpc.PredictServiceStub(await bench.channel(bare)).Predict
        stub = predict_pb2_grpc.PredictServiceStub(await bench.channel(ours))

        bare_call = asking(classify, worker_pb2.ClassifyRequest, image=tensor)
        our_call = asking(stub.Predict, predict_pb2.PredictRequest, tensor=tensor)
        cases = []
        if "tensors" in args.parts:
            cases += [
                Case("bare proxy, 3 KB", bare, unary(bare_call)),
                Case("frontend, 3 KB", ours, unary(our_call), "bare proxy, 3 KB", 0.7),
                Case(
                    "frontend, 3 KB, PredictStream",
                    ours,
                    stream(stub, predict_pb2.PredictRequest(tensor=tensor)),
                    "bare proxy, 3 KB",
                    0.7,
                ),
            ]
        if "jpegs" in args.parts:
            for data in (small, large):
                size = f"{round(len(data) / 1000)} KB JPEG"
                through = asking(decoded, predict_pb2.PredictRequest, image=data)
                predict = asking(stub.Predict, predict_pb2.PredictRequest, image=data)
                cases += [
                    Case(f"decoding proxy, {size}", bare, unary(through)),
                    Case(f"frontend, {size}", ours, unary(predict), f"decoding proxy, {size}", 0.6),
                ]
        found += rows(cases, await rounds(cases, args.rounds, args.in_flight, args.seconds))
        if "large" in args.parts:
            addresses_large = await bench.workers("large", WORKERS, LARGE)
            bare_large = await bench.proxy("large", LARGE)
            ours_large = await bench.frontend("large", addresses_large)
            classify_large = worker_pb2_grpc.ClassifierServiceStub(await bench.channel(bare_large)).Classify
            stub_large = predict_pb2_grpc.PredictServiceStub(await bench.channel(ours_large))
            cases = [
                Case(
                    "bare proxy, 150 KB",
                    bare_large,
                    unary(asking(classify_large, worker_pb2.ClassifyRequest, image=big)),
                ),
                Case(
                    "frontend, 150 KB",
                    ours_large,
                    unary(asking(stub_large.Predict, predict_pb2.PredictRequest, tensor=big)),
                    "bare proxy, 150 KB",
                ),
            ]
            found += rows(cases, await rounds(cases, args.rounds, args.in_flight, args.seconds))
        if "latency" in args.parts:
            found.append(await added_latency(bare_call, our_call, args.rounds * 200))
            pixels = decode(small, LARGE)
            steps: dict[str, Callable[[int], object]] = {
                "decode 20 KB JPEG to 32 x 32": lambda _: decode(small, SIZE),
                "decode 20 KB JPEG to 224 x 224": lambda _: decode(small, LARGE),
                "cell, 224 to 32 pixels": lambda _: shrink(pixels, SIZE, SIZE),
            }
            times = medians(list(steps.values()), 200)
            found += [{"case": name, "p50_s": seconds} for name, seconds in zip(steps, times, strict=True)]
        if "scale" in args.parts:
            cases = []
            many = await bench.workers("many", max(MANY), SIZE)
            for count in MANY:
                frontend = await bench.frontend("many", many[:count])
                wide = predict_pb2_grpc.PredictServiceStub(await bench.channel(frontend))
                ask = asking(wide.Predict, predict_pb2.PredictRequest, tensor=tensor)
                baseline = "" if count == MANY[0] else f"{MANY[0]} workers"
                cases.append(Case(f"{count} workers", frontend, unary(ask), baseline, 0.9 if baseline else None))
            found += rows(cases, await rounds(cases, args.rounds, args.in_flight, args.seconds))
    return found


def _cell(line: dict[str, Scalar], key: str, scale: float = 1.0, form: str = ".0f", unit: str = "") -> str:
    value = line.get(key)
    return f"{scale * value:{form}}{unit}" if isinstance(value, float) else ""


def main(argv: Sequence[str]) -> int:
    """Run: 0 if it could be measured, whatever came out; 1 if a process did not start."""
    parser = argparse.ArgumentParser(prog="python -m bench speed", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.5, help="per case and round (%(default)s)")
    parser.add_argument("--in-flight", type=int, default=16, help="requests at once (%(default)s)")
    parts = ("tensors", "jpegs", "large", "latency", "scale")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="what to measure (everything)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the figures (%(default)s)")
    args = parser.parse_args(argv)
    pin(os.getpid(), 1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = asyncio.run(measure(args, Path(folder)))
    except ProcessError as error:
        print(error, file=sys.stderr)
        return 1
    write_figures("speed", found, directory=args.out)
    show(
        ("case", "requests", "CPU each", "ratio", "CPU ratio", "bar", "p50", "added"),
        [
            (
                str(line["case"]),
                _cell(line, "per_s", unit="/s"),
                _cell(line, "cpu_s", 1e6, unit=" us"),
                _cell(line, "ratio", form=".2f"),
                _cell(line, "cpu_ratio", form=".2f"),
                _cell(line, "bar", form=".2f"),
                _cell(line, "p50_s", 1e3, ".3f", " ms"),
                _cell(line, "added_p50_s", 1e3, ".3f", " ms"),
            )
            for line in found
        ],
    )
    return 0
