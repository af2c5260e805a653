"""Workers that answer at once, and bare proxies in front of them, to measure the frontend's own cost against.

``python -m bench instant workers --s-cnn 9 --collage 1 --size 32 --addresses FOLDER`` and ``python -m bench instant
proxy --workers FILE``. The workers are production servicers over an engine that computes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
from collections.abc import Sequence
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from numpy.typing import NDArray

from collage.channels import channel_options, server_options
from collage.errors import boundary
from collage.model_info import ModelInfo, ModelKind
from collage.serving import new_server
from collage.tensors import pixels_from_tensor, to_tensor
from collage.v1 import model_pb2, model_pb2_grpc, predict_pb2, tensor_pb2
from encoder.grid import Grid
from encoder.image import decode
from worker.engine import Engine, Inference
from worker.model import Floats
from worker.server import ModelServicer

LABELS = tuple("abcdefghij")
K = 3
HOST = "127.0.0.1"


class InstantEngine(Engine):
    """Always the first class: alone, or in all K x K cells. Answers after ``service_s`` seconds, any number at once."""

    def __init__(self, info: ModelInfo, service_s: float) -> None:
        self.info, self._service_s = info, service_s
        self._outputs = _outputs(info)

    def image(self, tensor: tensor_pb2.Tensor) -> NDArray[np.uint8]:
        """The pixels of a valid tensor, as for any worker."""
        return pixels_from_tensor(tensor, self.info.input.shape)

    async def infer(
        self, image: NDArray[np.uint8], request_id: str = "", attempt: int = 0, time_remaining: float | None = None
    ) -> Inference:
        """The answer, when it is due; no processor time is spent until then."""
        if self._service_s:
            await asyncio.sleep(self._service_s)
        return Inference(self._outputs, 0.0, 0.0)


def _outputs(info: ModelInfo) -> tuple[Floats, ...]:
    sure = np.eye(1, len(LABELS), dtype=np.float32)
    if info.kind is ModelKind.S_CNN:
        return (5 * sure[0],)
    grid = Grid(info.k, info.size)
    return grid.boxes, np.full(grid.cells, 0.95, np.float32), np.repeat(sure, grid.cells, axis=0)


async def _worker(info: ModelInfo, service_s: float) -> tuple[grpc.aio.Server, str]:
    """A started worker, SERVING, and its address."""
    server = new_server(server_options())
    engine = InstantEngine(info, service_s)
    model_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(engine, info, asyncio.Event()), server)
    status = health.HealthServicer()
    await status.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    return server, f"{HOST}:{port}"


async def workers(s_cnn: int, collage: int, size: int, service_s: float, addresses: Path) -> list[grpc.aio.Server]:
    """Start them all. The folder ``addresses`` gets a file of addresses for each kind of model, named by it."""
    models = (
        (ModelInfo.make("instant", ModelKind.S_CNN, LABELS, size, version="1"), s_cnn),
        (ModelInfo.collage("instant", LABELS, K * 32, K, 0.1, accept_threshold=0.5, version="1"), collage),
    )
    servers = []
    for info, count in models:
        started = [await _worker(info, service_s) for _ in range(count)]
        servers += [server for server, _ in started]
        (addresses / info.kind).write_text("\n".join(address for _, address in started))
    return servers


class _Proxy:
    """Passes tensors on, and images decoded, to one worker after the other: the least that a proxy must do.

    Images are decoded in the event loop: with one core for all that is faster than handing them to a thread.
    """

    def __init__(self, addresses: Sequence[str], size: int) -> None:
        channels = [grpc.aio.insecure_channel(address, channel_options()) for address in addresses]
        self._workers = itertools.cycle(model_pb2_grpc.ModelServiceStub(channel) for channel in channels)
        self._size = size

    @boundary
    async def classify(self, request: model_pb2.RunRequest, context: object) -> model_pb2.RunResponse:
        return await next(self._workers).Run(request, timeout=10)

    @boundary
    async def predict(self, request: predict_pb2.PredictRequest, context: object) -> predict_pb2.PredictResponse:
        image = to_tensor(decode(request.image, self._size))
        response = await next(self._workers).Run(model_pb2.RunRequest(input=image), timeout=10)
        scores = np.frombuffer(response.outputs[0].data, "<f4")
        best = int(scores.argmax())
        found = predict_pb2.Classification(label=LABELS[best], index=best, probability=float(scores[best]))
        return predict_pb2.PredictResponse(classes=[found])


async def proxy(addresses: Sequence[str], size: int, port: int) -> tuple[grpc.aio.Server, int]:
    """A started proxy, and its port."""
    server = grpc.aio.server(options=server_options())
    servicer = _Proxy(addresses, size)
    for service, method, handle, request, response in (
        ("ModelService", "Run", servicer.classify, model_pb2.RunRequest, model_pb2.RunResponse),
        ("PredictService", "Predict", servicer.predict, predict_pb2.PredictRequest, predict_pb2.PredictResponse),
    ):
        handler = grpc.unary_unary_rpc_method_handler(handle, request.FromString, response.SerializeToString)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(f"collage.v1.{service}", {method: handler}),)
        )
    port = server.add_insecure_port(f"{HOST}:{port}")
    await server.start()
    return server, port


async def _run(args: argparse.Namespace) -> None:
    port = 0
    if args.command == "workers":
        servers = await workers(args.s_cnn, args.collage, args.size, args.service_s, args.addresses)
    else:
        server, port = await proxy(args.workers.read_text().split(), args.size, args.port)
        servers = [server]
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    print(f"ready port={port} metrics_port=0", flush=True)
    await ended.wait()
    await asyncio.gather(*(server.stop(None) for server in servers))


def main(argv: Sequence[str]) -> int:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m bench instant", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    instant = commands.add_parser("workers")
    instant.add_argument("--s-cnn", type=int, default=9)
    instant.add_argument("--collage", type=int, default=1)
    instant.add_argument("--service-s", type=float, default=0.0)
    instant.add_argument("--addresses", type=Path, required=True)
    bare = commands.add_parser("proxy")
    bare.add_argument("--workers", type=Path, required=True)
    for command in (instant, bare):
        command.add_argument("--size", type=int, default=32)
        command.add_argument("--port", type=int, default=0)
        command.add_argument("--metrics-port", type=int, default=0)
    asyncio.run(_run(parser.parse_args(argv)))
    return 0
