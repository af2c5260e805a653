"""The processes of a training run: ours on one machine, or those that torchrun starts on several."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist

from models.distributed.links import TIMEOUT_S, ProcessLink

GRACE_S = 10.0
"""How long processes may take to end by themselves once one has failed."""


def is_member() -> bool:
    """Whether this process is one of several: ``start`` or torchrun have told it its rank."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


@contextmanager
def joined(timeout_s: float = TIMEOUT_S) -> Iterator[ProcessLink]:
    """This process's place among the others, by the variables that torchrun sets, until the block ends.

    Raises RuntimeError if not all processes come within ``timeout_s``.
    """
    dist.init_process_group("gloo", timeout=timedelta(seconds=timeout_s))
    try:
        yield ProcessLink(timeout_s)
    finally:
        with suppress(RuntimeError):  # the others may be gone
            dist.destroy_process_group()


def start(command: Sequence[str], workers: int, cores: int | None = None) -> int:
    """Run ``python COMMAND`` in so many processes on this machine, and wait; 0, or the exit code of the first to fail.

    Each has its share of the ``cores``. When one fails, the others notice and end; those that do not are ended after
    ``GRACE_S``.
    """
    threads = max(1, (cores or os.cpu_count() or 1) // workers)
    shared = {"WORLD_SIZE": str(workers), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    shared["OMP_NUM_THREADS"] = str(threads)
    children = [_child(command, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(workers)]
    try:
        return _end(children)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()


def _child(command: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *command], env={**os.environ, **variables})  # noqa: S603 - ourselves


def _end(children: Sequence[subprocess.Popen[bytes]]) -> int:
    failed, until = 0, float("inf")
    while any(child.poll() is None for child in children) and time.monotonic() < until:
        time.sleep(0.05)
        codes = [child.returncode for child in children if child.returncode]
        if codes and not failed:
            failed, until = codes[0], time.monotonic() + GRACE_S
    return failed or next((child.returncode for child in children if child.returncode), 0)


def _free_port() -> int:
    """A port of this machine that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
