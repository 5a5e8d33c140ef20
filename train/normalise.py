"""Batch normalisation of input currents, with statistics joint over time and batch.

The running statistics move once per pass, whatever T is. A current that is the same at every step
is normalised once: its statistics over T copies are those of one, but for the divisor of the
running variance, which is set right.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import RequestError
from .operations import Norm


def _values_per_channel(x: Tensor) -> int:
    return x.numel() // x.shape[1]


def _refuse_single(x: Tensor) -> None:
    if _values_per_channel(x) < 2:
        raise RequestError(
            "E_BATCH",
            f"batch normalisation in training received one value per channel (shape "
            f"{list(x.shape)}); give a larger batch",
        )


@contextmanager
def _moving(norm: Norm, x: Tensor, copies: int) -> Iterator[Norm]:
    """``norm`` for one pass over ``x`` in which each of its n values stands for ``copies``.

    Torch moves the running variance by the batch's with the divisor n - 1; what was seen is
    n * copies values. The real variance is written afterwards, its stand-in may be in a graph.
    """
    real = norm.running_var
    if not norm.training or real is None or copies == 1:
        yield norm
        return
    n = _values_per_channel(x)
    stand_in = real.clone()
    yield replace(norm, running_var=stand_in)
    with torch.no_grad():
        kept = real * (1.0 - norm.momentum)
        divisor = (n - 1) / n * (n * copies / (n * copies - 1))
        real.copy_(kept + (stand_in - kept) * divisor)


def unrolled(x: Tensor, norm: Norm, copies: int) -> Tensor:
    """(N, C, ...) normalised, N = time and batch folded; each value stands for ``copies``."""
    if norm.training:
        _refuse_single(x)
    with _moving(norm, x, copies) as told:
        return told(x)


def of_step(x: Tensor, norm: Norm, steps: int, copies: int = 1) -> Tensor:
    """(B, C, ...), one of ``steps`` steps, normalised by its own statistics; it stands for
    ``copies`` steps. The running statistics move by momentum / steps for each, so that a pass moves
    them about as far as one with joint statistics."""
    if not norm.training:
        return norm(x)
    _refuse_single(x)
    return replace(norm, momentum=1.0 - (1.0 - norm.momentum / steps) ** copies)(x)


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
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
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
    _refuse_single(spikes)
    with _moving(norm, spikes, copies) as told, torch.no_grad():
        stream, mean, inverse = torch.native_batch_norm(
            spikes, told.weight, told.bias, told.running_mean, told.running_var,
            True, told.momentum, told.eps,
        )  # fmt: skip
    normalised: Tensor = _OfRate.apply(  # type: ignore[no-untyped-call]
        rate, norm.weight, norm.bias, mean, inverse, norm.eps
    )
    return stream, normalised
