"""Whether a request can be answered in time, given what is queued before it. Pure: no I/O, no clock."""

from __future__ import annotations

import math

MAX_BYTES = 256 * 1024 * 1024
"""What requests in flight may hold, unless told otherwise."""
_SMOOTHING = 0.05
_DEVIATIONS = 2.33  # of a normal distribution: 99 % of what is admitted is to be in time


class Admission:
    """Estimates from the latest requests how long a new one takes. Times in seconds.

    A request waits first for its image to be prepared, behind the others that do, and then for its worker, behind the
    calls that this one has. A request that finds an idle worker and no image before its own is always admitted: nothing
    would be gained by refusing it.
    """

    def __init__(self) -> None:
        self.service = 0.0  # mean of a worker's calls
        self._service_square = 0.0
        self._prepare = 0.0  # mean per image queued
        self._served = self._prepared = 0

    def prepared(self, seconds: float, before: int) -> None:
        """An image was ready ``seconds`` after it had come, when ``before`` others were being prepared."""
        self._prepared += 1
        weight = max(_SMOOTHING, 1 / self._prepared)
        self._prepare += weight * (seconds / (before + 1) - self._prepare)

    def served(self, seconds: float) -> None:
        """A worker was busy for ``seconds`` with one call."""
        self._served += 1
        weight = max(_SMOOTHING, 1 / self._served)
        self.service += weight * (seconds - self.service)
        self._service_square += weight * (seconds * seconds - self._service_square)

    def expected(self, preparing: int, queue: float) -> float:
        """Seconds that a request nearly always needs at most, behind ``preparing`` images and ``queue`` calls."""
        prepare = (preparing + 1) * self._prepare
        if queue < 1:  # its worker is idle
            return prepare + self.service
        deviation = math.sqrt(max(0.0, self._service_square - self.service**2))
        return prepare + (queue + 1) * self.service + _DEVIATIONS * math.sqrt(queue + 1) * deviation

    def excess(self, preparing: int, queue: float, remaining: float) -> float:
        """By how much a request would miss its deadline in ``remaining`` seconds; 0 if it is to be admitted."""
        if preparing == 0 and queue < 1:
            return 0.0
        return max(0.0, self.expected(preparing, queue) - remaining)
