"""Two ways of offering load, never mixed.

Closed groups: N images at once, wait for all answers, next group (Collage inference, section 5.1). Open loop: requests
come when they come, however long the answers take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.measured import Records, RequestRecord
from bench.samples import Sample, slug
from collage.client import ClientError, Prediction

__all__ = ["Records", "closed_groups", "open_loop"]


class Predictor(Protocol):
    """Anything that classifies images: the client of a frontend, or of workers behind another proxy."""

    async def predict(self, image: bytes, *, request_id: str, timeout_s: float) -> Prediction:
        """Classify an encoded image; raises ClientError."""
        ...


async def closed_groups(
    client: Predictor,
    groups: Sequence[Sequence[Sample]],
    *,
    prefix: str = "g",
    timeout_s: float = 10.0,
    done: Callable[[], object] = lambda: None,
) -> Records:
    """Send the groups one after another, each at once; one record per request, in the order sent.

    Request ids are ``<prefix><group>-<member>``, the same in every run, so that injected slowness is the same as well.
    ``done`` is called after every group. Failed requests are recorded, not raised.
    """
    caller = _Caller(client, prefix, timeout_s)
    records = Records()
    for index, group in enumerate(groups):
        async with asyncio.TaskGroup() as tasks:
            now = caller.now
            sent = [tasks.create_task(caller.call(index, member, sample, now)) for member, sample in enumerate(group)]
        records += [task.result() for task in sent]
        done()
    return records


async def open_loop(
    client: Predictor,
    groups: Sequence[Sequence[Sample]],
    times: NDArray[np.float64],
    *,
    prefix: str = "g",
    timeout_s: float = 10.0,
    most: int = 1000,
    done: Callable[[], object] = lambda: None,
) -> Records:
    """Send one request after another at ``times`` (seconds from now, rising, as many as there are samples).

    Nobody waits for answers: latency counts from the intended start, and a generator that falls behind is part of it.
    At most ``most`` requests are open at once; what would be more is not sent and recorded as failed at the timeout.
    Otherwise like ``closed_groups``; over ``timeout_s`` after the last arrival.
    """
    samples = [(index, member, sample) for index, group in enumerate(groups) for member, sample in enumerate(group)]
    if len(times) != len(samples):
        raise ValueError(f"{len(samples)} samples need as many times, not {len(times)}")
    caller = _Caller(client, prefix, timeout_s)
    tasks: list[asyncio.Task[RequestRecord]] = []
    unended = 0

    def ended(_: object) -> None:
        nonlocal unended
        unended -= 1
        done()

    async with asyncio.TaskGroup() as sending:
        for at, (index, member, sample) in zip(times.tolist(), samples, strict=True):
            if (wait := at - caller.now) > 0:
                await asyncio.sleep(wait)
            do = caller.call if unended < most else caller.give_up
            call = do(index, member, sample, at)
            tasks.append(sending.create_task(call))
            unended += 1
            tasks[-1].add_done_callback(ended)
    return Records(task.result() for task in tasks)


class _Caller:
    """Sends requests and keeps their records; its clock is in seconds and starts at 0."""

    def __init__(self, client: Predictor, prefix: str, timeout_s: float) -> None:
        self._client, self._prefix, self._timeout_s = client, prefix, timeout_s
        self._clock = asyncio.get_running_loop().time
        self._start = self._clock()

    @property
    def now(self) -> float:
        return self._clock() - self._start

    async def call(self, group: int, member: int, sample: Sample, started: float) -> RequestRecord:
        """Send one request, whose latency counts from ``started``."""
        request_id = f"{self._prefix}{group:04d}-{member}"
        try:
            answer = await self._client.predict(sample.data, request_id=request_id, timeout_s=self._timeout_s)
        except ClientError as error:
            return self._failed(group, member, sample, started, self.now - started, str(error))
        return RequestRecord(
            *(request_id, group, member, sample.name, sample.label),
            prediction=slug(answer.label),
            source=answer.source,
            coded_confidence=answer.coded_confidence,
            cell=answer.cell,
            error=None,
            started_s=started,
            latency_s=self.now - started,
            total_s=answer.total_s,
            queue_s=answer.queue_s,
            inference_s=answer.inference_s,
        )

    async def give_up(self, group: int, member: int, sample: Sample, started: float) -> RequestRecord:
        """Record a request that is not sent."""
        return self._failed(group, member, sample, started, self._timeout_s, "not sent: too many are open")

    def _failed(
        self, group: int, member: int, sample: Sample, started: float, latency: float, error: str
    ) -> RequestRecord:
        known = (f"{self._prefix}{group:04d}-{member}", group, member, sample.name, sample.label)
        return RequestRecord(*known, None, None, None, None, error, started, latency, None, None, None)
