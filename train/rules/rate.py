"""Rate-based backpropagation: one backward pass on rates, memory does not grow with T.

Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks through Rate-based
Backpropagation", arXiv 2410.11488.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ...errors import RequestError
from .. import neuron, normalise
from ..frames import (
    folded,
    gradient_times,
    in_time,
    joined,
    mean_in_time,
    through,
    unfolded,
    watching,
)
from ..operations import FixedMap, LinearMap, Norm
from ..protocol import Part, Watch
from ..recipe import LossForm, NormForm
from ..spiking import Population


@dataclass(frozen=True, eq=False)
class Pair:
    """What really flows, and what stands for it in the backward pass.

    ``stream`` (T, B, ...), or (1, B, ...) as long as all steps are alike: values without a graph.
    ``rate`` (K, B, ...), or likewise (1, B, ...): their means over K windows, with a graph.
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
        flat = gradient.flatten(0, 1), rate.flatten(0, 1)
        to_rate, *rest = ctx.operation.backward(*flat, ctx.needs_input_grad[:3])
        return (None if to_rate is None else to_rate.view(rate.shape), *rest, None, None)


@dataclass(frozen=True)
class OnRates:
    """The value is a `Pair`: spikes go forward step by step, gradients go back on rates."""

    steps: int
    windows: int = 1
    watch: Watch | None = None

    def example(self, value: Pair) -> Tensor:
        """A rate, (B, ...)."""
        return value.rate[0]

    def means(self, stream: Tensor) -> Tensor:
        """The means of the windows, (K or 1, B, ...)."""
        if stream.shape[0] == 1:
            return stream
        if self.windows == 1:
            return mean_in_time(stream)[None]
        parts = torch.split(stream, self.steps // self.windows)
        return torch.stack([mean_in_time(part) for part in parts])

    def linear(self, value: Pair, operation: LinearMap) -> Pair:
        """A convolution or a matrix product: only the stream runs through it."""
        with torch.no_grad():
            stream = folded(operation, value.stream)
            mean = self.means(stream)
        rate = _LinearOfRate.apply(  # type: ignore[no-untyped-call]
            value.rate, operation.weight, operation.bias, mean, operation
        )
        return Pair(stream, rate)

    def normalise(self, value: Pair, norm: Norm) -> Pair:
        """Batch normalisation, statistics joint over time and batch."""
        shown, windows = value.stream.shape[0], value.rate.shape[0]
        stream, rate = normalise.paired(
            value.stream.flatten(0, 1), value.rate.flatten(0, 1), norm, self.steps // shown
        )
        return Pair(unfolded(stream, shown), unfolded(rate, windows))

    def fire(self, value: Pair, module: Population) -> Pair:
        """Currents to spikes, with the eligibility of each neuron."""
        current = value.stream.expand(self.steps, *value.stream.shape[1:])
        mean = value.rate.expand(self.windows, *value.rate.shape[1:])
        spikes, rate = neuron.rated(current, mean, module.spiking)
        if self.watch is not None:
            self.watch(module, rate)
        return Pair(spikes, rate)

    def recur(self, value: Pair, module: Population, weights: LinearMap) -> Pair:  # noqa: ARG002
        """Refused."""
        raise RequestError(
            "E_RULE",
            "rule 'rate' cannot train a recurrent layer: what its spikes cause a step later is "
            "lost in a rate; use rule 'bptt'",
        )

    def fixed(self, value: Pair, operation: FixedMap) -> Pair:
        """Pooling, flatten, reshape: linear, so on both."""
        return Pair(folded(operation, value.stream), folded(operation, value.rate))

    def scale(self, value: Pair, factor: float | Tensor) -> Pair:
        """Multiply by a number or a mask (B, ...)."""
        return Pair(value.stream * factor, value.rate * factor)

    def add(self, a: Pair, b: Pair) -> Pair:
        """Sum of two values."""
        return Pair(a.stream + b.stream, a.rate + b.rate)

    def join(self, values: Sequence[Pair], axis: int) -> Pair:
        """Concatenation."""
        rate = joined([value.rate for value in values], axis)
        return Pair(joined([value.stream for value in values], axis), rate)

    def replace(self, value: Pair, function: Callable[[Tensor], Tensor], name: str) -> Pair:  # noqa: ARG002
        """A function that is not linear: its slope at the rate, the true mean as value."""
        with torch.no_grad():
            stream = folded(function, value.stream)
            mean = self.means(stream)
        slope = folded(function, value.rate)
        return Pair(stream, mean + (slope - slope.detach()))


@dataclass(frozen=True)
class Rate:
    """Rate-based backpropagation (multi-step form), layer by layer in one pass.

    ``windows``: membranes carry the gradient from one window's rates to the next's; as many windows
    as steps are backpropagation through time. ``gradient`` inv_t divides the gradient by the steps,
    as the paper's code does.
    """

    name: ClassVar[str] = "rate"
    trains: ClassVar[Mapping[NormForm, tuple[LossForm, ...]]] = {"joint": ("mean_output",)}
    why: ClassVar[str] = "it knows the outputs of single steps, but no gradient to them"
    online: ClassVar[bool] = False
    windows: int = 1
    gradient: Literal["one", "inv_t"] = "one"

    def __call__(
        self,
        model: nn.Module,
        frames: Tensor,
        steps: int,
        norm: NormForm = "joint",  # noqa: ARG002 - the protocol's
        watch: Watch | None = None,
    ) -> Iterator[Part]:
        """One part: the mean outputs of the windows, with a graph through the rates.

        Raises RequestError (E_RULE) when the steps cannot be cut into the windows.
        """
        if steps % self.windows:
            raise RequestError(
                "E_RULE",
                f"{steps} steps cannot be cut into rule.windows = {self.windows} equal windows",
            )
        factor = 1.0 / steps if self.gradient == "inv_t" else 1.0
        treatment = OnRates(steps, self.windows, watching(watch, factor))
        shown = in_time(frames, steps)
        mean = treatment.means(shown)
        rate = through(model, Pair(shown.detach(), mean), treatment).rate
        yield Part(gradient_times(rate, factor))


PLUGIN = Rate
