"""Training by several processes, which add their gradients up in a ring, whole or compressed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from models.distributed.addition import Addition, TopK, Whole
from models.distributed.flat import Part
from models.distributed.gradiveq import Cycle, GradiVeQ
from models.distributed.powersgd import PowerSGD
from models.distributed.quantise import Levels

__all__ = ["ADDITIONS", "Addition", "Cycle", "GradiVeQ", "Levels", "PowerSGD", "TopK", "Whole"]

ADDITIONS: Mapping[str, Callable[[Sequence[Part]], Addition]] = {
    "none": lambda parts: Whole(),
    "fp16": lambda parts: Whole(torch.float16),
    "gradiveq": GradiVeQ,
    "gradiveq-8": lambda parts: GradiVeQ(parts, levels=Levels(8, random=True)),
    "gradiveq-4": lambda parts: GradiVeQ(parts, levels=Levels(4, random=True)),
    "powersgd-1": lambda parts: PowerSGD(parts, 1),
    "powersgd-2": lambda parts: PowerSGD(parts, 2),
    "powersgd-4": lambda parts: PowerSGD(parts, 4),
    "topk": lambda parts: TopK(),
}
"""Ways to add gradients up, by the names that commands know; each is made for the parts of a model's gradient."""
