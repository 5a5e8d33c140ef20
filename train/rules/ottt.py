"""Online training through time: presynaptic traces carry the past; memory of one step.

Xiao et al., "Online Training Through Time for Spiking Neural Networks", arXiv 2210.04195 (OTTT-A).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from .. import normalise
from ..frames import through
from ..operations import ChannelScale, FixedMap, LinearMap, Norm
from ..presynaptic import Decays, LearnedDecays, PresynapticTrace, TracedMap
from ..protocol import Part, Watch
from ..recipe import LossForm, NormForm
from ..spiking import Population
from ..stepwise import Echo, Membrane, Places, parts, same_at_all_steps


@dataclass(frozen=True, eq=False)
class Fed:
    """``x`` (B, ...) of a step with its graph, and the traces of the maps that it came through
    since the last neurons."""

    x: Tensor
    traces: tuple[PresynapticTrace, ...] = ()


@dataclass(frozen=True, eq=False)
class OnTraces:
    """The value is `Fed`: as in sltt no gradient goes to the step before; in its place the traces
    of what they received reach the parameters."""

    steps: int
    watch: Watch | None
    places: Places

    def example(self, value: Fed) -> Tensor:
        """The value, (B, ...)."""
        return value.x

    def linear(self, value: Fed, operation: LinearMap) -> Fed:
        """A convolution or a matrix product."""
        return self._traced(value, operation)

    def _traced(self, value: Fed, operation: TracedMap) -> Fed:
        trace = self.places.next(PresynapticTrace)
        return Fed(trace.through(value.x, operation), (*value.traces, trace))

    def normalise(self, value: Fed, norm: Norm) -> Fed:
        """Batch normalisation by the statistics of the step; its weight and bias are a linear map
        of what was normalised."""
        x = normalise.of_step(value.x, replace(norm, weight=None, bias=None), self.steps)
        normalised = Fed(x, value.traces)
        if norm.weight is None and norm.bias is None:
            return normalised
        return self._traced(normalised, ChannelScale(norm.weight, norm.bias))

    def fire(self, value: Fed, module: Population) -> Fed:
        """Currents to spikes."""
        for trace in value.traces:
            trace.feeds(Decays.of(module))
        spikes = self._fired(value.x, module)
        if self.watch is not None:
            self.watch(module, spikes[None])
        return Fed(spikes)

    def _fired(self, current: Tensor, module: Population) -> Tensor:
        membrane, neuron = self.places.next(Membrane), module.spiking
        if neuron.learned:
            state = membrane.state(current, neuron)
            nothing, neuron = self.places.next(LearnedDecays).reaching(state, module)
            current = current + nothing
        return membrane.step(current, neuron)

    def recur(self, value: Fed, module: Population, weights: LinearMap) -> Fed:
        """Currents to spikes; the recurrent weights learn from the trace of the earlier spikes."""
        echo = self.places.next(Echo)
        returned = self._traced(Fed(echo.before(value.x)), weights)
        spikes = self.fire(self.add(value, returned), module)
        echo.keep(spikes.x)
        return spikes

    def fixed(self, value: Fed, operation: FixedMap) -> Fed:
        """Pooling, flatten, reshape."""
        return Fed(operation(value.x), value.traces)

    def scale(self, value: Fed, factor: float | Tensor) -> Fed:
        """Multiply by a number or a mask (B, ...)."""
        return Fed(value.x * same_at_all_steps(factor, self.places), value.traces)

    def add(self, a: Fed, b: Fed) -> Fed:
        """Sum of two values."""
        return Fed(a.x + b.x, a.traces + b.traces)

    def join(self, values: Sequence[Fed], axis: int) -> Fed:
        """Concatenation."""
        traces = tuple(trace for value in values for trace in value.traces)
        return Fed(torch.cat([value.x for value in values], axis), traces)

    def replace(self, value: Fed, function: Callable[[Tensor], Tensor], name: str) -> Fed:  # noqa: ARG002
        """A function that is not linear: its slope at this step stands for those before."""
        return Fed(function(value.x), value.traces)


def on_traces(model: nn.Module, steps: int, watch: Watch | None) -> Callable[[Tensor], Tensor]:
    """One pass of a module: call the result with the frame (B, ...) of each step in turn for its
    outputs (B, K), with a graph through this step and the traces of those before."""
    normalise.refuse_cumulative(model)
    places = Places()
    treatment = OnTraces(steps, watch, places)

    def step(frame: Tensor) -> Tensor:
        places.begin()
        output = through(model, Fed(frame), treatment)
        for trace in output.traces:
            trace.feeds(Decays())
        return output.x

    return step


@dataclass(frozen=True)
class OTTT:
    """Online training through time, gradients accumulated over the steps (OTTT-A).

    Exact for one layer of neurons whose reset is subtracted and detached; with a reset to zero the
    trace, which knows nothing of the neurons' spikes, is an approximation.
    """

    name: ClassVar[str] = "ottt"
    trains: ClassVar[Mapping[NormForm, tuple[LossForm, ...]]] = {"per_step": ("per_step",)}
    why: ClassVar[str] = (
        "it goes backward after each step, where neither the statistics nor the outputs of later "
        "steps are known"
    )
    online: ClassVar[bool] = False

    def __call__(
        self,
        model: nn.Module,
        frames: Tensor,
        steps: int,
        norm: NormForm = "per_step",  # noqa: ARG002 - the protocol's
        watch: Watch | None = None,
    ) -> Iterator[Part]:
        """A part for each step. Raises RequestError (E_RULE) where one trace does not suffice."""
        yield from parts(on_traces(model, steps, watch), frames, steps, range(steps), 1.0 / steps)


PLUGIN = OTTT
