"""Closed groups: N images at once, wait for all answers, next group (Collage inference, section 5.1)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from collage.client import Client, ClientError


@dataclass(frozen=True)
class Sample:
    """A labelled image: ``name`` tells where it is from, ``label`` is its folder's slug, ``data`` a file's bytes."""

    name: str
    label: str
    data: bytes


@dataclass(frozen=True)
class Record:
    """The end of one request.

    ``group`` and ``member`` count from 0 in the order sent, ``cell`` is the member's place in the frontend's collage.
    Labels are slugs. Without an answer ``prediction`` and ``source`` are None and ``error`` says why. ``started_s`` is
    since the run's start, ``latency_s`` what the caller waited, and the last three are the frontend's account.
    """

    request_id: str
    group: int
    member: int
    image: str
    label: str
    prediction: str | None
    source: str | None
    coded_confidence: float | None
    cell: int | None
    error: str | None
    started_s: float
    latency_s: float
    total_s: float | None
    queue_s: float | None
    inference_s: float | None

    @property
    def right(self) -> bool:
        """Whether the prediction is the label; a request without an answer is wrong."""
        return self.prediction == self.label


def slug(label: str) -> str:
    """A label as a folder's name: ``T-shirt/top`` becomes ``t-shirt-top``."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def load_samples(folder: Path) -> list[Sample]:
    """Every ``<label>/<name>.png`` below ``folder``, sorted; raises FileNotFoundError if there is none."""
    files = sorted(folder.glob("*/*.png"))
    if not files:
        raise FileNotFoundError(f"there are no sample images in {folder}")
    return [Sample(f"{file.parent.name}/{file.stem}", slug(file.parent.name), file.read_bytes()) for file in files]


def random_groups(samples: Sequence[Sample], members: int, groups: int, seed: int) -> list[list[Sample]]:
    """``groups`` lists of ``members`` samples in random order; none comes again before all have come."""
    rng = np.random.default_rng(seed)
    rounds = -(-members * groups // len(samples))
    order = np.concatenate([rng.permutation(len(samples)) for _ in range(rounds)])
    return [[samples[i] for i in order[start : start + members]] for start in range(0, members * groups, members)]


async def closed_groups(
    client: Client,
    groups: Sequence[Sequence[Sample]],
    *,
    prefix: str = "g",
    timeout_s: float = 10.0,
    done: Callable[[], object] = lambda: None,
) -> list[Record]:
    """Send the groups one after another, each at once; one record per request, in the order sent.

    Request ids are ``<prefix><group>-<member>``, the same in every run, so that injected slowness is the same as well.
    ``done`` is called after every group. Failed requests are recorded, not raised.
    """
    clock = asyncio.get_running_loop().time
    start = clock()
    records: list[Record] = []

    async def one(group: int, member: int, sample: Sample) -> Record:
        request_id = f"{prefix}{group:04d}-{member}"
        sent = clock()
        known = (request_id, group, member, sample.name, sample.label)
        try:
            answer = await client.predict(sample.data, request_id=request_id, timeout_s=timeout_s)
        except ClientError as error:
            waited = clock() - sent
            return Record(*known, None, None, None, None, str(error), sent - start, waited, None, None, None)
        return Record(
            *known,
            prediction=slug(answer.label),
            source=answer.source,
            coded_confidence=answer.coded_confidence,
            cell=answer.cell,
            error=None,
            started_s=sent - start,
            latency_s=clock() - sent,
            total_s=answer.total_s,
            queue_s=answer.queue_s,
            inference_s=answer.inference_s,
        )

    for index, group in enumerate(groups):
        async with asyncio.TaskGroup() as tasks:
            sent = [tasks.create_task(one(index, member, sample)) for member, sample in enumerate(group)]
        records += [task.result() for task in sent]
        done()
    return records
