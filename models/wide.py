"""A wide, shallow classifier that reaches a high accuracy in little computing time: a teacher for the other models.

Six convolutions in three groups after a first layer that is computed from training images, not learnt. Source: Jordan,
"94 % on CIFAR-10 in 3.29 seconds on a single GPU", sections 3.1 to 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import Conv3x3

PATCH = 2
"""Side of the patches that the first layer looks at, pixels."""


class ConvGroup(nn.Module):
    """``depth`` convolutions with batch norm and GELU; a 2 x 2 max-pool follows the first convolution.

    Only the offsets of the batch norms are learnt: the scale of the weights is fixed by their optimiser.
    """

    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Conv3x3(inputs if i == 0 else outputs, outputs) for i in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs, momentum=0.4) for _ in range(depth))
        for name, weight in self.named_parameters():
            if name.endswith("weight") and weight.ndim == 1:
                weight.requires_grad_(False)
            elif weight.ndim == 4:  # as many filters as there are inputs start as the identity
                nn.init.dirac_(weight.data[: weight.shape[1]])

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W]`` to ``[B, outputs, H // 2, W // 2]``."""
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = conv(x)
            if i == 0:
                x = F.max_pool2d(x, 2)
            x = F.gelu(norm(x))
        return x


class WideNet(nn.Module):
    """A classifier: float32 ``[B, 3, H, W]`` (normalised, H and W at least 16) to logits ``[B, classes]``.

    ``widths`` are the channels of the groups, ``depth`` the convolutions of each. In evaluation mode the answer is the
    mean over ``views`` of the image: 1 is the image alone, 2 adds its mirror image, 6 adds both shifted by a pixel to
    either corner of a diagonal, with half the weight.
    """

    def __init__(self, classes: int, widths: Sequence[int] = (64, 256, 256), depth: int = 2, views: int = 1) -> None:
        super().__init__()
        if views not in (1, 2, 6):
            raise ValueError(f"{views} views: choose 1, 2 or 6")
        self.views = views
        filters = 2 * 3 * PATCH**2
        self.whiten = nn.Conv2d(3, filters, PATCH)
        self.whiten.weight.requires_grad_(False)
        nn.init.zeros_(self.whiten.get_parameter("bias"))
        inputs = (filters, *widths)
        self.groups = nn.Sequential(*(ConvGroup(i, o, depth) for i, o in zip(inputs, widths, strict=False)))
        self.head = nn.Linear(widths[-1], classes, bias=False)
        nn.init.normal_(self.head.weight)

    @torch.no_grad()
    def whiten_from(self, images: Tensor, floor: float = 5e-4) -> None:
        """Set the first layer from normalised images ``[N, 3, H, W]``.

        Its filters are the principal components of the patches, scaled to unit variance (``floor`` is added to each
        variance before), and their negatives.
        """
        columns = F.unfold(images, PATCH).transpose(1, 2).reshape(-1, 3 * PATCH**2)
        values, vectors = torch.linalg.eigh(columns.T @ columns / len(columns))
        filters = (vectors / (values + floor).sqrt()).T.reshape(-1, 3, PATCH, PATCH)
        self.whiten.weight.copy_(torch.cat((filters, -filters)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images float32 ``[B, 3, H, W]`` to logits ``[B, classes]``."""
        if self.training or self.views == 1:
            return self.look(x)
        seen = [x]
        if self.views == 6:
            padded = F.pad(x, (1, 1, 1, 1), "reflect")
            seen += [padded[:, :, i : i + x.shape[2], i : i + x.shape[3]] for i in (0, 2)]
        seen += [view.flip(3) for view in seen]
        logits = self.look(torch.cat(seen))
        answers = logits.view(2, len(seen) // 2, -1, logits.shape[1]).mean(0)
        mean: Tensor = (answers[0] + answers[-2:].mean(0)) / 2
        return mean

    def look(self, x: Tensor) -> Tensor:
        """The logits of images, each seen once."""
        x = self.groups(F.gelu(self.whiten(x)))
        logits: Tensor = self.head(x.amax((2, 3))) / self.head.in_features
        return logits
