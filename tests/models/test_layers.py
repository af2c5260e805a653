from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.layers import Conv3x3


@pytest.mark.parametrize(("side", "channels"), [(1, 32), (2, 16), (4, 8), (8, 8)])
def test_conv3x3_is_conv2d(side: int, channels: int) -> None:
    torch.manual_seed(0)
    ours, theirs = Conv3x3(channels, 24), nn.Conv2d(channels, 24, 3, padding=1, bias=False)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(16, channels, side, side).to(memory_format=torch.channels_last)
    weights = torch.randn(16, 24, side, side)

    def run(conv: nn.Conv2d, autocast: bool) -> tuple[Tensor, Tensor, Tensor]:
        x = images.clone().requires_grad_()
        conv.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = conv(x)
        (y.float() * weights).sum().backward()
        assert x.grad is not None
        assert conv.weight.grad is not None
        return y, x.grad, conv.weight.grad

    exact = run(theirs, False)
    for found, wanted in zip(run(ours, False), exact, strict=True):
        torch.testing.assert_close(found, wanted)
    cast = run(ours, True)
    assert cast[0].dtype == torch.bfloat16
    assert cast[2].dtype == torch.float32
    for found, wanted in zip(cast, exact, strict=True):  # bfloat16 has 8 bits
        assert (found.float() - wanted).norm() < 0.02 * wanted.norm()
