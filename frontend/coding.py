"""Codes at work: what is sent for a group, to which workers, and what is decoded from what comes back."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from collage.model_info import ModelInfo
from encoder.code import Code, GroupShape, Outputs
from encoder.tasks import TASKS
from frontend.fitting import CodingSettings, base_misfit, code_of, error_steps, misfit, shape_of
from frontend.jobs import Job, WorkerAnswer
from frontend.metrics import FrontendMetrics
from frontend.policy import events as e
from frontend.policy.elect import Offer
from frontend.policy.groups import Progress
from frontend.workers import Cancellable, Ending, Pool, WorkerFailure

logger = logging.getLogger("collage.frontend")

CHOOSE_EVERY_S = 5.0
"""Seconds between two choices among workers of several shapes."""

Prefer = Callable[[Mapping[GroupShape, int]], GroupShape]
"""Says which shape of groups is best, of those that so many workers run."""


@dataclass(slots=True, eq=False)
class GroupRun:
    """A group whose code is at work."""

    code: Code
    jobs: Mapping[int, Job]
    """Members by place."""
    progress: Progress
    waiting: set[int]
    """Places whose request has not ended."""
    own: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    coded: dict[int, Outputs] = field(default_factory=dict)
    calls: dict[int, Cancellable] = field(default_factory=dict)
    """Redundant runs under way, by row."""
    encoding: asyncio.Task[None] | None = None
    foreign: bool = False
    """Whether a member's own answer is of a model that the code does not decode for: the policy counts it."""
    models: dict[int, ModelInfo] = field(default_factory=dict)
    queue_s: float = 0.0
    inference_s: float = 0.0

    @property
    def over(self) -> bool:
        """Whether nothing more can come of it."""
        return not self.calls and not self.encoding and (self.progress.decoded or not self.waiting)


class Coding:
    """Runs redundant inputs on their workers, one pool for each row, and tells by ``feed`` what became of them.

    It also tells the pools which models fit. ``executor`` encodes. The policy is told Returned for each redundant run
    that was not cancelled, and Decoded once for a group that becomes decodable, or never will.
    """

    def __init__(
        self,
        base: Pool,
        pools: Sequence[Pool],
        metrics: FrontendMetrics,
        executor: Executor,
        feed: Callable[[e.Event], None],
        settings: CodingSettings,
        prefer: Prefer,
    ) -> None:
        self.code: Code | None = None
        """The code of the workers in use; None until there are any."""
        self._pools, self._metrics, self._executor, self._feed = pools, metrics, executor, feed
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._runs: dict[int, GroupRun] = {}
        self.watchers: list[Callable[[GroupRun], object]] = []
        self._models: list[ModelInfo] = []
        self._prefer = prefer
        self._choosing: asyncio.TimerHandle | None = None
        base.fits = base_misfit
        for row, pool in enumerate(pools):
            pool.fits = functools.partial(self._misfit, base, row)
            pool.prefers = functools.partial(self._preferred, pool)
            pool.listeners.append(self._workers_changed)
            base.listeners.append(pool.review)

    @property
    def workers(self) -> int:
        """How many groups can be run at once."""
        return min((pool.ready for pool in self._pools), default=0)

    # From the dispatcher

    def send(self, group: int, jobs: Mapping[int, Job], shape: GroupShape) -> None:
        """Encode and send the ``jobs`` by place; ends in Returned for each redundant input unless it is cancelled."""
        code = self.code
        if code is None or code.shape != shape or not jobs:
            for _ in range(shape.inputs):
                self._returned(group, ok=False, sent=False)
            return
        run = self._runs[group] = GroupRun(code, jobs, Progress(shape), set(jobs))
        for watcher in self.watchers:
            watcher(run)
        inputs = [job.input if (job := jobs.get(place)) else None for place in range(shape.members)]
        if code.quick(inputs):
            try:
                encoded = self._encode(code, inputs)
            except Exception:  # of this group alone; its members have other means
                logger.exception("a group could not be encoded")
                self._give_up(group, run)
            else:
                self._start(group, run, encoded)
        else:
            run.encoding = self._loop.create_task(self._encode_elsewhere(group, run, inputs))
            run.encoding.add_done_callback(functools.partial(self._encoded, group, run))

    def cancel(self, group: int) -> None:
        """Stop the redundant runs of a group that are under way; what is back stays."""
        run = self._runs.get(group)
        if run is None:
            return
        if run.encoding:
            run.encoding.cancel()
        for call in list(run.calls.values()):
            call.cancel()
        self._forget_if_over(group, run)

    def answered(self, job: Job, own: WorkerAnswer) -> None:
        """A member of a group has its own answer, which others may be decoded from."""
        run = self._runs.get(job.group)
        if run is None or job.place is None:
            return
        run.waiting.discard(job.place)
        if own.model.labels == job.model.labels and run.code.base in ("", own.model.version):
            run.own[job.place] = own.output
            if run.progress.answered(job.place):
                self._decode(job.group, run)
        else:
            run.foreign = True
        self._forget_if_over(job.group, run)

    def left(self, job: Job) -> None:
        """A member of a group has ended, with whatever answer."""
        if (run := self._runs.get(job.group)) and job.place is not None:
            run.waiting.discard(job.place)
            self._forget_if_over(job.group, run)

    async def close(self) -> None:
        """Cancel what still runs."""
        if self._choosing:
            self._choosing.cancel()
        encoding = [run.encoding for run in self._runs.values() if run.encoding]
        for group in list(self._runs):
            self.cancel(group)
        await asyncio.gather(*encoding, return_exceptions=True)
        self._runs.clear()

    # Workers

    def _misfit(self, base: Pool, row: int, info: ModelInfo) -> str | None:
        return misfit(info, base.info, row, self._settings)

    def _preferred(self, pool: Pool, offers: Sequence[Offer[ModelInfo]]) -> Set[int]:
        """Where workers of a pool have models of several shapes: those of the best. It is looked at again, as the load
        changes.
        """
        shapes = {index: shape_of(offer.model, self._settings) for index, offer in enumerate(offers) if offer.fits}
        workers: dict[GroupShape, int] = {}
        for index, shape in shapes.items():
            if shape is not None:
                workers[shape] = max(workers.get(shape, 0), offers[index].workers)
        if len(workers) < 2:
            return frozenset()
        if self._choosing is None:
            self._choosing = self._loop.call_later(CHOOSE_EVERY_S, self._choose_again, pool)
        best = self._prefer(workers)
        return {index for index, shape in shapes.items() if shape == best}

    def _choose_again(self, pool: Pool) -> None:
        self._choosing = None
        pool.review()

    def _workers_changed(self) -> None:
        """Tell how many groups can be run at once, and what shape they have."""
        models = [pool.info for pool in self._pools if pool.info]
        if len(models) < len(self._pools):
            return
        if models != self._models:
            self._models, before = models, self.code
            try:
                self.code = code_of(models, self._settings)
            except ValueError as error:
                self.code = None
                logger.error("no redundant worker can be used: %s", error)  # noqa: TRY400 - it says it all
                if before:
                    self._feed(e.CodedWorkers(self._loop.time(), 0, before.shape))
            if self._settings.accuracy_budget is not None and not models[0].errors:
                logger.warning("--accuracy-budget has no effect: %s says nothing of its errors", models[0].name)
        if self.code:
            errors, accept = error_steps(models[0]), models[0].accept_threshold
            self._feed(e.CodedWorkers(self._loop.time(), self.workers, self.code.shape, accept, errors))

    # Redundant runs

    def _encode(self, code: Code, inputs: Sequence[NDArray[np.uint8] | None]) -> list[NDArray[np.uint8]]:
        with self._metrics.encode.time():
            return code.encode(inputs)

    async def _encode_elsewhere(self, group: int, run: GroupRun, inputs: Sequence[NDArray[np.uint8] | None]) -> None:
        encoded = await self._loop.run_in_executor(self._executor, self._encode, run.code, inputs)
        self._start(group, run, encoded)

    def _encoded(self, group: int, run: GroupRun, task: asyncio.Task[None]) -> None:
        run.encoding = None
        error = None if task.cancelled() else task.exception()
        if error:
            logger.error("a group could not be encoded", exc_info=error)
        if task.cancelled() or error:
            self._give_up(group, run)
        else:
            self._forget_if_over(group, run)

    def _give_up(self, group: int, run: GroupRun) -> None:
        """A group's code is not sent, and so costs nothing."""
        for _ in range(run.progress.out):
            self._returned(group, ok=False, sent=False)
        run.progress.out = 0
        self._forget_if_over(group, run)

    def _start(self, group: int, run: GroupRun, encoded: Sequence[NDArray[np.uint8]]) -> None:
        first = run.jobs[min(run.jobs)]
        name = f"{run.code.name}:{first.name}"
        timeout_s = max(0.0, max(job.expires for job in run.jobs.values()) - self._loop.time())
        for row, redundant in enumerate(encoded):
            # Chosen now, not before: groups that close together would all see the same idle worker.
            worker = self._pools[row].pick()
            if worker is None or worker.info != self._models[row] or run.code is not self.code:
                run.progress.returned(ok=False)
                self._returned(group, ok=False, sent=False)
                continue
            self._metrics.sent.inc("coded")
            run.models[row] = self._models[row]
            ended = functools.partial(self._ended, group, run, row, worker.address, name)
            run.calls[row] = worker.call(redundant, name, row, timeout_s, ended)
        self._forget_if_over(group, run)

    def _ended(self, group: int, run: GroupRun, row: int, address: str, name: str, outcome: Ending) -> None:
        del run.calls[row]
        if outcome is None:
            return
        ok = not isinstance(outcome, WorkerFailure)
        if isinstance(outcome, WorkerFailure):
            self._metrics.failures.labels("coded", outcome.code).inc()
            outcome.log(address, name)
        else:
            run.coded[row] = outcome.outputs
            run.queue_s, run.inference_s = outcome.queue_s, outcome.inference_s
        self._returned(group, ok=ok)
        if run.progress.returned(ok):
            self._decode(group, run, run.models[row])
        self._forget_if_over(group, run)

    def _returned(self, group: int, *, ok: bool, sent: bool = True) -> None:
        self._feed(e.Returned(self._loop.time(), group, ok, sent))

    def _decode(self, group: int, run: GroupRun, model: ModelInfo | None = None) -> None:
        at = self._loop.time()
        model = model or run.models[min(run.coded)]
        confidences: dict[int, float] = {}
        try:
            with self._metrics.decode.time():
                decoded = run.code.decode(run.own, run.coded, sorted(run.jobs))
            for place, found in decoded.items():
                job = run.jobs[place]
                if (job.model.task, job.model.labels) != (model.task, model.labels):
                    continue
                told = found.confidence
                confidence = TASKS[model.task].confidence(found.output) if told is None else told
                source = run.code.source
                job.coded = WorkerAnswer(found.output, model, source, run.queue_s, run.inference_s, confidence)
                confidences[place] = confidence
        except Exception:  # of this group alone; its members have other means
            logger.exception("a group could not be decoded")
        self._feed(e.Decoded(at, group, confidences))

    def _forget_if_over(self, group: int, run: GroupRun) -> None:
        self._give_up_if_out_of_reach(group, run)
        if run.over and self._runs.get(group) is run:
            del self._runs[group]

    def _give_up_if_out_of_reach(self, group: int, run: GroupRun) -> None:
        """Tell the policy that a group will never be decodable, where it cannot know: it counts every own answer."""
        out_of_reach = run.foreign and not run.progress.reachable(len(run.waiting) - 1)
        if run.waiting and out_of_reach and not run.progress.decoded:
            run.progress.decoded = True
            self._feed(e.Decoded(self._loop.time(), group, {}))
