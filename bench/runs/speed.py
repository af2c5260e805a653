"""The cost of the frontend: ``python -m bench speed``.

Workers answer at once, on loopback, so that only the path between client and worker counts. Every case is measured in
turn, round after round, and compared with its baseline within the round; the median of the rounds counts. The measured
process runs on one core, client and workers on another, if there are two.

Callers in Python cost as much as the called process and so hide some of its cost. Parts that need Debian's
nghttp2-client have callers in C, which leave only the called process busy.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import Message

from bench.cluster.rig import Bench, Child, Metrics, SpeedRig, pin
from bench.offer.callers import H2LOAD, Ask, CallError, Load, in_turn, jpeg, saturating, stream, unary
from collage.cli import show
from collage.figures import OUT, Scalar, write_figures
from collage.system import KEPT_BYTES, LARGE_BYTES, keep_memory
from collage.tensors import to_tensor
from collage.v1 import model_pb2, predict_pb2, predict_pb2_grpc, tensor_pb2
from encoder.berrut import BerrutCode
from encoder.code import Code
from encoder.collage import CollageCode
from encoder.grid import Grid
from encoder.heads import ConcatenationCode, StackedCode
from encoder.image import Pixels, decode
from encoder.linear import USUAL_KEYS, LinearCode, mean_weights
from frontend.metrics import CODES
from inference import open_inference_pb2 as oip
from models.measure import medians

SIZE = 32  # of the s-cnn's input: 3 KB
LARGE = 224  # of the other s-cnn's: 150 KB
MANY = (9, 100, 400)
GROUPS, CLASSES = (2, 4), 1000
SERVICE_S, CODED_IN_FLIGHT = 0.01, 64  # so that groups fill before their members are answered
CLASSIFY, PREDICT = "collage.v1.ModelService/Run", "collage.v1.PredictService/Predict"
MODEL_INFER = "inference.GRPCInferenceService/ModelInfer"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
COLUMNS: Mapping[str, tuple[str, str, float, str]] = {
    "requests": ("per_s", ".0f", 1, "/s"),
    "CPU each": ("cpu_s", ".0f", 1e6, " us"),
    "ratio": ("ratio", ".2f", 1, ""),
    "CPU ratio": ("cpu_ratio", ".2f", 1, ""),
    "bar": ("bar", ".2f", 1, ""),
    "p50": ("p50_s", ".3f", 1e3, " ms"),
    "added": ("added_p50_s", ".3f", 1e3, " ms"),
    "share": ("share", ".3f", 1, ""),
}
"""Columns of a table: the figure of a row, how to write it, a factor and a unit. Cells of rows without it are empty."""
Measure = Callable[[argparse.Namespace, Path], Coroutine[Any, Any, list[dict[str, Scalar]]]]


@dataclass(frozen=True)
class Contender:
    """A process under a load, and the case that it is compared with."""

    name: str
    process: Child
    load: Load
    baseline: str = ""
    bar: float | None = None  # of the throughput's ratio to the baseline's


@dataclass(frozen=True)
class Round:
    """One round of one case."""

    per_s: float
    cpu_s: float  # of the measured process, per request


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


async def rounds(cases: Sequence[Contender], count: int, in_flight: int, seconds: float) -> dict[str, list[Round]]:
    """Measure every case in turn, ``count`` times, after a short warm-up."""
    samples: dict[str, list[Round]] = {case.name: [] for case in cases}
    for case in cases:
        await case.load(in_flight, min(1.0, seconds))
    for _ in range(count):
        for case in cases:
            cpu, started = cpu_seconds(case.process.pid), time.monotonic()
            done = await case.load(in_flight, seconds)
            cpu, elapsed = cpu_seconds(case.process.pid) - cpu, time.monotonic() - started
            if not done:
                raise CallError(f"{case.name}: no answer within {elapsed:.1f} s")
            samples[case.name].append(Round(done / elapsed, cpu / done))
    return samples


def rows(cases: Sequence[Contender], samples: dict[str, list[Round]]) -> list[dict[str, Scalar]]:
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


async def added_latency(bare: Ask, ours: Ask, count: int) -> dict[str, Scalar]:
    """Medians of single requests, one after the other in turn, nothing else running."""
    bare_s, ours_s = map(statistics.median, await in_turn((bare, ours), count, time.perf_counter))
    return {"case": "latency", "bare_p50_s": bare_s, "p50_s": ours_s, "added_p50_s": ours_s - bare_s}


def asking(method: Callable[..., Awaitable[object]], message: type[Message], **fields: object) -> Ask:
    """Calls that send a new message with these fields each."""
    return lambda: method(message(**fields), timeout=10)


def image(size: int) -> tensor_pb2.Tensor:
    """Noise, uint8 ``[size, size, 3]``."""
    return to_tensor(np.random.default_rng(1).integers(0, 256, (size, size, 3), np.uint8))


def tensors(rig: SpeedRig, size: str, tensor: tensor_pb2.Tensor, bar: float | None = None) -> list[Contender]:
    """Raw tensors, by unary calls and by PredictStream."""
    bare = f"bare proxy, {size}"
    request = predict_pb2.PredictRequest(tensor=tensor)
    ask = asking(rig.stub.Predict, predict_pb2.PredictRequest, tensor=tensor)
    return [
        Contender(bare, rig.bare, unary(asking(rig.classify, model_pb2.RunRequest, input=tensor))),
        Contender(f"frontend, {size}", rig.ours, unary(ask), bare, bar),
        Contender(f"frontend, {size}, PredictStream", rig.ours, stream(rig.stub, request), bare, bar),
    ]


def saturated(rig: SpeedRig, size: str, tensor: tensor_pb2.Tensor, bar: float | None) -> list[Contender]:
    """Raw tensors, by callers in C."""
    bare, classify = f"bare proxy, {size}, saturated", model_pb2.RunRequest(input=tensor)
    predict = saturating(rig.ours.address, PREDICT, predict_pb2.PredictRequest(tensor=tensor))
    return [
        Contender(bare, rig.bare, saturating(rig.bare.address, CLASSIFY, classify)),
        Contender(f"frontend, {size}, saturated", rig.ours, predict, bare, bar),
    ]


def jpegs(rig: SpeedRig) -> list[Contender]:
    """JPEGs of two sizes, to a proxy that only decodes."""
    cases = []
    for data in (jpeg(20), jpeg(150)):
        size = f"{round(len(data) / 1000)} KB JPEG"
        through = asking(rig.decoded, predict_pb2.PredictRequest, image=data)
        predict = asking(rig.stub.Predict, predict_pb2.PredictRequest, image=data)
        cases += [
            Contender(f"decoding proxy, {size}", rig.bare, unary(through)),
            Contender(f"frontend, {size}", rig.ours, unary(predict), f"decoding proxy, {size}", 0.6),
        ]
    return cases


def to_mlserver(
    rig: SpeedRig, server: Child, size: str, tensor: tensor_pb2.Tensor, bar: float | None = None
) -> list[Contender]:
    """MLServer itself, and the frontend by our own protocol and by MLServer's."""

    def infer(child: Child, model: str) -> Load:
        shaped = oip.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[1, *tensor.shape])
        request = oip.ModelInferRequest(model_name=model, inputs=[shaped], raw_input_contents=[tensor.data])
        return saturating(child.address, MODEL_INFER, request)

    baseline = f"MLServer, {size}"
    predict = saturating(rig.ours.address, PREDICT, predict_pb2.PredictRequest(tensor=tensor))
    return [
        Contender(baseline, server, infer(server, "instant")),
        Contender(f"frontend, {size}, to MLServer", rig.ours, predict, baseline, bar),
        Contender(f"frontend, {size}, ModelInfer, to MLServer", rig.ours, infer(rig.ours, "instant"), baseline),
    ]


async def latency(rig: SpeedRig, count: int) -> list[dict[str, Scalar]]:
    """The latency that the frontend adds to a single request, and the steps of a JPEG apart."""
    tensor = image(SIZE)
    bare = asking(rig.classify, model_pb2.RunRequest, input=tensor)
    ours = asking(rig.stub.Predict, predict_pb2.PredictRequest, tensor=tensor)
    found = [await added_latency(bare, ours, count)]
    small = jpeg(20)
    pixels, cell = decode(small, LARGE), CollageCode(Grid(1, SIZE))
    steps: dict[str, Callable[[int], object]] = {
        "decode 20 KB JPEG to 32 x 32": lambda _: decode(small, SIZE),
        "decode 20 KB JPEG to 224 x 224": lambda _: decode(small, LARGE),
        "cell, 224 to 32 pixels": lambda _: cell.encode([pixels]),
    }
    times = medians(list(steps.values()), 200)
    return found + [{"case": name, "p50_s": seconds} for name, seconds in zip(steps, times, strict=True)]


def _repeated(call: Callable[..., object], *arguments: object) -> Callable[[int], object]:
    return lambda _: call(*arguments)


def codes(count: int) -> list[dict[str, Scalar]]:
    """Encoding a group of large images, and decoding one answer of many classes: the medians of 100 times.

    The best of ``count`` rounds counts, as whatever else the machine does only adds to them.
    """
    keep_memory()
    random, steps = np.random.default_rng(0), dict[str, Callable[[int], object]]()
    for k in GROUPS:
        group: list[Pixels | None] = [*random.integers(0, 256, (k, LARGE, LARGE, 3), np.uint8)]
        outputs = random.normal(size=(k, CLASSES)).astype(np.float32)
        addition = LinearCode(mean_weights(k, 1))
        keyed = LinearCode(mean_weights(k, 1), keys=USUAL_KEYS[:k])
        every: dict[str, Code] = {"addition": addition, "addition, keyed": keyed, "stacked": StackedCode(k)}
        for name, code in {**every, "concatenation": ConcatenationCode(k), "Berrut": BerrutCode(k)}.items():
            steps[f"encode, {name}, k = {k}, {LARGE} pixels"] = _repeated(code.encode, group)
        own, coded = dict(enumerate(outputs[1:], 1)), {0: [outputs[0]]}
        decoding = _repeated(addition.decode, own, coded, range(k))
        steps[f"decode, addition, k = {k}, {CLASSES:,} classes"] = decoding
    times = [[medians([step], 100)[0] for step in steps.values()] for _ in range(count)]
    return [{"case": name, "p50_s": best} for name, best in zip(steps, np.min(times, 0).tolist(), strict=True)]


async def scale(bench: Bench) -> list[Contender]:
    """More and more workers under the same load."""
    cases: list[Contender] = []
    many = await bench.workers("many", max(MANY), SIZE)
    for count in MANY:
        frontend = await bench.frontend("many", many[:count])
        stub = predict_pb2_grpc.PredictServiceStub(await bench.channel(frontend))
        ask = asking(stub.Predict, predict_pb2.PredictRequest, tensor=image(SIZE))
        baseline = f"{MANY[0]} workers" if cases else ""
        cases.append(Contender(f"{count} workers", frontend, unary(ask), baseline, 0.9 if cases else None))
    return cases


async def coded(rig: SpeedRig, size: str, before: Metrics) -> dict[str, Scalar]:
    """Collages per request since ``before``; raises CallError if a request failed, which h2load would not see."""
    now = await rig.ours.metrics()

    def since(name: str, **labels: str) -> float:
        return now.value(name, **labels) - before.value(name, **labels)

    if failed := sum(since("collage_requests_total", code=code) for code in CODES if code not in ("OK", "CANCELLED")):
        raise CallError(f"the frontend failed {failed:.0f} requests")  # h2load cancels its last requests
    share = since("collage_sent_total", attempt="coded") / since("collage_sent_total", attempt="s_cnn")
    return {"case": f"collages per request, {size}", "share": share}


async def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, Scalar]]:
    """All rows."""
    found: list[dict[str, Scalar]] = []
    parts = set(args.parts)

    async def run(cases: Sequence[Contender], in_flight: int = args.in_flight) -> None:
        found.extend(rows(cases, await rounds(cases, args.rounds, in_flight, args.seconds)))

    async with Bench(folder) as bench:
        small = await bench.rig("small", SIZE) if args.mlserver or parts & {"tensors", "jpegs", "latency"} else None
        large = await bench.rig("large", LARGE) if args.mlserver or "large" in parts else None
        server = await bench.mlserver(args.mlserver) if args.mlserver else None
        if small and "tensors" in parts:
            await run(tensors(small, "3 KB", image(SIZE), 0.7))
        if small and "jpegs" in parts:
            await run(jpegs(small))
        if large and "large" in parts:
            await run(tensors(large, "150 KB", image(LARGE))[:2])
        if small and "latency" in parts:
            found += await latency(small, args.rounds * 200)
        if "codes" in parts:
            found += codes(args.rounds)
        if "scale" in parts:
            await run(await scale(bench))
        if "coding" in parts:
            for size, pixels, bar in (("3 KB", SIZE, 0.7), ("150 KB", LARGE, None)):
                rig = await bench.rig(f"coding-{pixels}", pixels, SERVICE_S)
                before = await rig.ours.metrics()
                await run(saturated(rig, size, image(pixels), bar), CODED_IN_FLIGHT)
                if server and pixels == LARGE:
                    await run(to_mlserver(rig, server, f"{size}, coded", image(pixels)), CODED_IN_FLIGHT)
                found.append(await coded(rig, size, before))
        if small and large and server:
            await run(to_mlserver(small, server, "3 KB", image(SIZE), 0.8))
            await run(to_mlserver(large, server, "150 KB", image(LARGE), 1.5))
    return found


def alone(name: str, measure: Measure, args: argparse.Namespace) -> list[dict[str, Scalar]]:
    """The rows of ``measure`` in an empty folder, on a core beside that of the measured process; writes them."""
    pin(os.getpid(), 1)
    # The allocator's settings of the frontend, for all processes alike.
    os.environ |= {"MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES), "MALLOC_MMAP_THRESHOLD_": str(LARGE_BYTES)}
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(args, Path(folder)))
    write_figures(name, found, directory=args.out)
    return found


def show_rows(rows: Sequence[dict[str, Scalar]], headings: Sequence[str]) -> None:
    """A table of the rows: their cases, and some of ``COLUMNS``."""
    show(("case", *headings), [(str(row["case"]), *(_cell(row, *COLUMNS[name]) for name in headings)) for row in rows])


def _cell(row: dict[str, Scalar], key: str, form: str, scale: float, unit: str) -> str:
    value = row.get(key)
    return f"{scale * value:{form}}{unit}" if isinstance(value, float) else ""


def main(argv: Sequence[str]) -> int:
    """Run: 0 if it could be measured, whatever the figures; ProcessError if a process did not start."""
    parser = argparse.ArgumentParser(prog="python -m bench speed", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.5, help="per case and round (%(default)s)")
    parser.add_argument("--in-flight", type=int, default=16, help="requests at once (%(default)s)")
    parts = ["tensors", "jpegs", "large", "latency", "codes", "scale", *(["coding"] if H2LOAD else [])]
    parser.add_argument("--parts", nargs="*", choices=parts, default=parts, help="what to measure (%(default)s)")
    mlserver = "python of an environment with MLServer, to compare with that as well; needs h2load"
    parser.add_argument("--mlserver", type=Path, help=mlserver)
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the figures (%(default)s)")
    args = parser.parse_args(argv)
    show_rows(alone("speed", measure, args), list(COLUMNS))
    return 0
