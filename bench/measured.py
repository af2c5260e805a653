"""Measurements of one run and its figures: the only place that sums up a run, real or simulated.

Rows of figures are flat: seconds in ``*_s``, shares, accuracies and loads per request from 0 to 1, None if undefined.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collage.figures import Scalar

Figures = dict[str, Scalar]
Interval = tuple[float, float]
"""A value and half the width of its 95 % confidence interval, which is nan for one seed."""

NOBODY, S_CNN, COLLAGE, REPLICA = range(4)
"""Sources of an answer; nobody for a request that failed."""
_SOURCES = {None: NOBODY, "S_CNN": S_CNN, "REPLICA": REPLICA, "COLLAGE": COLLAGE, "PARITY": COLLAGE, "CODED": COLLAGE}
FOR_P999 = 10_000  # samples without which a 99.9th percentile says nothing
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # 95 %, for 2 to 10 seeds


@dataclass(frozen=True)
class RequestRecord:
    """The end of one request. Labels are slugs; an answered request has a prediction and a source, others an error."""

    request_id: str
    group: int  # in the order sent, from 0
    member: int  # of its group, from 0
    image: str
    label: str
    prediction: str | None
    source: str | None
    coded_confidence: float | None
    cell: int | None  # the request's place in the frontend's collage
    error: str | None
    started_s: float  # since the run's start: when it was sent, or in an open loop meant to be sent
    latency_s: float  # since ``started_s``, as the caller saw it
    total_s: float | None  # from here on the frontend's account
    queue_s: float | None
    inference_s: float | None

    @property
    def right(self) -> bool:
        """Whether the prediction is the label; a request without an answer is wrong."""
        return self.prediction == self.label


@dataclass(frozen=True)
class Run:
    """Measurements of one run, request by request; arrays of equal length, in the order sent."""

    latency_s: NDArray[np.float64]
    source: NDArray[np.uint8]  # who answered
    unsure: NDArray[np.bool_]  # the model is not sure of the request's cell
    right: NDArray[np.bool_]
    available: NDArray[np.bool_]  # the s-cnn is right, whoever answered
    members: int  # of a group; its requests are neighbours
    collages: int  # sent
    replicas: int  # sent
    busy_s: float  # that all workers spent computing
    ejections: int = 0  # of workers, by all frontends

    @property
    def groups_s(self) -> NDArray[np.float64]:
        """Latency of each group in seconds, that of its slowest member; float64 ``[groups]``."""
        result: NDArray[np.float64] = self.latency_s.reshape(-1, self.members).max(axis=1)
        return result

    def share(self, source: int) -> float:
        """Share of requests that this source answered."""
        return float((self.source == source).mean())

    def row(self, about: Mapping[str, Scalar]) -> Figures:
        """``about`` (which run this is) and its figures.

        A request that failed counts with the time that took, and as wrong.
        """
        coded = self.source == COLLAGE
        return {
            **about,
            "groups": len(self.groups_s),
            **_percentiles("", self.latency_s),
            "mean_s": float(self.latency_s.mean()),
            "std_s": float(self.latency_s.std()),
            **_percentiles("group_", self.groups_s),
            "group_std_s": float(self.groups_s.std()),
            "coded_share": self.share(COLLAGE),
            "unsure_share": float((coded & self.unsure).mean()),
            "coded_accuracy": float(self.right[coded].mean()) if coded.any() else None,
            "accuracy": float(self.right.mean()),
            "accuracy_available": float(self.available.mean()),
            "collage_load": self.collages / len(self.latency_s),
            "replica_load": self.replicas / len(self.latency_s),
            "busy_s": self.busy_s,
        }

    def brief(self, policy: str) -> Figures:
        """The figures that the demo shows, and who answered."""
        known = self.row({})
        counts: Figures = {"requests": len(self.latency_s), "failed": int((self.source == NOBODY).sum())}
        latencies = ("p50_s", "p95_s", "p99_s", "mean_s", "std_s", "groups", "group_p50_s", "group_p95_s")
        answers = ("coded_share", "accuracy", "coded_accuracy", "collage_load", "replica_load")
        return {
            **{"policy": policy, **counts, **{key: known[key] for key in latencies}},
            **{"s_cnn_share": self.share(S_CNN), "replica_share": self.share(REPLICA)},
            **{key: known[key] for key in answers},
        }

    def group_records(self) -> Iterator[Figures]:
        """One record per group: latency, whether a member was not answered by its s-cnn, and its coded answers."""
        source, right = self.source.reshape(-1, self.members), self.right.reshape(-1, self.members)
        coded = source == COLLAGE
        columns = (
            self.groups_s.tolist(),
            (source != S_CNN).any(axis=1).tolist(),
            coded.sum(axis=1).tolist(),
            (coded & right).sum(axis=1).tolist(),
        )
        for group, (latency, slow, answers, answers_right) in enumerate(zip(*columns, strict=True)):
            yield {"group": group, "latency_s": latency, "slow": slow, "coded": answers, "coded_right": answers_right}


class Records(list[RequestRecord]):
    """The ends of a real run's requests, in the order sent."""

    def run(
        self,
        sent: Counter[str],
        busy_s: float = 0.0,
        scale: float = 1.0,
        unsure: NDArray[np.bool_] | None = None,
        available: NDArray[np.bool_] | None = None,
    ) -> Run:
        """The run's measurements. All groups are as large as the first.

        ``sent`` counts ``collages`` and ``replicas``. ``scale`` had shortened the injected times, which is undone
        here. Without ``unsure`` every cell counts as sure. Without ``available`` the s-cnn is right if the answer is.
        """
        right = np.array([record.right for record in self])
        return Run(
            latency_s=np.array([record.latency_s for record in self]) / scale,
            source=np.array([_SOURCES[record.source] for record in self], np.uint8),
            unsure=np.zeros(len(self), bool) if unsure is None else unsure,
            right=right,
            available=right if available is None else available,
            members=sum(record.group == self[0].group for record in self),
            collages=sent["collages"],
            replicas=sent["replicas"],
            busy_s=busy_s / scale,
        )


def quantile(seconds: Sequence[float] | NDArray[np.float64], share: float) -> float | None:
    """The time that a share (0 to 1) of ``seconds`` does not exceed; None if there are none."""
    return float(np.quantile(seconds, share)) if len(seconds) else None


def _percentiles(prefix: str, seconds: NDArray[np.float64]) -> Figures:
    p50, p95, p99, p999 = (float(value) for value in np.quantile(seconds, (0.5, 0.95, 0.99, 0.999)))
    return {
        f"{prefix}p50_s": p50,
        f"{prefix}p95_s": p95,
        f"{prefix}p99_s": p99,
        f"{prefix}p999_s": p999 if len(seconds) >= FOR_P999 else None,
    }


def extra_load(row: Mapping[str, Scalar]) -> float:
    """Collages and replicas sent per request."""
    return float(row["collage_load"] or 0) + float(row["replica_load"] or 0)


def mean_of(rows: Sequence[Mapping[str, Scalar]], key: str) -> Interval | None:
    """Mean of ``key`` over the seeds, one per row, with its interval by Student's t; None if it is undefined in all."""
    values = [float(value) for row in rows if (value := row[key]) is not None]
    if not values:
        return None
    t = _STUDENT[min(len(values), 10) - 2]
    spread = t * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return float(np.mean(values)), spread
