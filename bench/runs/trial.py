"""One run of an experiment on real processes: a cluster under a regime, a policy, a way of offering load, a seed."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from bench.cluster.answers import AnswerSource, Prepared, answer_source
from bench.cluster.standins import StandIns, failing
from bench.offer import (
    LATENCY_TABLE,
    REGIMES,
    Outage,
    Records,
    Regime,
    Seconds,
    closed_groups,
    load_of,
    open_loop,
    poisson,
    read_arrivals,
)
from bench.simulator.replay import KNOWN, Setup, about, capacity, run, table
from bench.simulator.rivals import RIVALS, Rival
from collage.client import Client
from collage.figures import Row
from frontend.policy.choices import CHOICES
from frontend.policy.ejection import Ejection
from frontend.policy.rules import Rules

WARM_UP_GROUPS = 100  # a tracked deadline has settled by then
OFF = Regime("off", "off")
CALIBRATION_GROUPS = 200
REGIME_NAMES = tuple(REGIMES)
POLICY_NAMES = tuple(name for name in KNOWN if name not in RIVALS or RIVALS[name].choice in CHOICES)
"""Policies that real processes can have: all but those whose choice of worker is simulated."""
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
    def equal_resources(self) -> bool:
        """Whether the collage worker is an s-cnn worker instead, as rivals have it."""
        return self.policy in RIVALS

    @property
    def title(self) -> str:
        """In words."""
        limit = f", {self.setting} {self.value:g}" if self.setting else ""
        load = "" if self.load is None else f", {self.load:.0%} load"
        return f"{self.policy}{limit}, seed {self.seed}{load}"


@dataclass(frozen=True)
class Overhead:
    """Medians of one calibration in seconds: the stand-in's inference, the frontend's and the caller's shares."""

    inference_s: float
    overhead_s: float
    caller_s: float

    @classmethod
    def of(cls, records: Records) -> Overhead:
        """The parts of a request's latency where nobody is slow."""
        answered = [
            (record.latency_s, record.total_s, record.queue_s, record.inference_s)
            for record in records
            if record.error is None
        ]
        latency, total, queue, inference = np.array(answered, float).T
        parts = inference, total - queue - inference, latency - total
        return cls(*(float(np.median(part)) for part in parts))

    def on(self, setup: Setup, scale: float) -> Setup:
        """A simulated cluster that loses as much, in times that are not shortened."""
        return replace(
            setup,
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
        answers: AnswerSource,
        groups: int,
        scale: float,
        flags: Sequence[str],
        folder: Path,
        arrivals: Seconds | None = None,
        workers: int | None = None,
        redundant: int = 1,
    ) -> None:
        """Open loops have Poisson arrivals, or these (of all groups, the warm-up's first, in times not shortened).

        There are as many s-cnn ``workers`` as a group has members, unless given, and ``redundant`` other workers. As
        many requests as there are s-cnn workers are sent as one group; a frontend makes collages of them as it likes.
        """
        self.regime, self.answers, self.groups, self.scale, self.flags = regime, answers, groups, scale, tuple(flags)
        self.members, self.arrivals = workers or answers.shape.members, arrivals
        self.setup = Setup(self.members, redundant, code=answers.shape)
        self.deadline = float(np.quantile(regime.sample, 0.95))
        self._folder = folder

    @functools.cached_property
    def _models(self) -> tuple[Path, Path]:
        shape = self.answers.shape
        return self.answers.save(self._folder / f"stand-ins-{shape.members}-{shape.needed}")

    def name(self, case: Case) -> str:
        """A run's name, the same for the same run only."""
        offered = "closed" if case.load is None else f"load{case.load:g}"
        slowness = self.regime.specification.replace(str(LATENCY_TABLE), LATENCY_TABLE.name)  # in whatever folder
        matters = repr((self.answers.version, self.groups, WARM_UP_GROUPS, self.scale, self.flags, slowness)).encode()
        trace = b"" if self.arrivals is None else self.arrivals.tobytes()
        digest = hashlib.blake2b(matters + trace, digest_size=4).hexdigest()
        policy = f"{case.policy}-{case.setting}-{case.value:g}" if case.setting else case.policy
        alone = (self.members, self.setup.redundant) == (self.answers.shape.members, 1)
        cluster = self.members if alone else f"{self.members}+{self.setup.redundant}"
        return f"{self.regime.name}-{cluster}-{offered}-{policy}-seed{case.seed}-{digest}"

    @property
    def load(self) -> float | None:
        """The load of given arrivals, as a share of capacity."""
        return None if self.arrivals is None else load_of(self.arrivals, capacity(self.members, self.regime))

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

    def cluster(self, seed: int, equal_resources: bool) -> StandIns:
        """The s-cnn and collage workers, or as many s-cnn workers in all, which draw slowness with ``seed``."""
        count = self.setup.workers

        def flags(index: int) -> tuple[str, ...]:
            factor = self.answers.slowdown_scale if index >= self.members and not equal_resources else 1.0
            return *self.regime.flags(index, count, seed), "--slowdown-scale", str(self.scale * factor)

        return StandIns(
            *self._models,
            s_cnn_workers=count if equal_resources else self.members,
            coded_workers=0 if equal_resources else self.setup.redundant,
            worker_flags=flags,
            logs=self._folder / "logs" / f"seed{seed}",  # seeds may run side by side
        )

    def frontend_flags(self, case: Case) -> tuple[str, ...]:
        """The case's policy with its defaults, times shortened; our own flags last."""
        rival = RIVALS.get(case.policy, Rival(case.policy))
        limits = rival.limited(self.regime.sample, {case.setting: case.value} if case.setting else {})
        shortened = {"--deadline-s": self.deadline, "--eject-rest-s": Ejection.rest}
        if np.isfinite(wait := Rules.named(rival.policy).group_wait):
            shortened["--group-wait-s"] = wait
        chosen: tuple[str, ...] = () if rival == Rival(case.policy) else ("--worker-choice", rival.choice)
        for limit, value in limits.items():
            if value is not None and (flag := LIMITS[limit]) in ("--deadline-s", "--group-wait-s"):
                shortened[flag] = value
            elif value is not None:
                chosen = *chosen, LIMITS[limit], str(value)
        times = (
            part for flag, seconds in shortened.items() for part in (flag, f"{max(seconds * self.scale, 1e-3):.4f}")
        )
        return "--policy", rival.policy, *times, *chosen, *self.flags

    def prepare(self, seed: int) -> Prepared:
        """All groups, those that warm up first, and the models' answers."""
        sent = (WARM_UP_GROUPS + self.groups) * self.members
        prepared = self.answers.prepare(sent // self.answers.shape.members, seed)
        samples = [sample for group in prepared.groups for sample in group]
        groups = [samples[first : first + self.members] for first in range(0, len(samples), self.members)]
        return prepared._replace(groups=groups)

    async def run(self, cluster: StandIns, case: Case, prepared: Prepared) -> tuple[Row, Records]:
        """Send the groups; returns the row and the raw records."""
        await cluster.restart_frontend(self.frontend_flags(case))
        warm_up, groups = prepared.groups[:WARM_UP_GROUPS], prepared.groups[WARM_UP_GROUPS:]
        skip = len(warm_up) * self.members
        async with Client(cluster.frontend.address) as client:
            if case.load is None:
                await closed_groups(client, warm_up, prefix="w")
            else:
                times = self.times(case) * self.scale
                await open_loop(client, warm_up, times[:skip], prefix="w")
            sent, busy = await cluster.sent(), await cluster.busy_s()
            async with failing(cluster.workers, self._outages(case.seed)) as lost_s:
                if case.load is None:
                    records = await closed_groups(client, groups)
                else:
                    records = await open_loop(client, groups, times[skip:] - times[skip - 1])
            sent, busy = await cluster.sent() - sent, await cluster.busy_s() + sum(lost_s) - busy
        images = prepared.models.images
        unsure, available = (images.confidence < prepared.models.accept)[skip:], images.s_cnn_right[skip:]
        done = records.run(sent, busy, self.scale, unsure, available)
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
        outages = self.regime.outages(self.setup.workers, seed)
        return (replace(outage, at=outage.at * self.scale, until=outage.until * self.scale) for outage in outages)

    def simulate(self, case: Case, prepared: Prepared, overhead: Overhead) -> Row:
        """The row of this run in the simulator, with the same draws, images and arrivals and the calibrated overhead.

        Draws differ where time decides. In a ``mixture`` the slow machine moves by the real machine's uptime,
        every 30 seconds whatever ``scale`` is; in the simulator by its own clock, from the warm-up on, with times that
        are not shortened. Outages (``failures``) begin with the first measured request in both, but a killed worker
        takes a while to start, and which requests they meet depends on how long those before took.
        """
        done = run(
            overhead.on(self.setup, self.scale),
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

    def tables(self, rows: Sequence[dict[str, Any]], load: float | None) -> list[Table]:
        """Real and simulated rows of one load for a terminal, a line for each policy with its limit."""
        offered = "closed groups" if load is None else f"open loop at {load:.0%}"
        cluster = f"{self.regime.name}, {self.members} + {self.setup.redundant}"
        title = f"{cluster}: {self.groups} groups per policy and seed, {offered}"
        named = [
            {**row, "policy": f"{row['policy']}\n{row['setting']} {row['value']:g}"} if "setting" in row else row
            for row in rows
        ]
        return [
            table(f"{title}, {kind}", [row for row in named if row["source"] == source])
            for source, kind in (("real", "real processes"), ("sim", "simulated"))
        ]


def trials(
    regimes: Sequence[str],
    drawn: int | None,
    data: Path | None,
    groups: int,
    scale: float,
    flags: Sequence[str],
    folder: Path,
    arrivals: Path | None = None,
    workers: int | None = None,
    redundant: int = 1,
) -> list[Trial]:
    """A trial for each regime; with a file of ``arrivals``, of as many groups as it has requests for.

    Answers are ``drawn`` for groups of that many members, or those of the shipped models to the images of a data set or
    of samples/. Raises OSError, or ValueError for an unknown regime and for arrivals that cannot be used.
    """
    if unknown := set(regimes) - set(REGIMES):
        raise ValueError(f"there is no regime {min(unknown)!r}")
    answers = answer_source(drawn, data)
    times, members = None, workers or answers.shape.members
    if arrivals:
        times = read_arrivals(arrivals)
        groups = min(groups, len(times) // members - WARM_UP_GROUPS)
        if groups < 1:
            raise ValueError(f"{arrivals} is too short: {WARM_UP_GROUPS} groups of {members} are to warm up")
        times = times[: (WARM_UP_GROUPS + groups) * members]  # only these are sent
    return [Trial(REGIMES[name], answers, groups, scale, flags, folder, times, workers, redundant) for name in regimes]


def cases(policies: Sequence[str], seeds: Sequence[int], loads: Sequence[float | None]) -> Iterator[Case]:
    """Every policy with every seed; those together that share a cluster: of one seed, with the same workers."""
    limited = [_limited(policy) for policy in policies]
    for equal in (False, True):
        chosen = [each for each in limited if (each[0] in RIVALS) == equal]
        for seed in seeds:
            for load in loads:
                yield from (Case(policy, seed, load, setting, value) for policy, setting, value in chosen)


def _limited(text: str) -> tuple[str, str | None, float | None]:
    """``hedge`` or ``hedge:quantile=0.9``; ValueError for anything else."""
    policy, _, limit = text.partition(":")
    setting, _, value = limit.partition("=")
    if policy not in POLICY_NAMES:
        raise ValueError(f"there is no policy {policy!r}")
    if limit and setting not in LIMITS:
        raise ValueError(f"{text}: a limit is one of {', '.join(LIMITS)}")
    return (policy, setting, float(value)) if limit else (policy, None, None)
