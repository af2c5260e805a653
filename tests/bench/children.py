"""Trivial child processes and how to see that they are gone."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

BOUND_S = 30.0
"""Longest that a test waits for anything; a failsafe, not a measurement."""

_READY = """
import signal, sys
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
port = int(flags["--port"]) or 4321
"""
SERVER = [sys.executable, "-c", _READY + "print(f'ready port={port} metrics_port=1', flush=True)\nsignal.pause()"]
"""Announces port 4321 at first, later the port in its arguments, and waits."""
STUBBORN = [*SERVER[:2], _READY + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVER[2][len(_READY) :]]
"""The same, deaf to SIGTERM."""
BROKEN = [sys.executable, "-c", "import sys; print('fine so far'); sys.exit('there is no model')"]
"""Ends with exit code 1 before it is ready."""
SILENT = [sys.executable, "-c", "import signal; signal.pause()"]
"""Never ready."""


async def until_gone(pids: Sequence[int]) -> None:
    """Wait until none of the processes, whosever children they are, runs any more."""
    loop = asyncio.get_running_loop()
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        gone = loop.create_future()
        loop.add_reader(handle, lambda gone=gone: gone.done() or gone.set_result(None))
        try:
            await asyncio.wait_for(gone, BOUND_S)
        finally:
            loop.remove_reader(handle)
            os.close(handle)


def state(pid: int) -> str:
    """A process's state letter: S sleeping, T stopped, Z ended but not waited for."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
