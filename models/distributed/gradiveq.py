"""GradiVeQ (Yu et al., "GradiVeQ: Vector Quantization for Bandwidth-Efficient Gradient Aggregation in Distributed CNN
Training"): gradients of convolutions as few coefficients, which add up in a ring as they are.

The gradients of a stage's convolutions are cut into slices of K elements. Slices are alike, so that d directions out of
K hold most of them: c = U' (g - mean) is linear, and the sum of all ranks' c gives the sum of their gradients. Every
cycle has a few steps in which rank 0 looks at its slices. It finds U beside the training, and all ranks get it. The
first steps of a run, before there is a U, send everything. Two things are ours: one U serves all convolutions of a
stage, which saves bytes, and gradients stay compressed while rank 0 looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from models.distributed.addition import SEGMENT, total
from models.distributed.flat import Part
from models.distributed.quantise import Levels
from models.distributed.ring import Ring


@dataclass(frozen=True)
class Cycle:
    """When U is made, and how large it is."""

    slice: int = 512  # K, elements
    most: int = 64  # d, directions at most ...
    variance: float = 0.99  # ... or as few as hold this share of the slices' squares
    look: int = 10  # steps in which rank 0 looks at its slices
    steps: int = 100  # from one U to the next
    lag: int = 5  # steps from the last look to the new U, which is found meanwhile
    feedback: bool = False  # what is lost is added to the next gradient; it piles up outside U until U turns


@dataclass(frozen=True)
class Basis:
    """Directions of a stage: ``mean [K]`` and orthonormal ``u [K, d]``; ``explained`` is their share of the squares."""

    mean: Tensor
    u: Tensor
    explained: float


class Group:
    """The slices of one stage's convolutions, and what rank 0 learns of them."""

    def __init__(self, parts: Sequence[Part], width: int) -> None:
        self.places = torch.cat([_places(part, width) for part in parts])
        self.width, self.count = width, len(self.places) // width
        self._clear()

    def _clear(self) -> None:
        self._squares, self._sum, self._seen = torch.zeros(self.width, self.width), torch.zeros(self.width), 0

    def slices(self, vector: Tensor) -> Tensor:
        """The slices ``[count, K]`` of float32 ``[n]``."""
        return vector[self.places].view(self.count, self.width)

    def look(self, slices: Tensor) -> None:
        """Take slices into account."""
        self._squares.addmm_(slices.T, slices)
        self._sum += slices.sum(0)
        self._seen += len(slices)

    def basis(self, cycle: Cycle) -> Basis:
        """The directions of most variance among the slices seen since the last time."""
        mean = self._sum / self._seen
        values, vectors = torch.linalg.eigh(self._squares / self._seen - torch.outer(mean, mean))
        held = values.flip(0).clamp(min=0).cumsum(0)
        shares = (held + mean.square().sum()) / (held[-1] + mean.square().sum()).clamp(min=1e-30)
        enough = int(torch.searchsorted(shares, cycle.variance)) + 1
        used = max(1, min(enough, cycle.most))
        self._clear()
        return Basis(mean, vectors.flip(1)[:, :used].contiguous(), float(shares[used - 1]))


class GradiVeQ:
    """Few coefficients for the gradients of convolutions; all others, and what is left of slices, travel whole.

    ``levels`` make coefficients small whole numbers, as QSGD does. ``explained`` has the share of the slices' squares
    that the present directions hold, by stage; only rank 0 knows it.
    """

    def __init__(self, parts: Sequence[Part], cycle: Cycle = Cycle(), levels: Levels | None = None) -> None:
        self.cycle, self._levels = cycle, levels
        stages: dict[int, list[Part]] = {}
        for part in parts:
            if len(part.shape) == 4 and part.stop - part.start >= cycle.slice:
                stages.setdefault(part.shape[0], []).append(part)
        self.groups = [Group(members, cycle.slice) for members in stages.values()]
        covered = torch.ones(parts[-1].stop, dtype=torch.bool)
        for group in self.groups:
            covered[group.places] = False
        self._rest = covered.nonzero().reshape(-1)
        self._bases: list[Basis] = []
        self._finder = ThreadPoolExecutor(1, thread_name_prefix="gradiveq")
        self._found: Future[list[Basis]] | None = None
        self._kept, self._step = torch.zeros(()), 0

    @property
    def explained(self) -> list[float]:
        """The share of the squares of what rank 0 looked at that the present directions hold, by stage."""
        return [basis.explained for basis in self._bases]

    def mean(self, gradient: Tensor, ring: Ring) -> Tensor:
        """The mean over ranks, of convolutions as far as the present directions hold it."""
        wanted = gradient + self._kept
        cycle, since = self.cycle, self._step - self.cycle.look
        place = since % cycle.steps
        if self.groups and (since == 0 or (since > 0 and place == cycle.lag and since >= cycle.steps)):
            self._bases = self._share(ring)
        if ring.rank == 0 and self.groups and (since < 0 or place >= cycle.steps - cycle.look):
            for group in self.groups:
                group.look(group.slices(wanted))
            if place == cycle.steps - 1:
                self._found = self._finder.submit(lambda: [group.basis(cycle) for group in self.groups])
        self._step += 1
        return self._compressed(wanted, ring) if self._bases else total(wanted, ring).div_(ring.size)

    def _share(self, ring: Ring) -> list[Basis]:
        """The new directions of rank 0, on all ranks."""
        found: list[Basis] = self._found.result() if self._found else []
        used = [basis.u.shape[1] for basis in found] or [0] * len(self.groups)
        sizes = ring.broadcast(torch.tensor(used, dtype=torch.int32))
        counts = [(int(size) + 1) * group.width for size, group in zip(sizes, self.groups, strict=True)]
        told = [torch.cat((basis.mean, basis.u.reshape(-1))) for basis in found]
        vector = ring.broadcast(torch.cat(told) if told else torch.empty(sum(counts)))
        bases = []
        for number, (piece, group) in enumerate(zip(torch.split(vector, counts), self.groups, strict=True)):
            u = piece[group.width :].view(group.width, -1)
            bases.append(Basis(piece[: group.width], u, found[number].explained if found else 0.0))
        return bases

    def _compressed(self, wanted: Tensor, ring: Ring) -> Tensor:
        slices = [group.slices(wanted) for group in self.groups]
        pairs = list(zip(slices, self._bases, strict=True))
        codes = [(own - basis.mean) @ basis.u for own, basis in pairs]
        coder = self._levels.coder(codes, ring) if self._levels else None
        rest = [partial(piece.clone) for piece in torch.split(wanted[self._rest], SEGMENT)]
        sent = [coder.encode(code, number) if coder else code for number, code in enumerate(codes)]
        messages = [partial(message.reshape(-1).clone) for message in sent]
        plus = self._levels.plus if self._levels else Tensor.add_
        sums = ring.add([*rest, *messages], plus)
        mean = torch.zeros_like(wanted)
        if self.cycle.feedback:
            self._kept = torch.zeros_like(wanted)
        mean[self._rest] = torch.cat([next(sums) for _ in rest]) / ring.size
        for number, (group, basis, own, message, code, summed) in enumerate(
            zip(self.groups, self._bases, slices, sent, codes, sums, strict=True)
        ):
            together = coder.decode(summed, number) if coder else summed.view_as(code)
            mean[group.places] = (together / ring.size @ basis.u.T + basis.mean).reshape(-1)
            if self.cycle.feedback:
                told = coder.decode(message, number) if coder else code
                self._kept[group.places] = (own - told @ basis.u.T - basis.mean).reshape(-1)
        return mean


def _places(part: Part, width: int) -> Tensor:
    """Where a convolution's slices lie in the vector of all gradients: whole slices, in the order of memory."""
    return torch.arange(part.start, part.start + (part.stop - part.start) // width * width)
