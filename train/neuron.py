"""A population of neurons under training: what it fires, and how that answers to its current.

Two faces, each in a fused CPU kernel and in plain torch with equal results: `unrolled` keeps a
graph through time, `stream` keeps none and returns the eligibility that replaces it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import eager, kernels
from .spiking import Spiking


def unrolled(current: Tensor, neuron: Spiking) -> Tensor:
    """Spikes (T, B, ...) of currents (T, B, ...), with a graph through every step."""
    if kernels.takes(current, neuron):
        return kernels.unrolled(current, neuron)
    return eager.unrolled(current, neuron)


@torch.no_grad()
def stream(current: Tensor, neuron: Spiking) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes (T, B, ...), rate and eligibility (B, ...) of currents (T, B, ...); no graph.

    The eligibility is d rate / d e for an offset e added to the current at every step:
    kappa = (1/T) sum_t h(u_t - threshold) e_t, e_0 = 1, e_{t+1} = 1 + decay (dv_t/du_t) e_t
    (rate-based backpropagation, arXiv 2410.11488).
    """
    if kernels.takes(current, neuron):
        return kernels.stream(current, neuron)
    return eager.stream(current, neuron)
