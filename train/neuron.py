"""A population of neurons under training: what it fires, and how that answers to its current.

Two faces, each in a fused CPU kernel and in plain torch with equal results: `unrolled` keeps a
graph through time, `rated` one through the rates of windows of steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import eager, kernels
from .spiking import Spiking


def unrolled(current: Tensor, neuron: Spiking, cut: bool = False) -> Tensor:
    """Spikes (T, B, ...) of currents (T, B, ...), with a graph through every step; with ``cut``
    none from a step to the one before."""
    if kernels.takes(current, neuron) and not cut:
        return kernels.unrolled(current, neuron)
    return eager.unrolled(current, neuron, cut)


class _Rates(torch.autograd.Function):
    """The rates of the windows of a population; backward, its slopes, the last window first."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, rates: Tensor, *slopes: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(*slopes)
        return rates.view_as(rates)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        slopes = ctx.saved_tensors
        if len(slopes) == 1:
            return gradient * slopes[0], *[None] * 2
        found, later = [], torch.zeros_like(gradient[0])
        windows = [eager.Slopes(*slopes[at : at + 4]) for at in range(0, len(slopes), 4)]
        for to_rate, window in zip(gradient.flip(0), reversed(windows), strict=True):
            found.append(window.rate_of_offset * to_rate + window.v_of_offset * later)
            later = window.rate_of_v * to_rate + window.v_of_v * later
        return torch.stack(found[::-1]), *[None] * (1 + len(slopes))


def rated(current: Tensor, rates: Tensor, neuron: Spiking) -> tuple[Tensor, Tensor]:
    """Spikes (T, B, ...), without graph, of currents (T, B, ...), and their rates (K, B, ...) with
    one to ``rates``, the mean currents of K windows of equally many steps.

    For one window the slope is the eligibility kappa = d rate / d e for an offset e added to the
    current at every step (rate-based backpropagation, arXiv 2410.11488).
    """
    windows = rates.shape[0]
    with torch.no_grad():
        if windows == 1 and kernels.takes(current, neuron):
            spikes, rate, kappa = kernels.stream(current, neuron)
            found, slopes = rate[None], [kappa]
        else:
            spikes, found, parts = eager.stream(current, neuron, windows)
            slopes = [part.rate_of_offset for part in parts[: windows == 1]] or [
                slope
                for part in parts
                for slope in (part.rate_of_offset, part.rate_of_v, part.v_of_offset, part.v_of_v)
            ]
    return spikes, _Rates.apply(rates, found, *slopes)  # type: ignore[no-untyped-call]
