"""Spatial learning through time: no gradient from a step to the one before; memory of one step.

Meng et al., "Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural
Networks", arXiv 2302.14311.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from .. import normalise
from ..frames import in_time, through
from ..operations import LinearMap, Norm
from ..protocol import Part, Watch
from ..recipe import LossForm, NormForm
from ..spiking import Population
from ..stepwise import Echo, Membrane, OneStep, Places, parts
from .bptt import Unrolled


@dataclass(frozen=True, eq=False)
class _CutInTime:
    """A step with a graph of its own: what it takes over from the last one are numbers."""

    steps: int
    watch: Watch | None
    places: Places

    def normalise(self, x: Tensor, norm: Norm) -> Tensor:
        """Batch normalisation by the statistics of the step."""
        return normalise.of_step(x, norm, self.steps)

    def fire(self, x: Tensor, module: Population) -> Tensor:
        """Currents to spikes."""
        spikes = self.places.next(Membrane).step(x, module.spiking)
        if self.watch is not None:
            self.watch(module, spikes[None])
        return spikes

    def recur(self, x: Tensor, module: Population, weights: LinearMap) -> Tensor:
        """Currents to spikes; the weights learn from the spikes of the last step."""
        echo = self.places.next(Echo)
        spikes = self.fire(x + weights(echo.before(x)), module)
        echo.keep(spikes)
        return spikes

    def replace(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """A function that is not linear: here nothing special."""
        return function(x)


def cut_in_time(model: nn.Module, steps: int, watch: Watch | None) -> Callable[[Tensor], Tensor]:
    """One pass of a module: call the result with the frame (B, ...) of each step in turn for its
    outputs (B, K), with a graph through this step alone."""
    normalise.refuse_cumulative(model)
    places = Places()
    treatment = OneStep(_CutInTime(steps, watch, places), places)

    def step(frame: Tensor) -> Tensor:
        places.begin()
        return through(model, frame, treatment)

    return step


@dataclass(frozen=True)
class SLTT:
    """Spatial learning through time.

    With statistics joint over time all steps pass at once; per step, one after the other.
    """

    name: ClassVar[str] = "sltt"
    trains: ClassVar[Mapping[NormForm, tuple[LossForm, ...]]] = {
        "joint": ("mean_output", "per_step"),
        "per_step": ("per_step",),
    }
    why: ClassVar[str] = (
        "normalised step by step it goes backward after each step, and a loss of the mean output "
        "is no sum over steps"
    )
    online: ClassVar[bool] = False

    def __call__(
        self,
        model: nn.Module,
        frames: Tensor,
        steps: int,
        norm: NormForm = "joint",
        watch: Watch | None = None,
    ) -> Iterator[Part]:
        """A part for each step, or one of all under joint statistics."""
        if norm == "joint":
            yield Part(through(model, in_time(frames, steps), Unrolled(steps, watch, norm, True)))
        else:
            step = cut_in_time(model, steps, watch)
            yield from parts(step, frames, steps, range(steps), 1.0 / steps)


PLUGIN = SLTT
