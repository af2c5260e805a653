"""Networks that make redundant inputs and decode (Learning-based coded computation, section IV, tables I and II).

The base model runs the redundant inputs; it is no part of the networks and is not trained. Or a parity model runs them,
which is trained with the networks. Other than in the paper, redundant inputs are pixels between black and white, so
that they travel as uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from models.layers import xavier
from models.resnet import resnet18

DILATIONS = (1, 1, 2, 4, 8, 1)
WIDTH = 20
"""Channels of the convolutions for each member."""


def conv_encoder(members: int, inputs: int) -> nn.Sequential:
    """``[B, N, H, W]`` to ``[B, r, H, W]``: six dilated 3 x 3 convolutions and a 1 x 1 convolution."""
    layers: list[nn.Module] = []
    channels = members
    for dilation in DILATIONS:
        layers += [nn.Conv2d(channels, WIDTH * members, 3, padding=dilation, dilation=dilation), nn.ReLU()]
        channels = WIDTH * members
    return nn.Sequential(*layers, nn.Conv2d(channels, inputs, 1))


def mlp_encoder(members: int, inputs: int, size: int) -> nn.Sequential:
    """``[B, N, size, size]`` to ``[B, r, size, size]`` by two fully connected layers."""
    pixels = size * size
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(members * pixels, members * pixels),
        nn.ReLU(),
        nn.Linear(members * pixels, inputs * pixels),
        nn.Unflatten(1, (inputs, size, size)),
    )


def mlp_decoder(members: int, inputs: int, outputs: int) -> nn.Sequential:
    """``[..., (N + r) m]`` to ``[..., N m]`` by three fully connected layers."""
    wide = members * outputs
    return nn.Sequential(
        nn.Linear((members + inputs) * outputs, wide),
        nn.ReLU(),
        nn.Linear(wide, wide),
        nn.ReLU(),
        nn.Linear(wide, wide),
    )


class CodeNetworks(nn.Module):
    """An encoder (``"conv"`` or ``"mlp"``) and a decoder for ``members`` N and ``inputs`` r of a model of m outputs.

    Colours are encoded one by one, by the same network. ``protect`` names the base model before they are trained. With
    ``parity`` all redundant inputs are run by that model, which is trained with the two networks (section VI-C).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, encoder: str, size: int, outputs: int, members: int, inputs: int, parity: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.members, self.inputs = members, inputs
        conv = encoder == "conv"
        self.encoder = conv_encoder(members, inputs) if conv else mlp_encoder(members, inputs, size)
        self.decoder = mlp_decoder(members, inputs, outputs)
        xavier(self)
        self.parity = parity
        self.base: tuple[nn.Module, ...] = ()  # in a tuple, so that it is no part of the networks' state

    def protect(self, base: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        """Say whose outputs are to be decoded: a model of inputs normalised with these statistics of each colour."""
        self.base = (base.requires_grad_(False).eval(),)
        device = next(base.parameters()).device
        self.register_buffer("mean", torch.tensor(mean, device=device)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std, device=device)[:, None, None], persistent=False)

    def encoded(self, x: Tensor) -> Tensor:
        """Normalised images of a group ``[B, 3 N, H, W]`` to redundant inputs ``[B, r, 3, H, W]``, 0 to 1."""
        height, width = x.shape[2:]
        colours = x.reshape(len(x), self.members, 3, height, width).transpose(1, 2).flatten(0, 1)
        coded: Tensor = self.encoder(colours).view(len(x), 3, self.inputs, height, width)
        return coded.transpose(1, 2).sigmoid()

    def decoded(self, outputs: Tensor) -> Tensor:
        """Outputs ``[..., N + r, m]``, with zeros for what is missing, to those of the members ``[..., N, m]``."""
        decoded: Tensor = self.decoder(outputs.flatten(-2))
        return decoded.reshape(*outputs.shape[:-2], self.members, outputs.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images of groups ``[B, 3 N, H, W]`` to what is decoded after each loss, ``[B, losses + 1, N, m]``.

        Losses are those of ``losses``, or in evaluation mode of each member alone. The last entry is what the base
        model puts out for the members.
        """
        (base,) = self.base
        with torch.no_grad():
            own = base(x.reshape(-1, 3, *x.shape[2:])).view(len(x), self.members, -1)
        run = self.parity or base
        coded = run(((self.encoded(x) - self.mean) / self.std).flatten(0, 1)).view(len(x), self.inputs, -1)
        gone = losses(self.members, self.inputs) if self.training else torch.eye(self.members, self.members).bool()
        kept = torch.ones(len(gone), self.members + self.inputs, device=x.device)
        kept[:, : gone.shape[1]] = (~gone).float().to(x.device)
        outputs = torch.cat((own, coded), 1)
        return torch.cat((self.decoded(outputs[:, None] * kept[..., None]), own[:, None]), 1)


def joint(
    size: int,
    outputs: int,
    members: int,
    inputs: int,
    widths: Sequence[int] = (64, 128, 256, 512),
    stem: str = "imagenet",
) -> CodeNetworks:
    """Encoder, decoder and a ResNet-18 between them, all trained together."""
    return CodeNetworks("conv", size, outputs, members, inputs, resnet18(outputs, stem, widths))


def losses(members: int, inputs: int) -> Tensor:
    """Every loss of r of the N + r outputs, except that of all redundant ones: bool ``[losses, N + r]``."""
    count = members + inputs
    lost = [gone for gone in combinations(range(count), inputs) if gone[0] < members]
    return torch.tensor([[place in gone for place in range(count)] for gone in lost])
