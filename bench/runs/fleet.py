"""The frontend in front of real fleets: ``python -m bench fleet --triton PYTHON --mlserver PYTHON``.

Each fleet has four s-cnn servers and one collage-cnn server, on loopback. First throughput: calls of all servers at
once, and the same calls of a frontend, round after round. Then tails: requests come at random times (Poisson) at half
of the servers' capacity, while all is well, while one server is frozen (SIGSTOP), and after one is killed. They are
sent to the servers in turn, to a frontend without coding, and to one with collages.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import numpy as np

from bench.cluster.fleets import S_CNN, Child, Make, ServerFleet
from bench.offer.callers import H2LOAD, CallError, Load, saturating, unary
from bench.runs.speed import MODEL_INFER
from bench.samples import Sample, load_samples, slug
from collage.channels import channel_options
from collage.cli import show
from collage.figures import OUT, Scalar, write_figures
from encoder.image import decode
from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc as oip_grpc
from inference.tensors import INPUT

IN_FLIGHT = 16
LOAD = 0.5  # of what all servers can take
TIMEOUT_S = 5.0
FAULT_AFTER = 0.2  # of the requests
FAULTS = ("none", "frozen", "killed")
WAYS = ("direct", "frontend, none", "frontend, collages")
POLICIES = {"frontend, none": "none", "frontend, collages": "adaptive"}

LabelAndSource = tuple[str, str]
"""A label, and the source of the answer; empty if it was a server of the fleet itself."""


@dataclass(frozen=True)
class AskedOnce:
    """One request: seconds from its intended start to its end, and if it was answered, by whom, and whether right."""

    latency_s: float
    source: str | None
    right: bool = False


def request(sample: Sample, name: str, size: int) -> oip.ModelInferRequest:
    """Raw pixels, as servers and frontends take them alike."""
    pixels = decode(sample.data, size)
    message = oip.ModelInferRequest(model_name=name)
    message.inputs.add(name=INPUT, datatype="UINT8", shape=[1, *pixels.shape])
    message.raw_input_contents.append(pixels.tobytes())
    return message


async def poisson(
    ask: Callable[[int], Awaitable[LabelAndSource]], labels: Sequence[str], per_s: float, seed: int = 1
) -> list[AskedOnce]:
    """Ask at random times; ``labels`` are the right answers, one for each request.

    A request that fails has no source; its latency is the time until then.
    """
    clock = asyncio.get_running_loop().time
    start = clock()
    times = np.cumsum(np.random.default_rng(seed).exponential(1 / per_s, len(labels))).tolist()

    async def one(number: int, due: float) -> AskedOnce:
        try:
            label, source = await ask(number)
        except grpc.aio.AioRpcError:
            return AskedOnce(clock() - start - due, None)
        return AskedOnce(clock() - start - due, source, label == labels[number])

    async with asyncio.TaskGroup() as tasks:
        sent = []
        for number, due in enumerate(times):
            await asyncio.sleep(max(0.0, start + due - clock()))
            sent.append(tasks.create_task(one(number, due)))
    return [task.result() for task in sent]


def summary(asked: Sequence[AskedOnce]) -> dict[str, Scalar]:
    """Latencies of all requests, failed ones included, and who answered."""
    latencies = np.array([each.latency_s for each in asked])
    answered = [each for each in asked if each.source is not None]
    shares = {
        name: sum(each.source == source for each in asked) / len(asked)
        for name, source in (("coded_share", "COLLAGE"), ("replica_share", "REPLICA"))
    }
    return {
        "requests": len(asked),
        "failed": len(asked) - len(answered),
        "accuracy": sum(each.right for each in answered) / max(1, len(answered)),
        "p50_s": float(np.quantile(latencies, 0.5)),
        "p99_s": float(np.quantile(latencies, 0.99)),
        **shares,
    }


class FleetRun:
    """Measures one fleet; call its parts in order."""

    def __init__(self, fleet: ServerFleet, samples: Sequence[Sample]) -> None:
        self._fleet, self._samples = fleet, samples
        self._labels = [slug(label) for label in fleet.info.labels]

    async def throughput(self, frontend: Child, rounds: int, seconds: float) -> dict[str, Scalar]:
        """Calls per second of the servers, each called by as many callers, and of a frontend in front of them."""
        message = request(self._samples[0], S_CNN.stem, self._fleet.info.size)

        def caller(child: Child) -> Load:
            if H2LOAD:
                return saturating(child.address, MODEL_INFER, message)
            stub = oip_grpc.GRPCInferenceServiceStub(grpc.aio.insecure_channel(child.address, channel_options()))
            return unary(lambda: stub.ModelInfer(message, timeout=TIMEOUT_S))

        servers, ours = [caller(server) for server in self._fleet.servers], caller(frontend)

        async def direct() -> float:
            each = await asyncio.gather(*(load(IN_FLIGHT // len(servers), seconds) for load in servers))
            return sum(each) / seconds

        pairs = []
        for number in range(-1, rounds):
            pair = await direct(), await ours(IN_FLIGHT, seconds) / seconds
            if not min(pair):
                raise CallError(f"{self._fleet.make.name}: no answer within {seconds} s")
            pairs += [pair] * (number >= 0)  # the first is a warm-up
        return {
            "part": "throughput",
            "way": WAYS[-1],
            "fault": "none",
            "direct_per_s": statistics.median(bare for bare, _ in pairs),
            "frontend_per_s": statistics.median(own for _, own in pairs),
            "ratio": statistics.median(own / bare for bare, own in pairs),
        }

    async def tail(self, way: str, fault: str, target: Sequence[Child], count: int, per_s: float) -> dict[str, Scalar]:
        """Requests to each of ``target`` in turn, with a fault of one server after some of them."""
        name, size, victim = S_CNN.stem, self._fleet.info.size, self._fleet.servers[0]
        messages = [request(sample, name, size) for sample in self._samples]
        asked = [self._samples[number % len(messages)].label for number in range(count)]
        async with AsyncExitStack() as stack:
            stubs = []
            for child in target:
                channel = grpc.aio.insecure_channel(child.address, channel_options())
                stubs.append(oip_grpc.GRPCInferenceServiceStub(await stack.enter_async_context(channel)))

            async def ask(number: int) -> LabelAndSource:
                call = stubs[number % len(stubs)].ModelInfer
                response = await call(messages[number % len(messages)], timeout=TIMEOUT_S)
                return self._labels[_best(response)], response.parameters["source"].string_param

            async def suffer() -> None:
                await asyncio.sleep(FAULT_AFTER * count / per_s)
                if fault == "frozen":
                    victim.freeze()
                elif fault == "killed":
                    await victim.kill()

            suffering = asyncio.create_task(suffer())
            try:
                answers = await poisson(ask, asked, per_s)
            finally:
                suffering.cancel()
                await asyncio.wait([suffering])
                victim.resume()
        if not victim.running:
            await victim.restart()
        return {"part": "tail", "way": way, "fault": fault, **summary(answers)}


def _best(response: oip.ModelInferResponse) -> int:
    if response.raw_output_contents:
        return int(np.frombuffer(response.raw_output_contents[0], "<f4").argmax())
    return int(np.argmax(response.outputs[0].contents.fp32_contents))


async def measure(make: Make, args: argparse.Namespace, folder: Path) -> list[dict[str, Scalar]]:
    """All rows of one make."""
    samples = load_samples()
    rows = []
    if "throughput" in args.parts:
        async with ServerFleet(make, folder) as fleet:
            frontend = await fleet.frontend("frontend", "--policy", "adaptive")
            await fleet.until_ready([frontend])
            rows.append(await FleetRun(fleet, samples).throughput(frontend, args.rounds, args.seconds))
    if "tails" in args.parts:
        rows += await tails(make, args, folder, samples)
    return [{"make": make.name, **row} for row in rows]


async def tails(
    make: Make, args: argparse.Namespace, folder: Path, samples: Sequence[Sample]
) -> list[dict[str, Scalar]]:
    """Latencies of one make, a row for every fault and way."""
    rows: list[dict[str, Scalar]] = []
    async with ServerFleet(make, folder, least_s=args.least_s) as fleet:
        per_s = LOAD * len(fleet.servers) / args.least_s
        frontends = {
            way: await fleet.frontend(way.replace(", ", "-"), "--policy", each) for way, each in POLICIES.items()
        }
        run = FleetRun(fleet, samples)
        for fault in FAULTS:
            for way in WAYS:
                await fleet.until_ready(list(frontends.values()))
                target = [frontends[way]] if way in frontends else fleet.servers
                rows.append(await run.tail(way, fault, target, args.requests, per_s))
                print(f"{make.name}, {fault}, {way}: p99 {rows[-1]['p99_s']:.3f} s", flush=True)
    return rows


def main(argv: Sequence[str]) -> int:
    """Measure the fleets whose Pythons are given; 0 if the frontend with collages lost no request, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench fleet", description=(__doc__ or "").partition("\n")[0])
    for name, needs in (("triton", "nvidia-pytriton"), ("mlserver", "mlserver")):
        parser.add_argument(f"--{name}", type=Path, help=f"python of an environment with {needs} and onnxruntime")
    parts = ("throughput", "tails")
    parser.add_argument("--parts", nargs="*", choices=parts, default=parts, help="what to measure (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="of the throughput (%(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="of each round (%(default)s)")
    parser.add_argument("--requests", type=int, default=1000, help="of each tail (%(default)s)")
    parser.add_argument("--least-s", type=float, default=0.1, help="what a run of a model takes there (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the figures (%(default)s)")
    args = parser.parse_args(argv)
    makes = [Make(name, python) for name in ("triton", "mlserver") if (python := getattr(args, name))]
    if not makes:
        parser.error("give --triton or --mlserver: there is nothing to measure")
    found: list[dict[str, Scalar]] = []
    for make in makes:
        with tempfile.TemporaryDirectory() as folder:
            found += asyncio.run(measure(make, args, Path(folder)))
    write_figures("fleet", found, directory=args.out)
    rows = [row for row in found if row["part"] == "tail"]
    columns = (
        "make",
        "fault",
        "way",
        "requests",
        "failed",
        "accuracy",
        "p50_s",
        "p99_s",
        "coded_share",
        "replica_share",
    )
    show(columns, [tuple(_cell(row[column]) for column in columns) for row in rows])
    for row in found:
        if row["part"] == "throughput":
            print(
                f"{row['make']}: {row['frontend_per_s']:.0f}/s through the frontend, {row['direct_per_s']:.0f}/s "
                f"directly, ratio {row['ratio']:.2f}"
            )
    return int(any(row["failed"] for row in rows if row["way"] == WAYS[-1]))


def _cell(value: Scalar) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
