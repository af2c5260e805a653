"""Ranks as threads of one process, in a ring of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from models.distributed.addition import Addition
from models.distributed.flat import Part
from models.distributed.links import MemoryLink
from models.distributed.ring import Ring

T, A = TypeVar("T"), TypeVar("A", bound=Addition)


def rings(size: int, timeout_s: float = 20) -> list[Ring]:
    return [Ring(link) for link in MemoryLink.ring(size, timeout_s)]


def together(size: int, work: Callable[[Ring], T]) -> list[T]:
    """What each rank returns, by rank; the first rank's exception if some fail."""
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, rings(size)))


class Run:
    """Means of gradients ``[steps, ranks, n]`` by additions of one kind, and the bytes that each step sent."""

    def __init__(self, make: Callable[[Sequence[Part]], A], parts: Sequence[Part], gradients: Tensor) -> None:
        def work(ring: Ring) -> tuple[list[Tensor], list[int], A]:
            addition, means, sent = make(parts), [], [0]
            for gradient in gradients[:, ring.rank]:
                means.append(addition.mean(gradient, ring))
                sent.append(ring.sent)
            return means, sent, addition

        found = together(gradients.shape[1], work)
        self.means = torch.stack(found[0][0])
        self.additions = [addition for _, _, addition in found]
        self.sent = [[now - before for before, now in pairwise(sent)] for _, sent, _ in found]
        for means, _, _ in found:
            assert torch.equal(torch.stack(means), self.means), "every rank must take the same step"
