"""Collages of requests in flight: which workers can take them, what is sent, and what comes back."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor

from collage.model_info import ModelInfo, ModelKind
from encoder.collage import CollageCode, Detections
from encoder.grid import Grid
from encoder.image import Pixels
from frontend.jobs import Answer, Job
from frontend.metrics import FrontendMetrics
from frontend.policy import events as e
from frontend.workers import Pool, WorkerFailure

logger = logging.getLogger("collage.frontend")


class Coding:
    """Sends collages to a pool of collage workers, and tells by ``feed`` what became of them.

    ``executor`` makes collages. ``detection_threshold`` takes the place of the models' own; workers with another
    grid than ``k`` x ``k`` are refused, if that is given.
    """

    def __init__(
        self,
        s_cnn: Pool,
        workers: Pool,
        metrics: FrontendMetrics,
        executor: Executor,
        feed: Callable[[e.Event], None],
        detection_threshold: float | None = None,
        k: int | None = None,
    ) -> None:
        self.code: CollageCode | None = None
        """The code of the workers in use; None until there are any."""
        self._s_cnn, self._workers, self._metrics, self._executor = s_cnn, workers, metrics, executor
        self._feed = feed
        self._detection_threshold, self._k = detection_threshold, k
        self._loop = asyncio.get_running_loop()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._sent: set[int] = set()  # of these
        workers.fits = self._fits
        workers.listeners.append(self._workers_changed)
        s_cnn.listeners.append(workers.review)

    def send(self, group: int, jobs: Mapping[int, Job]) -> None:
        """Send a collage of the ``jobs`` by cell; ends in Decoded or CollageFailed unless it is cancelled."""
        task = self._running[group] = asyncio.create_task(self._run(group, jobs))
        task.add_done_callback(functools.partial(self._ended, group))

    def cancel(self, group: int) -> None:
        """Give a collage up, if it is not back."""
        if task := self._running.get(group):
            task.cancel()

    async def close(self) -> None:
        """Cancel what still runs."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    # Workers

    def _fits(self, info: ModelInfo) -> str | None:
        """What keeps a collage-cnn from protecting the s-cnn in use, if anything; empty if that is not known yet."""
        if info.kind is not ModelKind.COLLAGE_CNN:
            return f"it is a {info.kind}, expected a {ModelKind.COLLAGE_CNN}"
        s_cnn = self._s_cnn.info
        if s_cnn is None:
            return ""
        if info.labels != s_cnn.labels:
            return f"its labels are not those of the s-cnn {s_cnn.name} {s_cnn.version}"
        if info.k < 2:
            return f"its grid is {info.k} x {info.k}: a collage has at least 2 x 2 cells"
        if self._k not in (None, info.k):
            return f"its grid is {info.k} x {info.k}, and this frontend is set to {self._k} x {self._k}"
        if info.size < info.k or max(Grid(info.k, info.size).cell_size(0)) > s_cnn.size:
            return (
                f"{info.k} x {info.k} cells in {info.size} pixels do not go with the s-cnn {s_cnn.name} "
                f"{s_cnn.version} of {s_cnn.size} pixels"
            )
        return None

    def _workers_changed(self) -> None:
        """Tell how many collage workers are ready, and what grid they have."""
        info = self._workers.info
        if info is None:
            return
        grid = Grid(info.k, info.size)
        if self.code is None or self.code.grid != grid:
            threshold = self._detection_threshold
            self.code = CollageCode(grid, info.detection_threshold if threshold is None else threshold)
        self._feed(e.CollageWorkers(self._loop.time(), self._workers.ready, grid.cells, info.accept_threshold))

    # Collages

    async def _run(self, group: int, jobs: Mapping[int, Job]) -> None:
        code = self.code
        if code is None or not jobs:
            self._feed(e.CollageFailed(self._loop.time(), group, sent=False))
            return
        name = f"collage:{jobs[min(jobs)].name}"
        expires = max(job.expires for job in jobs.values())
        images = [job.image if (job := jobs.get(cell)) else None for cell in range(code.members)]

        def encode() -> Pixels:
            with self._metrics.encode.time():
                return code.encode(images)[0]

        if code.fits(images):
            collage = encode()  # which only copies
        else:
            collage = await self._loop.run_in_executor(self._executor, encode)
        # Chosen now, not before: groups that close together would all see the same idle worker.
        worker = self._workers.pick()
        model = worker.info if worker else None
        if worker is None or model is None or Grid(model.k, model.size) != code.grid:
            self._feed(e.CollageFailed(self._loop.time(), group, sent=False))
            return
        self._metrics.sent.inc("collage")
        self._sent.add(group)
        try:
            reply = await worker.ask(collage, name, max(0.0, expires - self._loop.time()))
        except WorkerFailure as failure:
            self._metrics.failures.labels("collage", failure.code).inc()
            failure.log(worker.address, name)
            self._feed(e.CollageFailed(self._loop.time(), group))
            return
        at = self._loop.time()
        with self._metrics.decode.time():
            predictions = code.decode([Detections(*reply.outputs)], [cell in jobs for cell in range(code.members)])
        confidences = {}
        for cell, job in jobs.items():
            if (prediction := predictions[cell]) and model.labels == job.model.labels:
                job.coded = Answer(
                    prediction.probabilities, model, reply.queue_s, reply.inference_s, prediction.confidence
                )
                confidences[cell] = prediction.confidence
        self._feed(e.Decoded(at, group, confidences))

    def _ended(self, group: int, task: asyncio.Task[None]) -> None:
        del self._running[group]
        sent = group in self._sent
        self._sent.discard(group)
        if task.cancelled():
            if not sent:  # and so costs nothing
                self._feed(e.CollageFailed(self._loop.time(), group, sent=False))
        elif error := task.exception():
            logger.error("a collage failed unexpectedly", exc_info=error)
            self._feed(e.CollageFailed(self._loop.time(), group))
