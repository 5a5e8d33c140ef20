"""Rate-based backpropagation step by step: running sums in the place of tensors of all steps.

Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks through Rate-based
Backpropagation", arXiv 2410.11488 (single-step mode).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NoReturn

import torch
from torch import Tensor, nn

from ...errors import RequestError
from .. import eager, normalise
from ..frames import in_time, mean_in_time, through
from ..operations import ChannelScale, LinearMap, Norm
from ..protocol import Part, Watch
from ..recipe import LossForm, NormForm
from ..slopes import answered, sources
from ..spiking import Population, Spiking
from ..stepwise import OneStep, Places, steps_of


class _Mean:
    """The mean of tensors that come one after the other."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, x: Tensor) -> None:
        """One more."""
        self._sum = x.clone() if self._sum is None else self._sum.add_(x)
        self._count += 1

    def taken(self) -> Tensor:
        """Of those so far, which are then forgotten."""
        if self._sum is None:
            raise ValueError("the mean of nothing")
        mean, self._sum = self._sum.div_(self._count), None
        return mean


class _Normalised:
    """What a norm did in the steps: the mean of its normalised values, and of its variances."""

    def __init__(self) -> None:
        self.values, self.variance = _Mean(), _Mean()


class _Fired:
    """What a population did in the steps."""

    def __init__(self) -> None:
        self._tally: eager.Tally | None = None

    def step(self, current: Tensor, neuron: Spiking) -> Tensor:
        """Spikes (B, ...) of a step, without a graph."""
        if self._tally is None:
            self._tally = eager.Tally(eager.rest(current, neuron), neuron, sources(neuron))
        return self._tally.step(current)

    def rated(self, mean: Tensor, neuron: Spiking) -> Tensor:
        """The rate (B, ...), with a graph to the mean current and to the decays of ``neuron``; the
        steps are then forgotten."""
        if self._tally is None:
            raise ValueError("the rate of no step")
        tally, self._tally = self._tally, None
        return answered(mean[None], tally.rate[None], [tally.slopes], neuron)[0]


def _refused() -> NoReturn:
    raise RequestError(
        "E_RULE",
        "rule 'rate_single_step' cannot train a recurrent layer: what its spikes cause a step "
        "later is lost in a rate; use rule 'sltt'",
    )


@dataclass(frozen=True, eq=False)
class _Spikes:
    """The steps, one after the other, without a graph: what they leave is summed up."""

    steps: int
    places: Places

    def normalise(self, x: Tensor, norm: Norm) -> Tensor:
        """Batch normalisation by the statistics of the step."""
        if not norm.training:
            return norm(x)
        kept = self.places.next(_Normalised)
        standard, variance = normalise.standardised(x, norm, self.steps)
        kept.values.add(standard)
        kept.variance.add(variance)
        return ChannelScale(norm.weight, norm.bias)(standard)

    def fire(self, x: Tensor, module: Population) -> Tensor:
        """Currents to spikes."""
        return self.places.next(_Fired).step(x, module.spiking)

    def recur(self, x: Tensor, module: Population, weights: LinearMap) -> Tensor:  # noqa: ARG002
        """Refused."""
        _refused()

    def replace(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """A function that is not linear."""
        found = function(x)
        self.places.next(_Mean).add(found)
        return found


@dataclass(frozen=True, eq=False)
class _Rates:
    """The rates, after the last step, with a graph: their values are the means of the steps."""

    watch: Watch | None
    places: Places

    def normalise(self, x: Tensor, norm: Norm) -> Tensor:
        """The slope of a norm whose variance is the mean of those of the steps."""
        if not norm.training:
            return norm(x)
        kept = self.places.next(_Normalised)
        return normalise.of_steps(x, norm, kept.values.taken(), kept.variance.taken())

    def fire(self, x: Tensor, module: Population) -> Tensor:
        """The rate, with each neuron's eligibility as its slope."""
        rate = self.places.next(_Fired).rated(x, module.spiking)
        if self.watch is not None:
            self.watch(module, rate[None])
        return rate

    def recur(self, x: Tensor, module: Population, weights: LinearMap) -> Tensor:  # noqa: ARG002
        """Refused."""
        _refused()

    def replace(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """A function that is not linear: its slope at the rate, the true mean as value."""
        slope = function(x)
        return self.places.next(_Mean).taken() + (slope - slope.detach())


@dataclass(frozen=True)
class RateSingleStep:
    """Rate-based backpropagation (single-step form): a pass for each step, then one on rates.

    At any T it keeps five sums for each neuron, where rule `rate` keeps three values and, of the
    layer at work, those of all steps: it is the leaner one where there are more steps than layers.
    """

    name: ClassVar[str] = "rate_single_step"
    trains: ClassVar[Mapping[NormForm, tuple[LossForm, ...]]] = {"per_step": ("mean_output",)}
    why: ClassVar[str] = (
        "it normalises each step as it comes, and has a gradient to the mean output alone"
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
        """One part: the mean output, with a graph through the rates."""
        normalise.refuse_cumulative(model)
        places = Places()
        spikes = OneStep(_Spikes(steps, places), places)
        for frame in steps_of(frames, steps):
            places.begin()
            with torch.no_grad():
                through(model, frame, spikes)
        places.begin()
        rates = OneStep(_Rates(watch, places), places)
        yield Part(through(model, mean_in_time(in_time(frames, steps)), rates)[None])


PLUGIN = RateSingleStep
