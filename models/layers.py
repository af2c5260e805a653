"""What trains fast on CPUs: a 3 x 3 convolution for small feature maps, the precision, and memory that stays."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _columns(x: Tensor) -> Tensor:
    """im2col of a padded 3 x 3 window: ``[B, C, H, W]`` to ``[B * H * W, 9 * C]``, channels innermost."""
    batch, channels, height, width = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    windows = padded.unfold(1, 3, 1).unfold(2, 3, 1).permute(0, 1, 2, 4, 5, 3)
    return windows.reshape(batch * height * width, 9 * channels)


def _matmul_conv(x: Tensor, weight: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    flat = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
    return (_columns(x) @ flat.T).view(batch, height, width, len(weight)).permute(0, 3, 1, 2)


class _SmallMapConv(torch.autograd.Function):
    """3 x 3, stride 1, padding 1, with the weight gradient as one matrix product.

    oneDNN's own kernels are several times slower here when the feature map is 4 x 4 or smaller.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)  # type: ignore[untyped-decorator]
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _matmul_conv(x, weight) if x.shape[-1] <= 2 else F.conv2d(x, weight, padding=1)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        grad_x = None
        if ctx.needs_input_grad[0]:
            mirrored = weight.flip(2, 3).transpose(0, 1)
            grad_x = _matmul_conv(grad, mirrored) if x.shape[-1] <= 2 else F.conv2d(grad, mirrored, padding=1)
        flat = grad.permute(0, 2, 3, 1).reshape(-1, len(weight))
        grad_weight = (flat.T @ _columns(x)).view(len(weight), 3, 3, -1).permute(0, 3, 1, 2)
        return grad_x, grad_weight


class Conv3x3(nn.Conv2d):
    """``nn.Conv2d`` with a 3 x 3 kernel, padding 1 and no bias; identical results, faster bfloat16 training on CPU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, 3, stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs, H, W]`` to ``[B, outputs, ceil(H / stride), ceil(W / stride)]``."""
        small = max(x.shape[-2:]) <= 4 and self.stride == (1, 1)
        if self.training and small and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            return _SmallMapConv.apply(x, self.weight)  # type: ignore[no-any-return,no-untyped-call]
        return super().forward(x)


def xavier(model: nn.Module) -> None:
    """First weights as in Learning-based coded computation, sections IV-D and V-E; batch norms begin as the identity.

    Those of convolutions are uniform (Glorot and Bengio, "Understanding the Difficulty of Training Deep Feedforward
    Neural Networks"), of linear layers normal with standard deviation 0.01, of biases 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d) and module.bias is not None:
            nn.init.zeros_(module.bias)


class Perceptron(nn.Module):
    """The fully connected classifier of Learning-based coded computation, section IV-D: 200, 100, then the classes.

    float32 ``[B, channels, size, size]`` (normalised) to logits ``[B, classes]``.
    """

    def __init__(self, classes: int, size: int = 32, channels: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * size * size, 200),
            nn.ReLU(),
            nn.Linear(200, 100),
            nn.ReLU(),
            nn.Linear(100, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.layers(x)
        return logits


def default_precision(device: str) -> str:
    """bfloat16 where the device computes in it (GPUs; CPUs with AMX or AVX512-BF16, 2 times as fast), else float32."""
    if device != "cpu":
        return "bf16"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "fp32"


def keep_memory() -> None:
    """Let the process keep the memory it frees, on Linux with glibc.

    By default large tensors go back to the kernel, which hands out zeroed pages for the next: a seventh of the time of
    a training step of ``CollageVGG``.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        trim_threshold, mmap_max = -1, -4  # malloc.h
        mallopt(trim_threshold, -1)
        mallopt(mmap_max, 0)
