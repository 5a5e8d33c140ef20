"""The neuron in plain torch: the readable definition, on any device and in any precision.

The step is that of `network.dynamics`; only the surrogate derivative is attached here.
"""

from __future__ import annotations

from dataclasses import dataclass
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


def unrolled(current: Tensor, neuron: Spiking, cut: bool = False) -> Tensor:
    """Spikes (T, B, ...) of currents (T, B, ...), with a graph through every step.

    ``cut``: no gradient goes from a step to the one before.
    """
    v = torch.zeros_like(current[0])
    spikes = []
    for c in current:
        v, s = step(v.detach() if cut else v, c, neuron)
        spikes.append(s)
    return torch.stack(spikes)


def step(v: Tensor, current: Tensor, neuron: Spiking) -> tuple[Tensor, Tensor]:
    """Membrane and spikes (B, ...) after a step with ``current``, with a graph."""
    return _step(v, current, *_constants(current, neuron), neuron)


def recurrent(current: Tensor, neuron: Spiking, weights: LinearMap) -> Tensor:
    """As `unrolled`, with the spikes of the last step mapped by ``weights`` added to a current."""
    decay, threshold = _constants(current, neuron)
    v = s = torch.zeros_like(current[0])
    spikes = []
    for c in current:
        v, s = _step(v, c + weights(s), decay, threshold, neuron)
        spikes.append(s)
    return torch.stack(spikes)


class Tally:
    """A population on its way through a window of steps, without a graph: what it fired, and how
    rate and membrane answer to an offset on the current of every step and to the membrane that the
    window began with.

    With e the answer of the membrane: du = decay*e (+ 1 for the offset), dr = mean of h*du, e after
    the step dv/du * du. Over one window from rest, dr for the offset is the eligibility kappa of
    rate-based backpropagation (arXiv 2410.11488).
    """

    def __init__(self, v: Tensor, neuron: Spiking) -> None:
        self.v, self._neuron = v, neuron
        self._decay, self._threshold = _constants(v, neuron)
        self._steps = 0
        self._fired = torch.zeros_like(v)
        self._to_rate = [torch.zeros_like(v), torch.zeros_like(v)]
        self._to_v = [torch.zeros_like(v), torch.ones_like(v)]

    def step(self, current: Tensor) -> Tensor:
        """Spikes (B, ...) of a step with ``current`` (B, ...)."""
        neuron, threshold = self._neuron, self._threshold
        u = dynamics.integrate(self.v, current, self._decay)
        s: Tensor = dynamics.decide(u, threshold, neuron.compare).to(u.dtype)
        h = neuron.surrogate(u - threshold)
        self.v = dynamics.reset(u, s, threshold, 0.0, _RESET[neuron.reset])
        passed = _through_reset(u, s, h, threshold, neuron)
        for index, source in enumerate((1.0, 0.0)):
            du = self._decay * self._to_v[index] + source
            self._to_rate[index] += h * du
            self._to_v[index] = passed * du
        self._fired += s
        self._steps += 1
        return s

    @property
    def rate(self) -> Tensor:
        """Spikes per step, (B, ...)."""
        return self._fired / self._steps

    @property
    def slopes(self) -> Slopes:
        """What the window's end answers to."""
        (rate_of_offset, rate_of_v), (v_of_offset, v_of_v) = self._to_rate, self._to_v
        return Slopes(rate_of_offset / self._steps, rate_of_v / self._steps, v_of_offset, v_of_v)


@dataclass(frozen=True, eq=False)
class Slopes:
    """d rate and d v at the end of a window, by the offset on its currents and by v at its start;
    each (B, ...)."""

    rate_of_offset: Tensor
    rate_of_v: Tensor
    v_of_offset: Tensor
    v_of_v: Tensor


def stream(
    current: Tensor, neuron: Spiking, windows: int = 1
) -> tuple[Tensor, Tensor, list[Slopes]]:
    """Spikes (T, B, ...), rates (windows, B, ...) and the slopes of each window, of currents
    (T, B, ...); no graph."""
    spikes, rates, slopes = [], [], []
    v = torch.zeros_like(current[0])
    for window in torch.split(current, len(current) // windows):
        tally = Tally(v, neuron)
        spikes += [tally.step(c) for c in window]
        rates.append(tally.rate)
        slopes.append(tally.slopes)
        v = tally.v
    return torch.stack(spikes), torch.stack(rates), slopes


def _through_reset(
    u: Tensor, s: Tensor, h: Tensor, threshold: Tensor, neuron: Spiking
) -> Tensor | float:
    """dv/du: what the membrane after the reset owes to the membrane before it."""
    if neuron.reset == "subtract":
        return 1.0 if neuron.detach_reset else 1.0 - threshold * h
    return 1.0 - s if neuron.detach_reset else 1.0 - s - u * h
