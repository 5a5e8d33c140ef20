"""Backpropagation through time: the exact gradient, memory grows with T."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .. import eager, neuron, normalise
from ..frames import folded, in_time, joined, through
from ..operations import FixedMap, LinearMap, Norm
from ..protocol import Part, Watch
from ..recipe import LossForm, NormForm
from ..spiking import Population


@dataclass(frozen=True)
class Unrolled:
    """The value is the plain tensor (T, B, ...), or (1, B, ...) as long as all steps are alike."""

    steps: int
    watch: Watch | None = None
    norm: NormForm = "joint"
    cut: bool = False
    """No gradient from a step to the one before."""

    def example(self, value: Tensor) -> Tensor:
        """One step, (B, ...)."""
        return value[0]

    def linear(self, value: Tensor, operation: LinearMap) -> Tensor:
        """A convolution or a matrix product."""
        return folded(operation, value)

    def normalise(self, value: Tensor, norm: Norm) -> Tensor:
        """Batch normalisation, statistics joint over time and batch, or of each step."""
        copies = self.steps // value.shape[0]
        if self.norm == "per_step":
            return torch.stack([normalise.of_step(x, norm, self.steps, copies) for x in value])
        return folded(lambda x: normalise.unrolled(x, norm, copies), value)

    def fire(self, value: Tensor, module: Population) -> Tensor:
        """Currents to spikes."""
        spikes = neuron.unrolled(
            value.expand(self.steps, *value.shape[1:]), module.spiking, self.cut
        )
        return self._seen(module, spikes)

    def recur(self, value: Tensor, module: Population, weights: LinearMap) -> Tensor:
        """Currents to spikes, step by step: no kernel takes all steps at once here."""
        current = value.expand(self.steps, *value.shape[1:])
        return self._seen(module, eager.recurrent(current, module.spiking, weights, self.cut))

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


@dataclass(frozen=True)
class BPTT:
    """Backpropagation through time with surrogate derivatives."""

    name: ClassVar[str] = "bptt"
    trains: ClassVar[Mapping[NormForm, tuple[LossForm, ...]]] = {
        "joint": ("mean_output", "per_step"),
        "per_step": ("mean_output", "per_step"),
    }
    why: ClassVar[str] = ""
    online: ClassVar[bool] = False

    def __call__(
        self,
        model: nn.Module,
        frames: Tensor,
        steps: int,
        norm: NormForm = "joint",
        watch: Watch | None = None,
    ) -> Iterator[Part]:
        """One part: the outputs of all steps, with a graph through every step."""
        yield Part(through(model, in_time(frames, steps), Unrolled(steps, watch, norm)))


PLUGIN = BPTT
