"""The neuron in plain torch: the readable definition, on any device and in any precision.

The step is that of `network.dynamics`; only the surrogate derivative is attached here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..network import dynamics

if TYPE_CHECKING:
    from .operations import LinearMap
    from .spiking import Spiking

_RESET = {"zero": "value", "subtract": "subtract"}


class _Decide(torch.autograd.Function):
    """Spikes as numbers; backward, the surrogate in the place of the step's derivative."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, threshold: Tensor, neuron: Spiking) -> Tensor:
        ctx.save_for_backward(u, threshold)
        ctx.surrogate = neuron.surrogate
        spike: Tensor = dynamics.decide(u, threshold, neuron.compare)
        return spike.to(u.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        u, threshold = ctx.saved_tensors
        return gradient * ctx.surrogate(u - threshold), None, None


def _constants(current: Tensor, neuron: Spiking) -> tuple[Tensor, Tensor]:
    """Decay and threshold in the current's dtype: rounded once, as they are exported."""
    return current.new_tensor(neuron.decay), current.new_tensor(neuron.threshold)


def _step(
    v: Tensor, c: Tensor, decay: Tensor, threshold: Tensor, neuron: Spiking
) -> tuple[Tensor, Tensor]:
    """Membrane and spikes after a step with current ``c``."""
    u = dynamics.integrate(v, c, decay)
    s: Tensor = _Decide.apply(u, threshold, neuron)  # type: ignore[no-untyped-call]
    taken = s.detach() if neuron.detach_reset else s
    return dynamics.reset(u, taken, threshold, 0.0, _RESET[neuron.reset]), s


def unrolled(current: Tensor, neuron: Spiking) -> Tensor:
    """Spikes (T, B, ...) of currents (T, B, ...), with a graph through every step."""
    decay, threshold = _constants(current, neuron)
    v = torch.zeros_like(current[0])
    spikes = []
    for c in current:
        v, s = _step(v, c, decay, threshold, neuron)
        spikes.append(s)
    return torch.stack(spikes)


def recurrent(current: Tensor, neuron: Spiking, weights: LinearMap) -> Tensor:
    """As `unrolled`, with the spikes of the last step mapped by ``weights`` added to a current."""
    decay, threshold = _constants(current, neuron)
    v = s = torch.zeros_like(current[0])
    spikes = []
    for c in current:
        v, s = _step(v, c + weights(s), decay, threshold, neuron)
        spikes.append(s)
    return torch.stack(spikes)


def stream(current: Tensor, neuron: Spiking) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes (T, B, ...), rate and eligibility (B, ...); see `neuron.stream`."""
    decay, threshold = _constants(current, neuron)
    v = torch.zeros_like(current[0])
    eligible, total, count = torch.ones_like(v), torch.zeros_like(v), torch.zeros_like(v)
    spikes = []
    for c in current:
        u = dynamics.integrate(v, c, decay)
        s = dynamics.decide(u, threshold, neuron.compare).to(u.dtype)
        h = neuron.surrogate(u - threshold)
        v = dynamics.reset(u, s, threshold, 0.0, _RESET[neuron.reset])
        total += h * eligible
        count += s
        eligible = 1.0 + decay * _through_reset(u, s, h, threshold, neuron) * eligible
        spikes.append(s)
    steps = len(spikes)
    return torch.stack(spikes), count / steps, total / steps


def _through_reset(
    u: Tensor, s: Tensor, h: Tensor, threshold: Tensor, neuron: Spiking
) -> Tensor | float:
    """dv/du: what the membrane after the reset owes to the membrane before it."""
    if neuron.reset == "subtract":
        return 1.0 if neuron.detach_reset else 1.0 - threshold * h
    return 1.0 - s if neuron.detach_reset else 1.0 - s - u * h
