"""``python -m frontend``: one frontend process."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from collage.model_info import ModelKind
from collage.security import SecurityError
from collage.serving import Server, load_settings
from collage.v1 import predict_pb2, predict_pb2_grpc
from frontend.config import FrontendSettings
from frontend.dispatch import Dispatcher
from frontend.inference import FrontendInference
from frontend.metrics import FrontendMetrics
from frontend.policy.machine import Policy
from frontend.server import PredictServicer
from frontend.system import batch_threads, keep_memory
from frontend.workers import GrpcTransport, Pool, PoolSettings, of_kind, server_name
from inference import open_inference_pb2_grpc
from inference.service import SERVICE as OPEN_INFERENCE

SERVICE = predict_pb2.DESCRIPTOR.services_by_name["PredictService"].full_name


@asynccontextmanager
async def running(settings: FrontendSettings) -> AsyncIterator[Server]:
    """A started frontend; SERVING while an s-cnn worker is ready. On exit, requests in flight finish first."""
    registry = CollectorRegistry()
    metrics = FrontendMetrics(registry, settings.slo_s)
    rules = settings.rules()
    collage_workers = settings.collage_workers if rules.collage else ""
    security = settings.worker_security()
    with batch_threads():  # which gRPC starts with its first server
        server = Server(settings, registry, [SERVICE, OPEN_INFERENCE], connection_age(settings))
    pools = PoolSettings(settings.resolve_every_s, settings.ejection())

    def connect(target: str) -> Callable[[str], GrpcTransport]:
        return functools.partial(
            GrpcTransport,
            max_message_bytes=settings.max_message_bytes,
            security=security,
            name=server_name(target),
        )

    s_cnn = Pool(
        "s_cnn",
        settings.s_cnn_workers,
        connect(settings.s_cnn_workers),
        pools,
        fits=of_kind(ModelKind.S_CNN),
        changed=lambda: server.set_serving(s_cnn.ready > 0),
        ejected=lambda: metrics.ejections.labels("s_cnn").inc(),
    )
    collage = Pool(
        "collage",
        collage_workers,
        connect(collage_workers),
        pools,
        ejected=lambda: metrics.ejections.labels("collage").inc(),
    )
    with ThreadPoolExecutor(settings.image_threads, "image") as executor, ThreadPoolExecutor(1, "collage") as encoder:
        policy = Policy(rules)
        metrics.deadline.set_function(lambda: policy.deadline)
        dispatcher = Dispatcher(
            policy,
            s_cnn,
            collage,
            metrics,
            executor,
            encoder,
            settings.max_in_flight,
            settings.detection_threshold,
            settings.default_label,
            settings.grid,
            settings.max_bytes_in_flight,
        )
        metrics.watch_tasks()
        metrics.watch_workers("s_cnn", s_cnn)
        if collage_workers:  # or an alert would miss what nobody wants
            metrics.watch_workers("collage", collage)
        servicer = PredictServicer(
            dispatcher,
            settings.timeout_s,
            settings.max_pixels,
            settings.max_in_flight,
            server.draining,
            settings.max_connection_age_s or None,
        )
        predict_pb2_grpc.add_PredictServiceServicer_to_server(servicer, server.grpc)
        open_inference = FrontendInference(
            server, dispatcher, settings.timeout_s, settings.max_pixels, settings.max_in_flight
        )
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(open_inference, server.grpc)
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


def connection_age(settings: FrontendSettings) -> list[tuple[str, int]]:
    """gRPC's options to end connections; a stream, however late it began, and its requests end within the grace."""
    age_s = settings.max_connection_age_s
    if not age_s:
        return []
    grace_s = age_s + settings.timeout_s
    return [
        ("grpc.max_connection_age_ms", max(1, round(1000 * age_s))),
        ("grpc.max_connection_age_grace_ms", round(1000 * grace_s)),
    ]


async def serve(settings: FrontendSettings) -> None:
    """Run until SIGTERM or SIGINT."""
    async with running(settings) as server:
        await server.run_until_signal()


def main() -> int:
    """Exit code 0 after draining, 2 if the frontend cannot start; then standard error says why in one line."""
    settings = load_settings(FrontendSettings)
    keep_memory()
    try:
        asyncio.run(serve(settings))
    except (SecurityError, OSError) as error:
        print(f"frontend: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
