"""A population of neurons under training: what it fires, and how that answers to its current.

Two faces, each in a fused CPU kernel and in plain torch with equal results: `unrolled` keeps a
graph through time, `stream` keeps none and returns the eligibility that replaces it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import RequestError
from ..network.contract import Compare
from . import eager, kernels
from .protocol import Surrogate


@dataclass(frozen=True)
class Spiking:
    """Parameters of a neuron module; see `modules.LIF`."""

    decay: float
    threshold: float
    reset: Literal["zero", "subtract"]
    compare: Compare
    detach_reset: bool
    surrogate: Surrogate

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay <= 1.0:
            raise RequestError("E_NEURON", f"the decay is {self.decay}; expected 0 to 1")
        for name, value in (("threshold", self.threshold), ("width", self.surrogate.width)):
            if not 0.0 < value < math.inf:
                raise RequestError("E_NEURON", f"the {name} is {value}; expected above 0")
        if self.reset not in ("zero", "subtract"):
            raise RequestError(
                "E_NEURON", f"the reset is {self.reset!r}; expected 'zero' or 'subtract'"
            )
        if self.compare not in ("gt", "ge"):
            raise RequestError(
                "E_NEURON", f"the comparison is {self.compare!r}; expected 'gt' or 'ge'"
            )


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
