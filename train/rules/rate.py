"""Rate-based backpropagation: one backward pass on rates, memory does not grow with T.

Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks through Rate-based
Backpropagation", arXiv 2410.11488.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...errors import RequestError
from .. import neuron, normalise
from ..frames import folded, in_time, joined, mean_in_time, through, unfolded
from ..operations import FixedMap, LinearMap, Norm
from ..protocol import Loss
from ..spiking import Population


@dataclass(frozen=True, eq=False)
class Pair:
    """What really flows, and what stands for it in the backward pass.

    ``stream`` (T, B, ...), or (1, B, ...) as long as all steps are alike: values without a graph.
    ``rate`` (B, ...): their mean over time, with a graph.
    """

    stream: Tensor
    rate: Tensor


class _LinearOfRate(torch.autograd.Function):
    """A linear map of the rate whose value, the mean of the mapped stream, is known already.

    No map is computed forward; backward is the map's own, once, on the rate.
    """

    @staticmethod
    def forward(
        ctx: Any, rate: Tensor, weight: Tensor, bias: Tensor | None, value: Tensor, of: LinearMap
    ) -> Tensor:
        ctx.save_for_backward(rate, weight, bias)
        ctx.operation = of
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rate, _, _ = ctx.saved_tensors
        return (*ctx.operation.backward(gradient, rate, ctx.needs_input_grad[:3]), None, None)


class _Fire(torch.autograd.Function):
    """The rate of a population; backward, its eligibility."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, rate: Tensor, kappa: Tensor) -> Tensor:  # noqa: ARG004
        ctx.save_for_backward(kappa)
        return rate.view_as(rate)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (kappa,) = ctx.saved_tensors
        return gradient * kappa, None, None


@dataclass(frozen=True)
class OnRates:
    """The value is a `Pair`: spikes go forward step by step, gradients go back on rates."""

    steps: int

    def example(self, value: Pair) -> Tensor:
        """The rate, (B, ...)."""
        return value.rate

    def linear(self, value: Pair, operation: LinearMap) -> Pair:
        """A convolution or a matrix product: only the stream runs through it."""
        with torch.no_grad():
            stream = folded(operation, value.stream)
            mean = mean_in_time(stream)
        rate = _LinearOfRate.apply(  # type: ignore[no-untyped-call]
            value.rate, operation.weight, operation.bias, mean, operation
        )
        return Pair(stream, rate)

    def normalise(self, value: Pair, norm: Norm) -> Pair:
        """Batch normalisation, statistics joint over time and batch."""
        shown = value.stream.shape[0]
        flat = value.stream.flatten(0, 1)
        stream, rate = normalise.paired(flat, value.rate, norm, self.steps // shown)
        return Pair(unfolded(stream, shown), rate)

    def fire(self, value: Pair, module: Population) -> Pair:
        """Currents to spikes, with the eligibility of each neuron."""
        current = value.stream.expand(self.steps, *value.stream.shape[1:])
        spikes, rate, kappa = neuron.stream(current, module.spiking)
        return Pair(spikes, _Fire.apply(value.rate, rate, kappa))  # type: ignore[no-untyped-call]

    def recur(self, value: Pair, module: Population, weights: LinearMap) -> Pair:  # noqa: ARG002
        """Refused."""
        raise RequestError(
            "E_RULE",
            "rule 'rate' cannot train a recurrent layer: what its spikes cause a step later is "
            "lost in a rate; use rule 'bptt'",
        )

    def fixed(self, value: Pair, operation: FixedMap) -> Pair:
        """Pooling, flatten, reshape: linear, so on both."""
        return Pair(folded(operation, value.stream), operation(value.rate))

    def scale(self, value: Pair, factor: float | Tensor) -> Pair:
        """Multiply by a number or a mask (B, ...)."""
        return Pair(value.stream * factor, value.rate * factor)

    def add(self, a: Pair, b: Pair) -> Pair:
        """Sum of two values."""
        return Pair(a.stream + b.stream, a.rate + b.rate)

    def join(self, values: Sequence[Pair], axis: int) -> Pair:
        """Concatenation."""
        rate = torch.cat([value.rate for value in values], axis)
        return Pair(joined([value.stream for value in values], axis), rate)

    def replace(self, value: Pair, function: Callable[[Tensor], Tensor], name: str) -> Pair:  # noqa: ARG002
        """A function that is not linear: its slope at the rate, the true mean as value."""
        with torch.no_grad():
            stream = folded(function, value.stream)
            mean = mean_in_time(stream)
        slope = function(value.rate)
        return Pair(stream, mean + (slope - slope.detach()))


class Rate:
    """Rate-based backpropagation (multi-step form), layer by layer in one pass."""

    name: ClassVar[str] = "rate"
    losses: ClassVar[tuple[Loss, ...]] = ("mean_output",)

    def __call__(self, model: nn.Module, frames: Tensor, steps: int) -> Tensor:
        """Mean output over time (B, K), with a graph through the rates."""
        shown = in_time(frames, steps)
        return through(model, Pair(shown.detach(), mean_in_time(shown)), OnRates(steps)).rate


PLUGIN = Rate()
