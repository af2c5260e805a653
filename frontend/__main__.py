"""``python -m frontend``: one frontend process."""

from __future__ import annotations

if __name__ == "__main__":
    from collage import startup

    startup.before_imports()

import asyncio
import functools
import itertools
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

from prometheus_client import CollectorRegistry

from collage import flags
from collage.security import SecurityError
from collage.serving import Server, load_settings
from collage.system import batch_threads, keep_memory
from collage.v1 import predict_pb2, predict_pb2_grpc
from frontend.config import FrontendSettings
from frontend.dispatch import Dispatcher, DispatchSettings
from frontend.inference import FrontendInference
from frontend.metrics import FrontendMetrics
from frontend.own_code import CodeError, own_code
from frontend.policy import Rules
from frontend.policy.choices import CHOICES
from frontend.recorder import Recorder, recording
from frontend.server import PredictServicer
from frontend.tracing import TracedDispatcher
from frontend.workers import (
    GrpcTransport,
    OpenInferenceTransport,
    Pool,
    PoolSettings,
    TargetError,
    check,
    read_description,
    server_name,
)
from inference import open_inference_pb2_grpc
from inference.service import SERVICE as OPEN_INFERENCE

logger = logging.getLogger("collage.frontend")

LISTS = ("--coded-workers", "--coded-descriptions")
SERVICE = predict_pb2.DESCRIPTOR.services_by_name["PredictService"].full_name


@asynccontextmanager
async def running(settings: FrontendSettings) -> AsyncIterator[Server]:
    """A started frontend; SERVING while an s-cnn worker is ready. On exit, requests in flight finish first."""
    registry = CollectorRegistry(auto_describe=True)  # or single metrics could not be asked for
    metrics = FrontendMetrics(registry, settings.slo_s)
    rules, events = settings.rules(), settings.events_file
    metrics.watch_tasks()
    with batch_threads():  # which gRPC starts with its first server
        held_bytes = settings.max_bytes_in_flight // 2  # the other half may be of requests in flight
        server = Server(settings, registry, [SERVICE, OPEN_INFERENCE], connection_age(settings), held_bytes)
    base = pool("s_cnn", settings.s_cnn_workers, settings.s_cnn_description, settings, metrics)
    described = [*map(Path, settings.coded_descriptions.split())] or itertools.repeat(None)
    listed = zip(settings.coded_workers.split(), described, strict=False)
    coded = [pool("coded", *each, settings, metrics) for each in listed if rules.coded]
    metrics.watch_workers("s_cnn", lambda state: base.counts[state])
    if coded:  # or an alert would miss what nobody wants
        metrics.watch_workers("coded", lambda state: sum(pool.counts[state] for pool in coded))
    base.listeners.append(lambda: server.set_serving(base.ready > 0))
    recorder = Recorder()
    threads = settings.image_threads + settings.slow_image_threads
    with ThreadPoolExecutor(threads, "image") as executor, ThreadPoolExecutor(1, "coding") as encoder:
        record = recorder.add if events else None

        def counts() -> tuple[int, int]:
            return len(base.workers), dispatcher.coded_workers

        make = functools.partial(TracedDispatcher, server.traces) if server.traces else Dispatcher
        choices = dispatching(settings)
        dispatcher = make(rules, base, coded, metrics, executor, encoder, choices, record)
        dispatchers = [dispatcher]
        servicer = PredictServicer(
            dispatcher,
            settings.timeout_s,
            settings.max_pixels,
            server.draining,
            settings.max_connection_age_s or None,
        )
        predict_pb2_grpc.add_PredictServiceServicer_to_server(servicer, server.grpc)
        open_inference = FrontendInference(server, dispatcher, settings.timeout_s, settings.max_pixels)
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(open_inference, server.grpc)
        await server.start()
        for each in (base, *coded):
            await each.start()
        try:
            if settings.http_port is not None:
                from frontend.http.site import open_port

                def unprotected() -> Dispatcher:
                    separate = FrontendMetrics(CollectorRegistry())
                    dispatchers.append(Dispatcher(Rules.named("none"), base, [], separate, executor, encoder, choices))
                    return dispatchers[-1]

                await open_port(server, settings, servicer, open_inference, dispatcher, coded, unprotected)
            async with recording(recorder, events, rules, counts) if events else nullcontext():
                yield server
        finally:
            await server.stop()
            for started in dispatchers:
                await started.close()
            for each in (base, *coded):
                await each.close()


def pool(
    role: str, target: str, description: Path | None, settings: FrontendSettings, metrics: FrontendMetrics
) -> Pool:
    """The workers of a role that ``target`` lists. Workers of another make have a file with a ``description``.

    Raises TargetError if that cannot be used.
    """
    other = read_description(description) if description else None
    transport = functools.partial(OpenInferenceTransport, description=other) if other else GrpcTransport
    connect = functools.partial(
        transport,
        max_message_bytes=settings.max_message_bytes,
        security=settings.worker_security(),
        name=server_name(target),
        resolve_every_s=settings.resolve_every_s,
    )
    choice = CHOICES[settings.worker_choice]
    choosing = PoolSettings(settings.resolve_every_s, settings.ejection(), choice=choice)
    return Pool(role, target, connect, choosing, ejected=metrics.ejections.labels(role).inc)


def check_targets(settings: FrontendSettings) -> None:
    """Raise TargetError if a list of workers can never name one, or a description cannot be used; it says which.

    Raise CodeError if there is no such code.
    """
    for flag, targets in (("--s-cnn-workers", settings.s_cnn_workers), ("--coded-workers", settings.coded_workers)):
        try:
            for target in targets.split():
                check(target)
        except TargetError as error:
            raise TargetError(f"{flag}: {error}") from None
    if settings.s_cnn_description:
        read_description(settings.s_cnn_description)
    for file in settings.coded_descriptions.split():
        read_description(Path(file))
    own_code(settings.code)


def dispatching(settings: FrontendSettings) -> DispatchSettings:
    """What the dispatcher has to know."""
    return DispatchSettings(
        max_in_flight=settings.max_in_flight,
        max_bytes=settings.max_bytes_in_flight,
        caller_share=settings.caller_share,
        slow_images=settings.slow_image_threads,
        default_label=settings.default_label,
        detection_threshold=settings.detection_threshold,
        grid=settings.grid,
        accuracy_budget=settings.accuracy_budget,
        code=own_code(settings.code),
    )


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
    """Arguments with all that follows a flag of ``LISTS``, up to the next flag, as its one value."""
    joined: list[str] = []
    for argument in arguments:
        if len(joined) > 1 and joined[-2] in LISTS and not argument.startswith("-"):
            joined[-1] += f" {argument}"
        else:
            joined.append(argument)
    return joined


def first_line(settings: FrontendSettings) -> str:
    """What was started, for the log: release, workers, policy and budget. Which model they serve is logged later."""
    return (
        f"frontend {flags.version()}: policy {settings.policy}, extra load {settings.extra_load:.3g} at most, "
        f"s-cnn workers {settings.s_cnn_workers}, redundant workers {settings.coded_workers or 'none'}"
    )


def main() -> int:
    """Exit code 0 after draining, 2 if the frontend cannot start; then standard error says why in one line."""
    settings = load_settings(FrontendSettings, one_list(sys.argv[1:]))
    try:
        check_targets(settings)
        logger.info("%s", first_line(settings))
        keep_memory()
        asyncio.run(serve(settings))
    except (TargetError, CodeError, SecurityError, OSError) as error:
        print(f"frontend: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
