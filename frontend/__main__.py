"""``python -m frontend``: one frontend process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry
from pydantic_settings import CliApp

from collage.model_info import ModelKind
from collage.serving import Server
from collage.v1 import predict_pb2, predict_pb2_grpc
from frontend.config import FrontendSettings
from frontend.dispatch import Dispatcher
from frontend.metrics import FrontendMetrics
from frontend.policy import Policy, Rules
from frontend.server import PredictServicer
from frontend.workers import CollageTransport, Pool, SCnnTransport

SERVICE = predict_pb2.DESCRIPTOR.services_by_name["PredictService"].full_name


@asynccontextmanager
async def running(settings: FrontendSettings) -> AsyncIterator[Server]:
    """A started frontend; SERVING while an s-cnn worker is ready. On exit, requests in flight finish first."""
    registry = CollectorRegistry()
    metrics = FrontendMetrics(registry)
    server = Server(settings, registry, [SERVICE])
    s_cnn = Pool(
        ModelKind.S_CNN,
        settings.s_cnn_workers,
        lambda address: SCnnTransport(address, settings.max_message_bytes),
        settings.resolve_every_s,
    )
    collage = Pool(
        ModelKind.COLLAGE_CNN,
        settings.collage_workers if settings.policy == "collage" else "",
        lambda address: CollageTransport(address, settings.max_message_bytes),
        settings.resolve_every_s,
    )
    rules = Rules.named(
        settings.policy,
        deadline=settings.deadline_s,
        group_wait=settings.group_wait_s,
        accept=settings.accept_threshold,
        extra_load=settings.extra_load,
    )
    updates: set[asyncio.Task[None]] = set()

    def s_cnn_changed() -> None:
        task = asyncio.create_task(server.set_serving(s_cnn.ready > 0))
        updates.add(task)
        task.add_done_callback(updates.discard)

    with ThreadPoolExecutor(settings.image_threads, "image") as executor:
        dispatcher = Dispatcher(
            Policy(rules), s_cnn, collage, metrics, executor, settings.max_in_flight, settings.detection_threshold
        )
        s_cnn.listeners.append(s_cnn_changed)
        metrics.watch_workers("s_cnn", lambda: s_cnn.ready, lambda: len(s_cnn.workers))
        metrics.watch_workers("collage", lambda: collage.ready, lambda: len(collage.workers))
        servicer = PredictServicer(dispatcher, settings.timeout_s, settings.max_pixels, settings.max_in_flight)
        predict_pb2_grpc.add_PredictServiceServicer_to_server(servicer, server.grpc)
        await server.start()
        await s_cnn.start()
        await collage.start()
        try:
            yield server
        finally:
            await server.stop()
            await dispatcher.close()
            await s_cnn.close()
            await collage.close()


async def serve(settings: FrontendSettings) -> None:
    """Run until SIGTERM or SIGINT."""
    async with running(settings) as server:
        await server.run_until_signal()


def main() -> None:
    """Parse the settings and run."""
    settings = CliApp.run(FrontendSettings)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(serve(settings))


if __name__ == "__main__":
    main()
