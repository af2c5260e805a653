"""The cost of HTTP beside gRPC, and of traces: ``python -m bench doors``.

The processes are those of ``python -m bench speed``: workers that answer at once, on loopback, and the frontend on a
core of its own, if there are two. Single requests alternate between a case and its baseline, with nothing else
running; rates are measured in turn, round after round.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import opentelemetry.sdk.trace  # noqa: F401 - for the traced frontend

from bench.cluster.rig import WORKERS, Bench, Child
from bench.offer.callers import Ask, http_asks, in_turn, jpeg, unary
from bench.runs.speed import SIZE, Contender, alone, asking, image, rounds, rows, show_rows
from collage.figures import OUT, Scalar
from collage.v1 import predict_pb2, predict_pb2_grpc

GRPC, HTTP, TRACED = "gRPC", "HTTP", "gRPC, traced"
KILOBYTES = 20


async def alternating(
    cases: Sequence[tuple[str, Ask]], count: int, clock: Callable[[], float] = time.perf_counter
) -> list[dict[str, Scalar]]:
    """Medians of single requests of every case in turn, and of their ratios to the first one's, pair by pair."""
    warm = await in_turn([ask for _, ask in cases], count, clock)
    (baseline, _), *_ = cases
    lines: list[dict[str, Scalar]] = []
    for (name, _), times in zip(cases, warm, strict=True):
        line: dict[str, Scalar] = {
            "case": f"latency, {name}",
            "p50_s": statistics.median(times),
            "requests": len(times),
        }
        if name != baseline:
            pairs = zip(times, warm[0], strict=True)
            line |= {"baseline": baseline, "ratio": statistics.median(one / other for one, other in pairs)}
        lines.append(line)
    return lines


async def _collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take spans by HTTP and forget them."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    except (EOFError, ConnectionError):
        writer.close()


async def measure(args: argparse.Namespace, folder: Path) -> list[dict[str, Scalar]]:
    """All rows."""
    collector = await asyncio.start_server(_collect, "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{collector.sockets[0].getsockname()[1]}/v1/traces"
    async with Bench(folder) as bench:
        addresses = await bench.workers("doors", WORKERS, SIZE)
        plain = await bench.frontend("doors", addresses, "--http-port", "0")
        traced = await bench.frontend("doors", addresses, "--traces", endpoint, title="traced")
        picture = jpeg(KILOBYTES)

        async def predict(child: Child) -> Ask:
            stub = predict_pb2_grpc.PredictServiceStub(await bench.channel(child))
            return asking(stub.Predict, predict_pb2.PredictRequest, image=picture)

        async def tensor(child: Child) -> Ask:
            stub = predict_pb2_grpc.PredictServiceStub(await bench.channel(child))
            return asking(stub.Predict, predict_pb2.PredictRequest, tensor=image(SIZE))

        port = plain.http_port or 0
        async with http_asks(port, "/v1/predict", picture) as by_http:
            asks = {GRPC: await predict(plain), HTTP: by_http, TRACED: await predict(traced)}
            found = await alternating(list(asks.items()), args.count)
            processes = {GRPC: plain, HTTP: plain, TRACED: traced}
            cases = [
                Contender(name, processes[name], unary(ask), "" if name == GRPC else GRPC) for name, ask in asks.items()
            ]
            found += rows(cases, await rounds(cases, args.rounds, args.in_flight, args.seconds))
        pair = [("gRPC, 3 KB tensor", await tensor(plain)), ("gRPC, 3 KB tensor, traced", await tensor(traced))]
        found += await alternating(pair, args.count)
    collector.close()
    return found


def main(argv: Sequence[str]) -> int:
    """Run: 0 if it could be measured, whatever the figures; ProcessError if a process did not start."""
    parser = argparse.ArgumentParser(prog="python -m bench doors", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.5, help="per case and round (%(default)s)")
    parser.add_argument("--in-flight", type=int, default=16, help="requests at once, for rates (%(default)s)")
    parser.add_argument("--count", type=int, default=1000, help="single requests of each case (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the figures (%(default)s)")
    args = parser.parse_args(argv)
    show_rows(alone("doors", measure, args), ("p50", "requests", "CPU each", "ratio", "CPU ratio"))
    return 0
