"""Waiting for a training run to get somewhere."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable


def until(done: Callable[[], bool], *runs: subprocess.Popen[bytes]) -> None:
    """Wait a minute at most; none of the processes may end before."""
    limit = time.monotonic() + 60
    while not done():
        assert all(run.poll() is None for run in runs), "it ended by itself"
        assert time.monotonic() < limit
        time.sleep(0.05)
