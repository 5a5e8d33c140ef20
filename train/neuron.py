"""A population of neurons under training: what it fires, and how that answers to its current.

Two faces, each in a fused CPU kernel and in plain torch with equal results: `unrolled` keeps a
graph through time, `rated` one through the rates of windows of steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import eager, kernels
from .slopes import answered
from .spiking import Spiking


def unrolled(current: Tensor, neuron: Spiking, cut: bool = False) -> Tensor:
    """Spikes (T, B, ...) of currents (T, B, ...), with a graph through every step; with ``cut``
    none from a step to the one before."""
    if kernels.takes(current, neuron):
        return kernels.unrolled(current, neuron, cut)
    return eager.unrolled(current, neuron, cut)


def rated(current: Tensor, rates: Tensor, neuron: Spiking) -> tuple[Tensor, Tensor]:
    """Spikes (T, B, ...), without graph, of currents (T, B, ...), and their rates (K, B, ...) with
    one to ``rates``, the mean currents of K windows of equally many steps, and to learned decays.

    For one window the slope is the eligibility kappa = d rate / d e for an offset e added to the
    current at every step (rate-based backpropagation, arXiv 2410.11488).
    """
    path = kernels if kernels.takes(current, neuron) else eager
    with torch.no_grad():
        spikes, found, slopes = path.stream(current, neuron, rates.shape[0])
    return spikes, answered(rates, found, slopes, neuron)
