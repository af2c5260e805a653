"""What a training run needs to be shared by several processes: a share of every batch, and means over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.distributed.addition import Addition, total
from models.distributed.flat import Part, gradients, parts_of, put
from models.distributed.ring import Ring


class Team:
    """The processes of a run, from the view of one. All make the same calls in the same order.

    ``sent`` is the number of bytes that this rank has sent for gradients.
    """

    def __init__(self, ring: Ring, make: Callable[[Sequence[Part]], Addition]) -> None:
        self.ring, self._make = ring, make
        self.addition: Addition | None = None
        self.sent = 0

    def share(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """This rank's part of a batch, whose length is a multiple of the number of ranks."""
        part: NDArray[np.int64] = index.reshape(self.ring.size, -1)[self.ring.rank]
        return part

    def average(self, model: nn.Module) -> None:
        """Replace the model's gradients by their mean over ranks."""
        self.addition = self.addition or self._make(parts_of(model))
        before = self.ring.sent
        put(self.addition.mean(gradients(model), self.ring), model)
        self.sent += self.ring.sent - before

    def told(self, content: bytes) -> bytes:
        """What rank 0 says, on all ranks."""
        length = int(self.ring.broadcast(torch.tensor([len(content)])))
        said = torch.zeros(length, dtype=torch.uint8)
        if self.ring.rank == 0 and length:
            said = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return self.ring.broadcast(said).numpy().tobytes()

    def mean_of(self, value: float) -> float:
        """The mean over ranks of a number."""
        return float(total(torch.tensor([value]), self.ring)) / self.ring.size

    def settle(self, model: nn.Module) -> None:
        """Give every rank the weights of rank 0, and the mean of the statistics of batch norms.

        After the start of a run, weights differ only where processors round in another way.
        """
        weights = [weight.data for weight in model.parameters()]
        self._write(weights, self.ring.broadcast(_joined(weights)))
        statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        if statistics:
            self._write(statistics, total(_joined(statistics), self.ring).div_(self.ring.size))

    @staticmethod
    def _write(tensors: Iterable[Tensor], vector: Tensor) -> None:
        tensors = list(tensors)
        for tensor, piece in zip(tensors, torch.split(vector, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(piece.view(tensor.shape))


def _joined(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1).float() for tensor in tensors])
