"""The rows of ``out/bench.json``: the same statistics of a real run and of a simulated one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collage.figures import Scalar

NOBODY, S_CNN, COLLAGE, REPLICA = range(4)
"""Who answered a request; nobody if it failed."""
FOR_P999 = 10_000  # samples without which a 99.9th percentile says nothing


@dataclass(frozen=True)
class Run:
    """What one run measured, request by request; arrays of equal length, in the order sent.

    ``latency_s`` float64, ``source`` uint8 (who answered), ``unsure`` bool (its cell is one the model is not sure of),
    ``right`` bool, ``available`` bool (whether the s-cnn is right, who answered or not). ``members`` requests in a row
    are a group, whose latency is that of its slowest member. ``collages`` and ``replicas`` were sent, ``busy_s`` is
    what all workers spent computing.
    """

    latency_s: NDArray[np.float64]
    source: NDArray[np.uint8]
    unsure: NDArray[np.bool_]
    right: NDArray[np.bool_]
    available: NDArray[np.bool_]
    members: int
    collages: int
    replicas: int
    busy_s: float

    @property
    def groups_s(self) -> NDArray[np.float64]:
        """Latency of each group in seconds, float64 ``[groups]``."""
        result: NDArray[np.float64] = self.latency_s.reshape(-1, self.members).max(axis=1)
        return result

    def row(self, about: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """``about`` (which run this is) and its figures: seconds in ``*_s``, shares and accuracies from 0 to 1.

        Loads are per request. A request that failed counts with the time that took, and as wrong. Undefined: None.
        """
        requests, groups = self.latency_s, self.groups_s
        coded = self.source == COLLAGE
        return {
            **about,
            "groups": len(groups),
            **_percentiles("", requests),
            "mean_s": float(requests.mean()),
            "std_s": float(requests.std()),
            **_percentiles("group_", groups),
            "group_std_s": float(groups.std()),
            "coded_share": float(coded.mean()),
            "unsure_share": float((coded & self.unsure).mean()),
            "coded_accuracy": float(self.right[coded].mean()) if coded.any() else None,
            "accuracy": float(self.right.mean()),
            "accuracy_available": float(self.available.mean()),
            "collage_load": self.collages / len(requests),
            "replica_load": self.replicas / len(requests),
            "busy_s": self.busy_s,
        }


def _percentiles(prefix: str, seconds: NDArray[np.float64]) -> dict[str, Scalar]:
    p50, p95, p99, p999 = (float(value) for value in np.quantile(seconds, (0.5, 0.95, 0.99, 0.999)))
    return {
        f"{prefix}p50_s": p50,
        f"{prefix}p95_s": p95,
        f"{prefix}p99_s": p99,
        f"{prefix}p999_s": p999 if len(seconds) >= FOR_P999 else None,
    }
