"""``python -m frontend``: one frontend process."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from collage.security import SecurityError
from collage.serving import Server, load_settings
from collage.v1 import predict_pb2, predict_pb2_grpc
from frontend.coding import CodingSettings, base_misfit, misfit
from frontend.config import FrontendSettings
from frontend.dispatch import Dispatcher
from frontend.inference import FrontendInference
from frontend.metrics import FrontendMetrics
from frontend.policy import Policy
from frontend.recorder import Recorder, write
from frontend.server import PredictServicer
from frontend.system import batch_threads, keep_memory
from frontend.workers import Fits, GrpcTransport, Pool, PoolSettings, server_name
from inference import open_inference_pb2_grpc
from inference.service import SERVICE as OPEN_INFERENCE

logger = logging.getLogger("collage.frontend")

SERVICE = predict_pb2.DESCRIPTOR.services_by_name["PredictService"].full_name


@asynccontextmanager
async def running(settings: FrontendSettings) -> AsyncIterator[Server]:
    """A started frontend; SERVING while an s-cnn worker is ready. On exit, requests in flight finish first."""
    registry = CollectorRegistry()
    metrics = FrontendMetrics(registry, settings.slo_s)
    policy = Policy(settings.rules())
    metrics.deadline.set_function(lambda: policy.deadline)
    metrics.watch_tasks()
    with batch_threads():  # which gRPC starts with its first server
        server = Server(settings, registry, [SERVICE, OPEN_INFERENCE], connection_age(settings))
    base = pool("s_cnn", settings.s_cnn_workers, settings, metrics, base_misfit)
    dispatching = settings.dispatching()
    targets = settings.coded_workers.split() if policy.rules.coded else []
    coded = [
        pool("coded", target, settings, metrics, redundant_misfit(base, row, dispatching.coding))
        for row, target in enumerate(targets)
    ]
    metrics.watch_workers("s_cnn", [base])
    if coded:  # or an alert would miss what nobody wants
        metrics.watch_workers("coded", coded)
    base.listeners.append(lambda: server.set_serving(base.ready > 0))
    recorder = Recorder() if settings.events_file else None
    with ThreadPoolExecutor(settings.image_threads, "image") as executor, ThreadPoolExecutor(1, "coding") as encoder:
        dispatcher = Dispatcher(policy, base, coded, metrics, executor, encoder, dispatching, recorder)
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
        for each in (base, *coded):
            await each.start()
        try:
            async with recording(recorder, settings.events_file, dispatcher):
                yield server
        finally:
            await server.stop()
            await dispatcher.close()
            for each in (base, *coded):
                await each.close()


def redundant_misfit(base: Pool, row: int, settings: CodingSettings) -> Fits:
    """What keeps a model from running redundant input ``row`` for the base model in use."""
    return lambda info: misfit(info, base.info, row, settings)


def pool(role: str, target: str, settings: FrontendSettings, metrics: FrontendMetrics, fits: Fits) -> Pool:
    """The workers of a role that ``target`` lists, as far as their model ``fits``."""
    connect = functools.partial(
        GrpcTransport,
        max_message_bytes=settings.max_message_bytes,
        security=settings.worker_security(),
        name=server_name(target),
    )
    choosing = PoolSettings(settings.resolve_every_s, settings.ejection())
    return Pool(role, target, connect, choosing, fits=fits, ejected=metrics.ejections.labels(role).inc)


@asynccontextmanager
async def recording(recorder: Recorder | None, path: Path | None, dispatcher: Dispatcher) -> AsyncIterator[None]:
    """Write what was recorded on SIGUSR1 and in the end."""
    if recorder is None or path is None:
        yield
        return
    loop, writing = asyncio.get_running_loop(), asyncio.Lock()
    tasks: set[asyncio.Task[None]] = set()

    async def save() -> None:
        workers, coded = len(dispatcher.base.workers), dispatcher.coded_workers
        async with writing:
            try:
                count = await asyncio.to_thread(
                    write, path, recorder.batches(), dispatcher.policy.rules, workers, coded
                )
                logger.info("wrote %d events to %s", count, path)
            except OSError as error:
                logger.error("events could not be written: %s", error)  # noqa: TRY400 - it says it all

    def asked() -> None:
        tasks.add(task := loop.create_task(save()))
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGUSR1, asked)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)
        await save()


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


def one_list(arguments: Sequence[str]) -> list[str]:
    """Arguments with all that follows ``--coded-workers``, up to the next flag, as its one value."""
    joined: list[str] = []
    for argument in arguments:
        if len(joined) > 1 and joined[-2] == "--coded-workers" and not argument.startswith("-"):
            joined[-1] += f" {argument}"
        else:
            joined.append(argument)
    return joined


def main() -> int:
    """Exit code 0 after draining, 2 if the frontend cannot start; then standard error says why in one line."""
    settings = load_settings(FrontendSettings, one_list(sys.argv[1:]))
    keep_memory()
    try:
        asyncio.run(serve(settings))
    except (SecurityError, OSError) as error:
        print(f"frontend: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
