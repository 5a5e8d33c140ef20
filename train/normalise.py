"""Batch normalisation of input currents, statistics joint over time and batch or of each step.

The running statistics move once per pass, whatever T is. A current that is the same at every step
is normalised once: its statistics over T copies are those of one, but for the divisor of the
running variance, which is set right. Where several processes train together, the statistics are of
all their batches (`synchronised`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import RequestError
from . import synchronised
from .distributed import place
from .operations import Norm


def _values_per_channel(x: Tensor) -> int:
    return x.numel() // x.shape[1]


def _refuse_single(x: Tensor) -> None:
    if _values_per_channel(x) * place().world < 2:
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
    if not norm.training:
        return norm(x)
    _refuse_single(x)
    if place().world > 1:
        return synchronised.normalised(x, norm, copies)
    with _moving(norm, x, copies) as told:
        return told(x)


def of_step(x: Tensor, norm: Norm, steps: int, copies: int = 1) -> Tensor:
    """(B, C, ...), one of ``steps`` steps, normalised by its own statistics; it stands for
    ``copies`` steps. The running statistics move by momentum / steps for each, so that a pass moves
    them about as far as one with joint statistics."""
    if not norm.training:
        return norm(x)
    return unrolled(x, replace(norm, momentum=1.0 - (1.0 - norm.momentum / steps) ** copies), 1)


def refuse_cumulative(model: nn.Module) -> None:
    """RequestError (E_MODEL) where running statistics are plain averages over all calls: step by
    step a pass is many calls, and each counts for a share of its own."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.momentum is None:
            raise RequestError(
                "E_MODEL",
                f"'{name}' has momentum=None, an average over calls; a rule that goes step by step "
                "needs a number, e.g. 0.1",
            )


def standardised(x: Tensor, norm: Norm, steps: int) -> tuple[Tensor, Tensor]:
    """As `of_step` in training, without a graph and before weight and bias, and the variance (C,)
    with ``norm.eps`` in it."""
    _refuse_single(x)
    bare = replace(norm, weight=None, bias=None, momentum=norm.momentum / steps)
    standard, _, inverse = _stream(x, bare, 1)
    return standard, inverse.pow(-2)


@torch.no_grad()
def _stream(x: Tensor, norm: Norm, copies: int) -> tuple[Tensor, Tensor, Tensor]:
    """(N, C, ...) normalised in training, without a graph; mean and 1 / deviation (C,)."""
    if place().world > 1:
        return synchronised.standardised(x, norm, copies)
    with _moving(norm, x, copies) as told:
        return torch.native_batch_norm(
            x, told.weight, told.bias, told.running_mean, told.running_var,
            True, told.momentum, told.eps,
        )  # fmt: skip


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
        if place().world > 1:
            needs = ctx.needs_input_grad[:3]
            found = synchronised.gradients(gradient, rate, weight, mean, inverse, needs)
            return *found, None, None, None
        to_rate, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, rate.to(gradient.dtype), weight, None, None, mean, inverse, True, ctx.eps,
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
    stream, mean, inverse = _stream(spikes, norm, copies)
    normalised: Tensor = _OfRate.apply(  # type: ignore[no-untyped-call]
        rate, norm.weight, norm.bias, mean, inverse, norm.eps
    )
    return stream, normalised


def of_steps(rate: Tensor, norm: Norm, standard: Tensor, variance: Tensor) -> Tensor:
    """The mean (B, C, ...) of steps that were normalised each by its own statistics, with a graph
    to ``rate``, the mean of what went in.

    ``standard``: the mean of the normalised values before weight and bias; ``variance`` (C,), with
    ``norm.eps``: the mean of the steps', which stands for the slope. The mean of 1 / variance in
    its place would follow the weakest frame alone.
    """
    inverse = variance.rsqrt()
    # The current that a mean of 0 and this variance take to ``standard``.
    value = standard * variance.sqrt().view(1, -1, *[1] * (standard.dim() - 2))
    placed = value + (rate - rate.detach())
    normalised: Tensor = _OfRate.apply(  # type: ignore[no-untyped-call]
        placed, norm.weight, norm.bias, torch.zeros_like(inverse), inverse, norm.eps
    )
    return normalised
