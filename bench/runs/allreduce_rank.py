"""One rank of ``python -m bench allreduce``: times sums of gradients, and training steps, over a shaped link."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from bench.cluster.network import DEVICE
from models.checkpoint import ARCHITECTURES
from models.distributed import ADDITIONS, Addition, GradiVeQ
from models.distributed.flat import gradients, parts_of, put
from models.distributed.launch import joined
from models.distributed.ring import Link, Pending, Ring, whole_bytes

GLOO = "gloo"
"""The name of torch's own sum, which a ring is compared with."""
FEW = 10
"""Sums that are timed of an addition whose steps are all alike, and training steps of every addition."""


@dataclass(frozen=True)
class Plan:
    """What all ranks do. ``bucket_mbit_s`` shapes the link in this process; 0: the network is shaped already."""

    model: str
    options: dict[str, Any]
    additions: list[str]
    batch: int
    seed: int
    bucket_mbit_s: float
    timeout_s: float


class Bucket:
    """A link that sends at most ``mbit_s``, where the network cannot be shaped: a thread sleeps before it sends."""

    def __init__(
        self,
        link: Link,
        mbit_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.rank, self.size, self._link, self._rate = link.rank, link.size, link, mbit_s * 1e6 / 8
        self._clock, self._sleep = clock, sleep
        self._sender, self._free = ThreadPoolExecutor(1), 0.0

    def send(self, data: Tensor, tag: int) -> Pending:
        """Begin to send to the next rank, behind what is being sent."""
        return _Sending(self._sender, lambda: self._slowly(data, tag))

    def _slowly(self, data: Tensor, tag: int) -> None:
        self._free = max(self._free, self._clock()) + data.numel() * data.element_size() / self._rate
        self._sleep(max(0.0, self._free - self._clock()))
        self._link.send(data, tag).wait()

    def receive(self, into: Tensor, tag: int) -> Pending:
        """Begin to receive from the rank before."""
        return self._link.receive(into, tag)


class _Sending:
    def __init__(self, sender: ThreadPoolExecutor, work: Callable[[], None]) -> None:
        self._future = sender.submit(work)

    def wait(self) -> None:
        self._future.result()


class Gloo:
    """torch's own sum."""

    def mean(self, gradient: Tensor, ring: Ring) -> Tensor:
        """The mean over ranks."""
        total = gradient.clone()
        dist.all_reduce(total)
        ring.sent += int(whole_bytes(len(total), ring.size))  # what its ring sends as well
        return total.div_(ring.size)


class Work:
    """A model's step on random images: what it costs to compute, and a gradient of real size."""

    def __init__(self, plan: Plan, ranks: int) -> None:
        torch.manual_seed(plan.seed)
        self.model: nn.Module = ARCHITECTURES[plan.model](10, **plan.options).train()
        count = max(1, plan.batch // ranks)
        self._images, self._labels = torch.randn(count, 3, 32, 32), torch.randint(10, (count,))
        self._optimiser = torch.optim.SGD(self.model.parameters(), 0.01, 0.9)

    def compute(self) -> Tensor:
        """The gradient of this rank's images."""
        self._optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(self.model(self._images), self._labels).backward()  # type: ignore[no-untyped-call]
        return gradients(self.model)

    def step(self, mean: Tensor) -> None:
        """Take a step."""
        put(mean, self.model)
        self._optimiser.step()


def transmitted() -> int | None:
    """Bytes that this network namespace has sent so far, headers included, as the kernel counts; None if unknown."""
    try:
        lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    except OSError:
        return None
    counts = {name.strip(): int(rest.split()[8]) for name, _, rest in (line.partition(":") for line in lines)}
    return counts.get(DEVICE)


def measured(name: str, work: Work, ring: Ring) -> dict[str, Any]:
    """What a sum by this addition takes and sends, on the average over one of its cycles, and a training step."""
    addition: Addition = Gloo() if name == GLOO else ADDITIONS[name](parts_of(work.model))
    gradient = work.compute()
    before, count = 1, FEW
    if isinstance(addition, GradiVeQ):  # the whole sums of its beginning come once in a run
        before, count = addition.cycle.look + 1, addition.cycle.steps
    times, sent, kernel_before = [], 0, None
    for number in range(before + count):
        varied = torch.randn_like(gradient)  # without structure: GradiVeQ takes as many directions as it may
        _barrier(ring)
        if number == before:
            sent, kernel_before = 0, transmitted()
        sent_before, started = ring.sent, time.perf_counter()
        addition.mean(varied, ring)
        times.append(time.perf_counter() - started)
        sent += ring.sent - sent_before
    _barrier(ring)  # now the next rank has received everything
    kernel = transmitted()
    row: dict[str, Any] = {
        "compressor": name,
        "bytes": sent / count,
        "bytes_kernel": (kernel - kernel_before) / count if kernel is not None and kernel_before is not None else None,
        "communication_s": statistics.fmean(times[before:]),
        "communication_p50_s": statistics.median(times[before:]),
    }
    computing, steps = [], []
    for _ in range(FEW):
        _barrier(ring)
        started = time.perf_counter()
        gradient = work.compute()
        computing.append(time.perf_counter() - started)
        work.step(addition.mean(gradient, ring))
        steps.append(time.perf_counter() - started)
    return {**row, "compute_s": statistics.median(computing), "step_s": statistics.median(steps)}


def _barrier(ring: Ring) -> None:
    ring.maximum(torch.zeros(1))


def main(argv: list[str]) -> int:
    """Rank 0 prints a line of JSON for each addition."""
    plan = Plan(**json.loads(argv[0]))
    torch.set_num_threads(1)
    with joined(plan.timeout_s) as link:
        ring = Ring(Bucket(link, plan.bucket_mbit_s) if plan.bucket_mbit_s else link)
        work = Work(plan, ring.size)
        for name in plan.additions:
            row = measured(name, work, ring)
            row["bytes_plain"] = whole_bytes(parts_of(work.model)[-1].stop, ring.size)
            if ring.rank == 0:
                print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
