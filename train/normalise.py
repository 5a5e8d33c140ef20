"""Batch normalisation of input currents, with statistics joint over time and batch.

The running statistics move once per pass, whatever T is. A current that is the same at every step
is normalised once: its statistics over T copies are those of one, but for the divisor of the
running variance, which is set right.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import RequestError
from .operations import Norm


def _values_per_channel(x: Tensor) -> int:
    return x.numel() // x.shape[1]


def _refuse_single(x: Tensor, copies: int) -> None:
    if _values_per_channel(x) * copies < 2:
        raise RequestError(
            "E_BATCH",
            f"batch normalisation in training received one value per channel (shape "
            f"{list(x.shape)}); give a larger batch",
        )


class _CopiedVariance:
    """Lets a running variance move as if each of n values had been seen ``copies`` times."""

    def __init__(self, norm: Norm, x: Tensor, copies: int) -> None:
        moves = norm.training and norm.running_var is not None and copies > 1
        self._variance = norm.running_var if moves else None
        if self._variance is not None:
            n, many = _values_per_channel(x), _values_per_channel(x) * copies
            self._before = self._variance.clone() * (1.0 - norm.momentum)
            self._factor = (n - 1) / n * (many / (many - 1))

    @torch.no_grad()
    def settle(self) -> None:
        """Correct the variance that torch has just moved."""
        if self._variance is not None:
            moved = self._variance - self._before
            self._variance.copy_(self._before + moved * self._factor)


def unrolled(x: Tensor, norm: Norm, copies: int) -> Tensor:
    """(N, C, ...) normalised, N = time and batch folded; each value stands for ``copies``."""
    if norm.training:
        _refuse_single(x, 1)
    variance = _CopiedVariance(norm, x, copies)
    y = norm(x)
    variance.settle()
    return y


class _OfRate(torch.autograd.Function):
    """y = weight (R - mean) / sigma + bias on the rate R, with the statistics of the spike pass.

    The gradient is batch normalisation's own, taken over the rate: the average over time of the
    gradient through time when that is constant in time (arXiv 2410.11488).
    """

    @staticmethod
    def forward(
        ctx: Any, rate: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor,
        inverse: Tensor, eps: float,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(rate, weight, mean, inverse)
        ctx.eps = eps
        slope = inverse if weight is None else inverse * weight
        offset = -mean * slope if bias is None else bias - mean * slope
        view = (1, -1, *[1] * (rate.dim() - 2))
        return torch.addcmul(offset.view(view), rate, slope.view(view))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rate, weight, mean, inverse = ctx.saved_tensors
        to_rate, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, rate, weight, None, None, mean, inverse, True, ctx.eps,
            list(ctx.needs_input_grad[:3]),
        )  # fmt: skip
        return to_rate, to_weight, to_bias, None, None, None


def paired(spikes: Tensor, rate: Tensor, norm: Norm, copies: int) -> tuple[Tensor, Tensor]:
    """The stream (N, C, ...), without graph, and the rate (B, C, ...), with one, normalised."""
    if not norm.training:
        with torch.no_grad():
            stream = norm(spikes)
        return stream, norm(rate)
    _refuse_single(spikes, 1)
    variance = _CopiedVariance(norm, spikes, copies)
    with torch.no_grad():
        stream, mean, inverse = torch.native_batch_norm(
            spikes, norm.weight, norm.bias, norm.running_mean, norm.running_var,
            True, norm.momentum, norm.eps,
        )  # fmt: skip
    variance.settle()
    normalised: Tensor = _OfRate.apply(  # type: ignore[no-untyped-call]
        rate, norm.weight, norm.bias, mean, inverse, norm.eps
    )
    return stream, normalised
