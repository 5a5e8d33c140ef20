"""Stateless operations on one step of a batch, as plain data: what a carried value is told.

Each is called on a tensor (N, ...) whose first axis is the batch, or time and batch folded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True, eq=False)
class Convolution:
    """Cross-correlation. ``weight`` (Cout, Cin/groups, KH, KW), ``bias`` (Cout,) or None."""

    weight: Tensor
    bias: Tensor | None
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def __call__(self, x: Tensor) -> Tensor:
        """(N, Cin, H, W) to (N, Cout, H', W')."""
        return F.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )

    def backward(self, gradient: Tensor, x: Tensor, needs: tuple[bool, bool, bool]) -> Gradients:
        """Gradients to the input ``x``, the weight and the bias, where needed."""
        sizes = None if self.bias is None else list(self.bias.shape)
        wanted = list(needs)
        as_mapped = gradient.dtype  # bfloat16 under autocast, whatever the parameters are
        found: Gradients = torch.ops.aten.convolution_backward(
            gradient, x.to(as_mapped), self.weight.to(as_mapped), sizes, self.stride, self.padding,
            self.dilation, False, [0, 0], self.groups, wanted,
        )  # fmt: skip
        return found


@dataclass(frozen=True, eq=False)
class Affine:
    """y = W x + b. ``weight`` (out, in), ``bias`` (out,) or None."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """(N, ..., in) to (N, ..., out)."""
        return F.linear(x, self.weight, self.bias)

    def backward(self, gradient: Tensor, x: Tensor, needs: tuple[bool, bool, bool]) -> Gradients:
        """Gradients to the input ``x``, the weight and the bias, where needed."""
        rows, as_mapped = gradient.flatten(0, -2), gradient.dtype
        return (
            gradient @ self.weight.to(as_mapped) if needs[0] else None,
            rows.T @ x.flatten(0, -2).to(as_mapped) if needs[1] else None,
            rows.sum(0) if needs[2] else None,
        )


LinearMap = Convolution | Affine


@dataclass(frozen=True, eq=False)
class Norm:
    """Batch normalisation as torch's function is told of it.

    ``training``: normalise by the batch and move the running statistics by ``momentum``.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    training: bool
    momentum: float
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, ...) to the same shape."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training, self.momentum, self.eps,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class ChannelScale:
    """y = weight * x + bias, one of each per channel (C,) or none: the last part of a norm."""

    weight: Tensor | None
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, ...) to the same shape."""
        view = (-1, *[1] * (x.dim() - 2))
        y = x if self.weight is None else x * self.weight.view(view)
        return y if self.bias is None else y + self.bias.view(view)

    def backward(self, gradient: Tensor, x: Tensor, needs: tuple[bool, bool, bool]) -> Gradients:
        """Gradients to the input ``x``, the weight and the bias, where needed."""
        others = [axis for axis in range(x.dim()) if axis != 1]
        return (
            ChannelScale(self.weight, None)(gradient) if needs[0] else None,
            (gradient * x).sum(others) if needs[1] else None,
            gradient.sum(others) if needs[2] else None,
        )


@dataclass(frozen=True)
class AveragePool:
    """Mean over windows; padding counts as zeros."""

    kernel: Pair
    stride: Pair
    padding: Pair

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H', W')."""
        return F.avg_pool2d(x, self.kernel, self.stride, self.padding)


@dataclass(frozen=True)
class SumPool:
    """Sum over windows."""

    kernel: Pair
    stride: Pair
    padding: Pair

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H', W')."""
        return F.avg_pool2d(x, self.kernel, self.stride, self.padding, divisor_override=1)


@dataclass(frozen=True)
class Flatten:
    """Join the axes ``start`` to ``end`` of a sample, in C, H, W order."""

    start: int = 0
    end: int = -1

    def __call__(self, x: Tensor) -> Tensor:
        """(N, *shape) to (N, *joined)."""
        return x.flatten(self.start + 1, self.end + 1 if self.end >= 0 else self.end)


@dataclass(frozen=True)
class Reshape:
    """Give a sample another shape of the same size."""

    shape: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """(N, ...) to (N, *shape)."""
        return x.reshape(x.shape[0], *self.shape)


FixedMap = AveragePool | SumPool | Flatten | Reshape
"""Linear maps without parameters."""
