"""The asyncio shell around the policy: admits requests, feeds events in, carries actions out."""

from __future__ import annotations

import asyncio
import functools
import itertools
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collage.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, ServiceError, Unavailable
from collage.model_info import ModelInfo
from encoder.code import GroupShape, Source
from encoder.tasks import TASKS, TaskName
from frontend.coding import Coding
from frontend.fitting import CodingSettings
from frontend.jobs import ImageLine, Job, Outcome, WorkerAnswer
from frontend.metrics import FrontendMetrics
from frontend.policy import MAX_BYTES, Admission, Policy, Rules, Shares
from frontend.policy import events as e
from frontend.timers import PolicyTimers
from frontend.workers import Cancellable, Ending, Pool, WorkerFailure

NONE_READY = "no s-cnn worker is ready: try again later"
NO_MEMORY = "there is not enough memory for this image now: try again later, or send a smaller one"
SHORTEST_RETRY_S = 0.01
AT_ONCE_S = 0.1  # images that take longer to decode wait for a place of their own, so that others need not wait


@dataclass(frozen=True, kw_only=True)
class DispatchSettings(CodingSettings):
    """What the operator decides about requests and codes."""

    max_in_flight: int = 1024
    """Requests admitted at once."""
    max_bytes: int = MAX_BYTES
    """Bytes that requests in flight may hold."""
    caller_share: float = 0.5
    """Share of both that one caller may have, 0 to 1."""
    slow_images: int = 1
    """Images decoded at once that take long; fewer than the executor has threads, or others would wait for them."""
    default_label: str = ""
    """The answer to a request whose time runs out; it fails if this is empty, or no class of the model."""


class Dispatcher:
    """Serves requests by rules, with a pool of base workers, and one pool for each redundant input.

    Create it before the pools start: it says which models they may use. ``executor`` decodes images; ``encoder``
    encodes groups, which are not to wait in line with images. ``record`` gets every batch of events that the policy
    gets.
    """

    def __init__(
        self,
        rules: Rules,
        base: Pool,
        coded: Sequence[Pool],
        metrics: FrontendMetrics,
        executor: Executor,
        encoder: Executor,
        settings: DispatchSettings,
        record: Callable[[Sequence[e.Event]], None] | None = None,
    ) -> None:
        self.policy, self.base, self.metrics = Policy(rules), base, metrics
        self._loop = asyncio.get_running_loop()
        self._settings, self._record = settings, record
        self._images = ImageLine(executor, settings.slow_images, metrics.prepare)
        self._admission = Admission()
        self._shares = Shares(settings.max_in_flight, settings.max_bytes, settings.caller_share)
        base.listeners.append(lambda: self._shares.resize(base.ready))
        self._ids = itertools.count(1)
        self._prefix = secrets.token_hex(3)
        self._jobs: dict[int, Job] = {}
        self._timers = PolicyTimers(self._feed, self._jobs, self.policy.groups.is_open)
        metrics.in_flight.set_function(lambda: self._shares.all.requests)
        metrics.deadline.set_function(lambda: self.policy.deadline)
        self._calls: dict[tuple[int, int], Cancellable] = {}
        self._events: list[e.Event] = []
        self._coding = Coding(base, coded, metrics, encoder, self._feed, settings, self.policy.prefer)
        self.group_watchers = self._coding.watchers

    # Requests

    async def predict(
        self,
        prepare: Callable[[int], NDArray[np.uint8]],
        request_id: str,
        timeout_s: float,
        quick: bool = False,
        size: int = 0,
        caller: str = "",
    ) -> Outcome:
        """Serve one request, of which ``size`` bytes are held until it is answered, for the account of ``caller``.

        ``prepare`` makes the base model's input for a given size; it may raise ValueError for a bad image, and
        MemoryError. It runs in the executor unless it is ``quick``: takes less time than handing it over (60 us), as
        for raw pixels. Raises a ``ServiceError`` when there is no answer: InvalidArgument, ResourceExhausted,
        Unavailable or DeadlineExceeded.
        """
        admitted_at = self._loop.time()
        self._admit(timeout_s, size, quick, caller)
        self._shares.take(caller, 1, size)
        code = "INTERNAL"
        try:
            outcome = await self._serve(prepare, request_id, admitted_at, admitted_at + timeout_s, quick)
            code = "OK"
        except ServiceError as error:
            code = error.code.name
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        finally:
            self._shares.leave(caller, 1, size)
            self.metrics.requests.inc(code)
        self.metrics.answered(outcome.answered.source, outcome.total_s)
        return outcome

    @property
    def most_of_one(self) -> int:
        """How many requests one caller may have in flight."""
        return self._shares.most_of_one

    def holding(self, size: int, caller: str) -> AbstractContextManager[None]:
        """Hold ``size`` bytes that several requests share; raises ResourceExhausted if there is no room for them."""
        if refusal := self._shares.refusal(caller, 0, size):
            raise self._refused(*refusal, self._admission.service)
        return self._shares.holding(caller, 0, size)

    def _admit(self, timeout_s: float, size: int, quick: bool, caller: str) -> None:
        """Refuse what would only wait in vain: now, while the caller can still do something else."""
        preparing = 0 if quick else self._images.waiting
        queue = self.base.balancer.shortest_queue + self._images.waiting / max(1, self.base.ready)
        if refusal := self._shares.refusal(caller, 1, size):
            raise self._refused(*refusal, queue * self._admission.service)
        if (excess := self._admission.excess(preparing, queue, self.policy.rules.time_to_answer(timeout_s))) > 0:
            raise self._refused("deadline", f"the queue is too long for an answer within {timeout_s:.3g} s", excess)

    def _refused(self, reason: str, told: str, retry_after_s: float) -> ResourceExhausted:
        self.metrics.refused.labels(reason).inc()
        self.metrics.requests.inc("RESOURCE_EXHAUSTED")
        return ResourceExhausted(
            f"{told}: try again later", max(retry_after_s, self._admission.service, SHORTEST_RETRY_S)
        )

    async def _serve(
        self,
        prepare: Callable[[int], NDArray[np.uint8]],
        request_id: str,
        admitted_at: float,
        expires: float,
        quick: bool,
    ) -> Outcome:
        model = self.base.info
        if model is None:
            raise Unavailable(NONE_READY)
        id = next(self._ids)
        name = request_id or f"{self._prefix}-{id}"
        job = Job(id, name, admitted_at, expires, model, self._loop.create_future())
        latest = admitted_at + self.policy.rules.time_to_answer(expires - admitted_at)
        before = self._images.waiting
        try:
            if quick:
                job.input = prepare(model.size)
            else:
                await self._prepare(job, prepare, latest)
        except TimeoutError:
            self._fail(job, expired=True)
        except ValueError as error:
            raise InvalidArgument(str(error)) from None
        except MemoryError:
            retry_after_s = max(self._admission.service, SHORTEST_RETRY_S)
            raise ResourceExhausted(NO_MEMORY, retry_after_s) from None
        if not quick and not job.slow:
            self._admission.prepared(self._loop.time() - admitted_at, before)
        at = self._loop.time()
        if at >= latest and not job.future.done():  # no worker could be in time, nor be blamed
            self._fail(job, expired=True)
        if job.future.done():
            return await job.future
        self._jobs[id] = job
        self._feed_now(e.Arrived(at, id, latest))
        try:
            return await job.future
        except asyncio.CancelledError:
            self._feed(e.Gone(self._loop.time(), id))
            raise
        finally:
            del self._jobs[id]
            if job.group:
                self._coding.left(job)

    async def _prepare(self, job: Job, prepare: Callable[[int], NDArray[np.uint8]], latest: float) -> None:
        """Make the base model's input in an executor, for the model in use when it is ready.

        Raises ValueError for a bad image, and TimeoutError if it is not ready at the ``latest``.
        """
        async with asyncio.timeout_at(latest):
            while True:
                await self._images.run(job, functools.partial(prepare, job.model.size))
                model = self.base.info
                if model is None or model.size == job.model.size:
                    break
                job.model = model

    @property
    def coded_workers(self) -> int:
        """How many groups redundant workers can run at once."""
        return self._coding.workers

    async def close(self) -> None:
        """Cancel what still runs. Call it when no request is in flight."""
        self._timers.close()
        for call in list(self._calls.values()):
            call.cancel()
        await self._coding.close()

    # Events in, actions out

    def _feed(self, event: e.Event) -> None:
        """Tell the policy with all else that happens in this turn of the event loop."""
        if not self._events:
            self._loop.call_soon(self._drain)
        self._events.append(event)

    def _feed_now(self, event: e.Arrived | e.Answered) -> None:
        """Tell the policy at once: another turn of the event loop costs more than all that the policy does.

        Answers may overtake what is waiting to be told, as they come first in any batch.
        """
        if self._events and isinstance(event, e.Arrived):
            self._events.append(event)
        else:
            self._handle([event])

    def _drain(self) -> None:
        events, self._events = self._events, []
        self._handle(events)

    def _handle(self, events: Sequence[e.Event]) -> None:
        if self._record:
            self._record(events)
        for action in self.policy.handle(events):
            self._perform(action)

    def _perform(self, action: e.Action) -> None:
        match action:  # the usual ones first
            case e.SetTimer():
                self._timers.set(action)
            case e.Send(request, attempt):
                self._send(request, attempt)
            case e.Answer(request, attempt):
                self._answer(request, attempt)
            case e.SendCoded(group, members, shape):
                self._send_coded(group, members, shape)
            case e.Audit(request):
                if job := self._jobs.get(request):
                    job.audited = True
            case e.Straggles():
                self.metrics.stragglers.inc()
            case e.Cancel(request, attempt):
                if call := self._calls.get((request, attempt)):
                    call.cancel()
            case e.CancelCoded(group):
                self._coding.cancel(group)
            case e.AnswerCoded():
                self._answer_coded(action)
            case e.Fail(request, expired):
                if job := self._jobs.get(request):
                    self._fail(job, expired)

    def _answer(self, request: int, attempt: int) -> None:
        if job := self._jobs.get(request):
            own = job.answers[attempt]
            if job.group:
                self._coding.answered(job, own)
            job.answer(own, self._loop.time())

    def _answer_coded(self, action: e.AnswerCoded) -> None:
        job = self._jobs.get(action.request)
        if job and job.coded:
            self.metrics.coded_answer(sure=action.sure, early=action.early, cost=action.cost)
            job.answer(job.coded, self._loop.time())

    def _fail(self, job: Job, expired: bool) -> None:
        labels = job.model.labels
        if expired and job.model.task == TaskName.CLASSIFICATION and self._settings.default_label in labels:
            output = np.full(len(labels), -np.inf, np.float32)
            output[labels.index(self._settings.default_label)] = 0
            job.answer(WorkerAnswer(output, job.model, Source.DEFAULT), self._loop.time())
        elif not job.future.done():
            job.future.set_exception(
                DeadlineExceeded("no answer came in time") if expired else job.error or Unavailable(NONE_READY)
            )

    # Calls to workers

    def _send_coded(self, group: int, members: Mapping[int, int], shape: GroupShape) -> None:
        self.metrics.group_fill.observe(len(members) / shape.members)
        jobs = {place: job for place, request in members.items() if (job := self._jobs.get(request))}
        for place, job in jobs.items():
            job.group, job.group_id, job.place = group, f"{self._prefix}-{group}", place
        self._coding.send(group, jobs, shape)

    def _send(self, request: int, attempt: int) -> None:
        if (job := self._jobs.get(request)) is None:
            return
        at = self._loop.time()
        worker = self.base.pick(job.tried.values()) or self.base.pick(
            [address for number, address in job.tried.items() if (request, number) in self._calls]
        )
        if worker is None or worker.info is None or worker.info.input.shape != job.model.input.shape:
            self._feed(e.Failed(at, request, attempt, sent=False))
            return
        job.tried[attempt] = worker.address
        self.metrics.sent.inc("s_cnn" if attempt == e.PRIMARY else "replica")
        ended = functools.partial(self._call_ended, job, attempt, worker.info)
        self._calls[request, attempt] = worker.call(job.input, job.name, attempt, max(0.0, job.expires - at), ended)

    def _call_ended(self, job: Job, attempt: int, model: ModelInfo, outcome: Ending) -> None:
        del self._calls[job.id, attempt]
        if outcome is None:
            return
        if isinstance(outcome, WorkerFailure):
            self._attempt_failed(job, attempt, outcome)
            return
        at = self._loop.time()
        self._admission.served(outcome.inference_s)
        output, source = outcome.outputs[0], Source.S_CNN if attempt == e.PRIMARY else Source.REPLICA
        job.answers[attempt] = WorkerAnswer(output, model, source, outcome.queue_s, outcome.inference_s)
        if job.audited and job.coded:
            agree = TASKS[model.task].agree(job.coded.output, output)
            self.metrics.audits.labels("agree" if agree else "differ").inc()
            self._feed(e.Audited(at, job.coded.confidence or 0.0, agree))
        self._feed_now(e.Answered(at, job.id, attempt))

    def _attempt_failed(self, job: Job, attempt: int, failure: WorkerFailure) -> None:
        self.metrics.failures.labels("s_cnn" if attempt == e.PRIMARY else "replica", failure.code).inc()
        failure.log(job.tried[attempt], job.name)
        told = f"the s-cnn worker failed ({failure.code}): try again"  # details tell of addresses
        full = failure.code == "RESOURCE_EXHAUSTED"
        job.error = ResourceExhausted(told, self._admission.service) if full else Unavailable(told)
        self._feed(e.Failed(self._loop.time(), job.id, attempt, failure.unreachable))
