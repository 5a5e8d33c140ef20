"""Batch normalisation over the batches of several processes, on any device.

Mean first, then squared deviations from it: the difference of two large sums would lose what a
variance is made of. Forward and backward add up over the processes once or twice; every process
must come to both in the same order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .distributed import added
from .operations import Gradients, Norm


def _over(x: Tensor) -> list[int]:
    """All axes but the channels'."""
    return [axis for axis in range(x.dim()) if axis != 1]


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """(C,) as it broadcasts against ``x``."""
    return values.view(1, -1, *[1] * (x.dim() - 2))


def _with_count(sums: Tensor, x: Tensor) -> Tensor:
    """Sums per channel and, last, how many values went into each."""
    return torch.cat([sums, sums.new_tensor([x.numel() / x.shape[1]])])


def standardised(x: Tensor, norm: Norm, copies: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """``x`` (N, C, ...) normalised, and mean and 1 / deviation (C,) of all processes' values.

    The running statistics move as torch moves them, by the variance with the divisor n - 1, where
    each value stands for ``copies``.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    total = added(_with_count(wide.sum(_over(x)), x))
    mean, count = total[:-1] / total[-1], total[-1]
    centred = wide - _per_channel(mean, x)
    variance = added(centred.square().sum(_over(x))) / count
    inverse = torch.rsqrt(variance + norm.eps)
    slope = inverse if norm.weight is None else inverse * norm.weight
    y = centred * _per_channel(slope, x)
    if norm.bias is not None:
        y += _per_channel(norm.bias, x)
    if norm.running_mean is not None and norm.running_var is not None:
        seen = count * copies
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (seen / (seen - 1)), norm.momentum)
    return y.to(x.dtype), mean, inverse


def gradients(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    inverse: Tensor,
    needs: tuple[bool, bool, bool],
) -> Gradients:
    """Gradients to ``x``, through the statistics of all processes, and to this process's weight and
    bias, where needed."""
    wide = gradient.to(mean.dtype)
    standard = (x - _per_channel(mean, x)) * _per_channel(inverse, x)
    to_bias, to_weight = wide.sum(_over(x)), (wide * standard).sum(_over(x))
    total = added(_with_count(torch.cat([to_bias, to_weight]), x))
    to_x = None
    if needs[0]:
        along, across = (total[:-1] / total[-1]).chunk(2)
        slope = inverse if weight is None else inverse * weight
        to_x = wide - _per_channel(along, x) - standard * _per_channel(across, x)
        to_x = (to_x * _per_channel(slope, x)).to(gradient.dtype)
    return to_x, to_weight if needs[1] else None, to_bias if needs[2] else None


class _Normalised(torch.autograd.Function):
    """`standardised`, with its `gradients`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,  # noqa: ARG004 - named so that it gets a gradient
        norm: Norm,
        copies: int,
    ) -> Tensor:
        y, mean, inverse = standardised(x, norm, copies)
        ctx.save_for_backward(x, weight, mean, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        found = gradients(gradient, x, weight, mean, inverse, ctx.needs_input_grad[:3])
        return *found, None, None


def normalised(x: Tensor, norm: Norm, copies: int = 1) -> Tensor:
    """(N, C, ...) normalised by the statistics of all processes, with a graph."""
    y: Tensor = _Normalised.apply(  # type: ignore[no-untyped-call]
        x, norm.weight, norm.bias, norm, copies
    )
    return y
