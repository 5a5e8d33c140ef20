"""Backpropagation through time: the exact gradient, memory grows with T."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from .. import eager, neuron, normalise
from ..frames import folded, in_time, joined, through
from ..operations import FixedMap, LinearMap, Norm
from ..protocol import Loss
from ..spiking import Population

Watch = Callable[[Population, Tensor], None]
"""Called with a neuron module and its spikes (T, B, ...)."""


@dataclass(frozen=True)
class Unrolled:
    """The value is the plain tensor (T, B, ...), or (1, B, ...) as long as all steps are alike."""

    steps: int
    watch: Watch | None = None

    def example(self, value: Tensor) -> Tensor:
        """One step, (B, ...)."""
        return value[0]

    def linear(self, value: Tensor, operation: LinearMap) -> Tensor:
        """A convolution or a matrix product."""
        return folded(operation, value)

    def normalise(self, value: Tensor, norm: Norm) -> Tensor:
        """Batch normalisation, statistics joint over time and batch."""
        copies = self.steps // value.shape[0]
        return folded(lambda x: normalise.unrolled(x, norm, copies), value)

    def fire(self, value: Tensor, module: Population) -> Tensor:
        """Currents to spikes."""
        spikes = neuron.unrolled(value.expand(self.steps, *value.shape[1:]), module.spiking)
        return self._seen(module, spikes)

    def recur(self, value: Tensor, module: Population, weights: LinearMap) -> Tensor:
        """Currents to spikes, step by step: no kernel takes all steps at once here."""
        current = value.expand(self.steps, *value.shape[1:])
        return self._seen(module, eager.recurrent(current, module.spiking, weights))

    def _seen(self, module: Population, spikes: Tensor) -> Tensor:
        if self.watch is not None:
            self.watch(module, spikes)
        return spikes

    def fixed(self, value: Tensor, operation: FixedMap) -> Tensor:
        """Pooling, flatten, reshape."""
        return folded(operation, value)

    def scale(self, value: Tensor, factor: float | Tensor) -> Tensor:
        """Multiply by a number or a mask (B, ...)."""
        return value * factor

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """Sum of two values."""
        return a + b

    def join(self, values: Sequence[Tensor], axis: int) -> Tensor:
        """Concatenation."""
        return joined(values, axis)

    def replace(self, value: Tensor, function: Callable[[Tensor], Tensor], name: str) -> Tensor:  # noqa: ARG002
        """A function that is not linear: here nothing special."""
        return folded(function, value)


class BPTT:
    """Backpropagation through time with surrogate derivatives."""

    name: ClassVar[str] = "bptt"
    losses: ClassVar[tuple[Loss, ...]] = ("mean_output",)

    def __call__(self, model: nn.Module, frames: Tensor, steps: int) -> Tensor:
        """Mean output over time (B, K), with a graph through every step."""
        return through(model, in_time(frames, steps), Unrolled(steps)).mean(0)


PLUGIN = BPTT()
