"""What a server asks of Linux for speed (docs/speed.md has what it gains); elsewhere these do nothing."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

KEPT_BYTES = 16 * 1024 * 1024
LARGE_BYTES = 4 * 1024 * 1024  # less than the blocks that Pillow gets for large images
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_memory() -> None:
    """Have glibc keep freed memory, up to 16 MiB at the end of each heap, instead of giving it back to get it again.

    Images are just about as large as what it gives back: every request may then cost a hundred page faults or more.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, LARGE_BYTES)


@contextmanager
def batch_threads() -> Iterator[None]:
    """Threads that are started meanwhile, and theirs, are scheduled as batch work.

    gRPC's threads hand every message to the event loop, and where they share a core with it they interrupt it for each.
    As batch work they interrupt nobody: they run while it waits, or on another core.
    """
    changed = False
    with suppress(AttributeError, OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:  # or somebody chose otherwise
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            changed = True
    try:
        yield
    finally:
        if changed:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
