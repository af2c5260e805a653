"""One run of an experiment on real processes: a cluster under a regime, a policy, a way of offering load, a seed."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from bench import measured
from bench.cluster import standins
from bench.cluster.local import Cluster
from bench.cluster.processes import Child, ProcessError
from bench.offer.latency import LATENCY_TABLE
from bench.offer.load import Record, Sample, closed_groups, open_loop, random_groups
from bench.offer.workload import Images, Measured, Model, Outage, Regime, Seconds, poisson
from bench.runs.demo import sent_between
from bench.simulator.replay import EQUAL_RESOURCES, about, capacity, run
from bench.simulator.simulate import Setup
from collage.client import Client
from collage.figures import Scalar
from collage.model_info import ModelInfo, ModelKind
from encoder.image import Pixels
from frontend.policy.ejection import Ejection
from frontend.policy.rules import Rules
from models.measure import OnnxModel

WARM_UP_GROUPS = 100  # a tracked deadline has settled by then
OFF = Regime("off", "off")
CALIBRATION_GROUPS = 200
SOURCES = {"S_CNN": measured.S_CNN, "COLLAGE": measured.COLLAGE, "REPLICA": measured.REPLICA, None: measured.NOBODY}


Row = dict[str, Scalar]
LIMITS = {
    **{"quantile": "--deadline-quantile", "patience": "--patience", "extra_load": "--extra-load"},
    **{"deadline": "--deadline-s", "group_wait": "--group-wait-s"},
}
"""Limits of Rules that a case may set, and the frontend's flags for them; the latter two are times."""


class Case(NamedTuple):
    """A policy, perhaps with one of ``LIMITS`` away from its default, and a seed; closed groups, or an open loop of
    this share of capacity."""

    policy: str
    seed: int
    load: float | None = None
    setting: str | None = None
    value: float | None = None

    @property
    def varied(self) -> Row:
        """The columns that say which limit is not at its default, if one is."""
        return {"setting": self.setting, "value": self.value} if self.setting else {}

    @property
    def title(self) -> str:
        """In words."""
        limit = f", {self.setting} {self.value:g}" if self.setting else ""
        load = "" if self.load is None else f", {self.load:.0%} load"
        return f"{self.policy}{limit}, seed {self.seed}{load}"


class Prepared(NamedTuple):
    """Groups of pictures to send, those for warming up first, and what the models say of them."""

    groups: list[list[Sample]]
    models: Measured


class Answers(Protocol):
    """Where the stand-ins' answers come from; ``version`` tells one such source from another."""

    version: str
    s_cnn: ModelInfo
    collage: ModelInfo

    def prepare(self, groups: int, seed: int) -> Prepared:
        """Random groups of as many members as the collage has cells."""
        ...


class Shipped:
    """What trained models say of real images."""

    def __init__(self, s_cnn: Path, collage: Path, samples: Sequence[Sample]) -> None:
        self._s_cnn, self._collage, self._samples = OnnxModel(s_cnn), OnnxModel(collage), samples
        self.s_cnn, self.collage = self._s_cnn.info, self._collage.info
        self.version = f"{self.s_cnn.version} {self.collage.version} {len(samples)}"

    def prepare(self, groups: int, seed: int) -> Prepared:
        """Random images, none again before all have come."""
        chosen = random_groups(self._samples, self.collage.k**2, groups, seed)
        said = list(standins.answers(self._s_cnn, self._collage, chosen))
        pictures, s_cnn_right = standins.stand_in_groups(chosen, said, self.s_cnn.labels)
        found = np.concatenate([answer.collage for answer in said])
        confidence = np.where(found < 0, np.nan, np.concatenate([answer.confidence for answer in said]))
        truth = standins.truth(chosen, self.s_cnn.labels)
        images = Images(confidence.astype(np.float32), found == truth, s_cnn_right)
        return Prepared(_painted(chosen, pictures), Measured(images, self.collage.accept_threshold))


class Drawn:
    """What models of given worth would say (``bench.workload.Model``), for grids that no model was trained for."""

    def __init__(self, members: int, model: Model | None = None) -> None:
        self._model = model or Model()
        labels = tuple(f"class {i}" for i in range(10))
        self.s_cnn = ModelInfo.make("drawn", ModelKind.S_CNN, labels, standins.SIDE)
        k = round(members**0.5)
        self.collage = ModelInfo.collage("drawn", labels, k * standins.SIDE, k, accept_threshold=self._model.accept)
        self.version = repr(self._model)

    def prepare(self, groups: int, seed: int) -> Prepared:
        """Random classes."""
        classes, members = len(self.s_cnn.labels), self.collage.k**2
        images = self._model.draw(groups * members, seed)
        truth = np.random.default_rng((seed, 3)).integers(classes, size=groups * members)
        wrong = (truth + 1) % classes
        empty = np.isnan(images.confidence)
        said = standins.Answers(
            s_cnn=np.where(images.s_cnn_right, truth, wrong),
            collage=np.where(empty, -1, np.where(images.coded_right, truth, wrong)),
            confidence=np.nan_to_num(images.confidence).astype(np.float64),
        )
        samples = [
            Sample(str(i), f"class-{label}", png(picture))
            for i, (label, picture) in enumerate(zip(truth.tolist(), said.pictures(), strict=True))
        ]
        split = [samples[first : first + members] for first in range(0, len(samples), members)]
        return Prepared(split, Measured(images, self._model.accept))


def _painted(groups: Sequence[Sequence[Sample]], pictures: Sequence[Sequence[Pixels]]) -> list[list[Sample]]:
    return [
        [replace(sample, data=png(picture)) for sample, picture in zip(*pair, strict=True)]
        for pair in zip(groups, pictures, strict=True)
    ]


def png(picture: Pixels) -> bytes:
    """A picture, uint8 ``[height, width, 3]``, as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@dataclass(frozen=True)
class Overhead:
    """Medians of one calibration in seconds: the stand-in's inference, the frontend's and the caller's shares."""

    inference_s: float
    overhead_s: float
    caller_s: float

    @classmethod
    def of(cls, records: Sequence[Record]) -> Overhead:
        """What a request takes where nobody is slow."""
        answered = [
            (record.latency_s, record.total_s, record.queue_s, record.inference_s)
            for record in records
            if record.error is None
        ]
        latency, total, queue, inference = np.array(answered, float).T
        parts = inference, total - queue - inference, latency - total
        return cls(*(float(np.median(part)) for part in parts))

    def setup(self, members: int, scale: float) -> Setup:
        """A simulated cluster that loses as much, in times that are not shortened."""
        return Setup(
            members,
            1,
            inference_s=self.inference_s / scale,
            overhead_s=self.overhead_s / scale,
            caller_s=self.caller_s / scale,
        )


class Trial:
    """Runs of one regime; ``scale`` shortens all injected times, and deadlines with them.

    It does not shorten the 30 seconds after which the slow machine of a ``mixture`` moves. These go by the machine's
    uptime: two runs of a seed, real or simulated, do not meet the same draws in that regime. In the regime of
    ``failures`` they meet the same outages, but not with the same requests.
    """

    def __init__(
        self,
        regime: Regime,
        answers: Answers,
        groups: int,
        scale: float,
        flags: Sequence[str],
        folder: Path,
        arrivals: Seconds | None = None,
    ) -> None:
        """Open loops have Poisson arrivals, or these (of all groups, the warm-up's first, in times not shortened)."""
        self.regime, self.answers, self.groups, self.scale, self.flags = regime, answers, groups, scale, tuple(flags)
        self.members, self.arrivals = answers.collage.k**2, arrivals
        self.setup = Setup(self.members, 1)
        self.deadline = float(np.quantile(regime.sample, 0.95))
        self._folder = folder
        self._models = standins.save_models(folder / f"stand-ins-{self.members}", answers.s_cnn, answers.collage)

    def name(self, case: Case) -> str:
        """A run's name, the same for the same run only."""
        offered = "closed" if case.load is None else f"load{case.load:g}"
        slowness = self.regime.specification.replace(str(LATENCY_TABLE), LATENCY_TABLE.name)  # in whatever folder
        matters = repr((self.answers.version, self.groups, WARM_UP_GROUPS, self.scale, self.flags, slowness)).encode()
        trace = b"" if self.arrivals is None else self.arrivals.tobytes()
        digest = hashlib.blake2b(matters + trace, digest_size=4).hexdigest()
        policy = f"{case.policy}-{case.setting}-{case.value:g}" if case.setting else case.policy
        return f"{self.regime.name}-{self.members}-{offered}-{policy}-seed{case.seed}-{digest}"

    def seconds(self, case: Case) -> float:
        """How long a run takes, about; waiting, mostly."""
        groups = self.groups + WARM_UP_GROUPS
        if case.load is not None:
            return 3 + groups * self.members / self._rate(case.load)
        slowest = self.regime.sample[: len(self.regime.sample) // self.members * self.members]
        group = float(slowest.reshape(-1, self.members).max(axis=1).mean()) if len(slowest) else 0.0
        return 3 + groups * (group * self.scale + 0.01)

    def _rate(self, load: float) -> float:
        return load * capacity(self.members, self.regime) / self.scale

    def cluster(self, seed: int, equal_resources: bool) -> Cluster:
        """N s-cnn workers and one collage worker, or N + 1 s-cnn workers, which draw slowness with ``seed``."""
        count = self.members + 1

        def flags(index: int) -> tuple[str, ...]:
            return *self.regime.flags(index, count, seed), "--slowdown-scale", str(self.scale)

        return Cluster(
            *self._models,
            s_cnn_workers=count if equal_resources else self.members,
            collage_workers=0 if equal_resources else 1,
            worker_flags=flags,
            logs=self._folder / "logs" / f"seed{seed}",  # seeds may run side by side
        )

    def frontend_flags(self, case: Case) -> tuple[str, ...]:
        """The case's policy with its defaults, times shortened; our own flags last."""
        policy = "none" if case.policy == EQUAL_RESOURCES else case.policy
        shortened = {"--deadline-s": self.deadline, "--eject-rest-s": Ejection.rest}
        if np.isfinite(wait := Rules.named(policy).group_wait):
            shortened["--group-wait-s"] = wait
        chosen: tuple[str, ...] = ()
        if case.setting and case.value is not None:
            if (flag := LIMITS[case.setting]) in ("--deadline-s", "--group-wait-s"):
                shortened[flag] = case.value
            else:
                chosen = flag, str(case.value)
        times = (
            part for flag, seconds in shortened.items() for part in (flag, f"{max(seconds * self.scale, 1e-3):.4f}")
        )
        return "--policy", policy, *times, *chosen, *self.flags

    async def run(self, cluster: Cluster, case: Case, prepared: Prepared) -> tuple[Row, list[Record]]:
        """Send the groups; returns the row and the raw records."""
        await cluster.restart_frontend(self.frontend_flags(case))
        warm_up, groups = prepared.groups[:WARM_UP_GROUPS], prepared.groups[WARM_UP_GROUPS:]
        skip = len(warm_up) * self.members
        workers = [*cluster.s_cnn, *cluster.collage]
        async with Client(cluster.frontend.address) as client:
            if case.load is None:
                await closed_groups(client, warm_up, prefix="w")
            else:
                times = self.times(case) * self.scale
                await open_loop(client, warm_up, times[:skip], prefix="w")
            before, busy = await cluster.frontend.metrics(), await _busy_s(workers)
            async with failing(workers, self._outages(case.seed)) as lost_s:
                if case.load is None:
                    records = await closed_groups(client, groups)
                else:
                    records = await open_loop(client, groups, times[skip:] - times[skip - 1])
            after, busy_after = await cluster.frontend.metrics(), await _busy_s(workers)
        collages, replicas = sent_between(before, after)
        images = prepared.models.images
        done = measured.Run(
            latency_s=np.array([record.latency_s for record in records]) / self.scale,
            source=np.array([SOURCES[record.source] for record in records], np.uint8),
            unsure=(images.confidence < prepared.models.accept)[skip:],
            right=np.array([record.right for record in records]),
            available=images.s_cnn_right[skip:],
            members=self.members,
            collages=int(collages),
            replicas=int(replicas),
            busy_s=(busy_after + sum(lost_s) - busy) / self.scale,
        )
        known = about("real", self.setup, self.regime, case.policy, case.seed, case.load)
        return {**done.row(known), **case.varied}, records

    def times(self, case: Case) -> Seconds:
        """Arrivals of an open loop, in times that are not shortened; those of the warm-up first."""
        assert case.load is not None  # noqa: S101 - closed groups need no times
        if self.arrivals is not None:
            return self.arrivals
        rate = case.load * capacity(self.members, self.regime)
        return poisson(rate, (WARM_UP_GROUPS + self.groups) * self.members, case.seed)

    def _outages(self, seed: int) -> Iterable[Outage]:
        outages = self.regime.outages(self.members + 1, seed)
        return (replace(outage, at=outage.at * self.scale, until=outage.until * self.scale) for outage in outages)

    def simulate(self, case: Case, prepared: Prepared, overhead: Overhead) -> Row:
        """The same run in the simulator: the same draws, images and arrivals, and the overhead as calibrated.

        But not draw by draw where time decides. In a ``mixture`` the slow machine moves by the real machine's uptime,
        every 30 seconds whatever ``scale`` is; in the simulator by its own clock, from the warm-up on, with times that
        are not shortened. Outages (``failures``) begin with the first measured request in both, but a killed worker
        takes a while to start, and which requests they meet depends on how long those before took.
        """
        done = run(
            overhead.setup(self.members, self.scale),
            case.policy,
            self.regime,
            case.seed,
            self.groups,
            case.load,
            None if case.load is None else self.times(case),
            models=prepared.models,
            warm_up=WARM_UP_GROUPS,
            limits={case.setting: case.value} if case.setting else {},
        )
        known = about("sim", self.setup, self.regime, case.policy, case.seed, case.load)
        return {**done.row(known), **case.varied}


@asynccontextmanager
async def failing(workers: Sequence[Child], outages: Iterable[Outage]) -> AsyncIterator[list[float]]:
    """Kill or freeze workers when they are to be out, in seconds from now, and bring them back, all of them at the end.

    A worker that is not back yet, as it takes a while to start, is spared its next outage. Gives a list of the busy
    seconds that the killed ones had counted, and forget. Raises ProcessError if one does not start again.
    """
    lost_s: list[float] = []
    out: set[int] = set()
    down: set[int] = set()  # of these, those that were killed
    clock = asyncio.get_running_loop().time
    start = clock()

    async def fail(outage: Outage) -> None:
        worker = workers[outage.index]
        if outage.frozen:
            worker.freeze()
        else:
            lost_s.append(await _busy_s([worker]))
            down.add(outage.index)
            await worker.kill()
        await asyncio.sleep(max(0.0, start + outage.until - clock()))
        if outage.frozen:
            worker.resume()
        else:
            await worker.start()
            down.discard(outage.index)
        out.discard(outage.index)

    async def follow() -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for outage in outages:
                    await asyncio.sleep(max(0.0, start + outage.at - clock()))
                    if outage.index not in out:
                        out.add(outage.index)
                        tasks.create_task(fail(outage))
        except* ProcessError as failures:
            raise failures.exceptions[0] from None

    following = asyncio.create_task(follow())
    try:
        yield lost_s
    finally:
        following.cancel()
        await asyncio.wait([following])
        for worker in workers:
            worker.resume()
        for index in down:
            await workers[index].kill()  # it may be about to end, or half started
            await workers[index].start()
    if not following.cancelled() and (error := following.exception()):
        raise error


async def _busy_s(workers: Iterable[Child]) -> float:
    scraped = [await worker.metrics() for worker in workers]
    return sum(metrics.value("collage_worker_busy_seconds_total") for metrics in scraped)
