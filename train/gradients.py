"""What one backward pass of a learning rule leaves: at every population's currents, at the weights.

Nothing of the module is hooked: a `Treatment` that stands around the rule's own sees every current
on its way into `fire`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic

import torch
from torch import Tensor, nn

from .. import plugins
from ..errors import RequestError
from .carried import Carried, Treatment, V
from .eager import Tally, rest
from .examples import Batch
from .frames import in_time, through
from .modules import neurons
from .objective import Objective
from .operations import FixedMap, LinearMap, Norm
from .protocol import LearningRule, Surrogate
from .recipe import NormForm
from .rules.bptt import Unrolled
from .spiking import Population


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a module is to learn once: a rule, a loss and a batch."""

    rule: LearningRule
    objective: Objective
    batch: Batch
    steps: int
    norm: NormForm = "joint"

    def teach(self, model: nn.Module) -> float:
        """The loss; its gradients are added to those of the parameters, the weights stay."""
        loss, told = 0.0, self.objective.on(self.batch)
        for part in self.rule(model, self.batch.frames, self.steps, self.norm, told.watch):
            share = told(part)
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.item()
        return loss


@dataclass(frozen=True)
class Tap(Generic[V]):
    """A treatment that does what ``inner`` does and shows ``see`` every population's currents,
    with the weights by which it feeds itself, if it does."""

    inner: Treatment[V]
    see: Callable[[V, Population, LinearMap | None], None]

    def example(self, value: V) -> Tensor:
        """One step, (B, ...)."""
        return self.inner.example(value)

    def linear(self, value: V, operation: LinearMap) -> V:
        """A convolution or a matrix product."""
        return self.inner.linear(value, operation)

    def normalise(self, value: V, norm: Norm) -> V:
        """Batch normalisation."""
        return self.inner.normalise(value, norm)

    def fire(self, value: V, module: Population) -> V:
        """Currents, seen, to spikes."""
        self.see(value, module, None)
        return self.inner.fire(value, module)

    def recur(self, value: V, module: Population, weights: LinearMap) -> V:
        """The same of a recurrent population: its currents from below are seen."""
        self.see(value, module, weights)
        return self.inner.recur(value, module, weights)

    def fixed(self, value: V, operation: FixedMap) -> V:
        """Pooling, flatten, reshape."""
        return self.inner.fixed(value, operation)

    def scale(self, value: V, factor: float | Tensor) -> V:
        """Multiply by a number or a mask (B, ...)."""
        return self.inner.scale(value, factor)

    def add(self, a: V, b: V) -> V:
        """Sum of two values."""
        return self.inner.add(a, b)

    def join(self, values: Sequence[V], axis: int) -> V:
        """Concatenation."""
        return self.inner.join(values, axis)

    def replace(self, value: V, function: Callable[[Tensor], Tensor], name: str) -> V:
        """A function that is not linear."""
        return self.inner.replace(value, function, name)


class _Ledger:
    """Gradients at the currents of each population, in the order in which they fired."""

    def __init__(self, model: nn.Module) -> None:
        self.sums: dict[int, Tensor] = {}
        self.names: list[str] = []
        self._known = {id(module): name for name, module in neurons(model).items()}
        self._place = 0

    def begin(self) -> None:
        """A pass through the module begins (a rule may make one for every step)."""
        self._place = 0

    def see(self, value: Any, module: Population, example: Tensor) -> None:
        """Note what the coming backward pass brings to the currents ``value``."""
        place, self._place = self._place, self._place + 1
        if place == len(self.names):
            self.names.append(self._known[id(module)])
        for current in _with_graph(value):
            in_time = current.dim() > example.dim()

            def note(gradient: Tensor, in_time: bool = in_time) -> None:
                found = gradient.sum(0) if in_time else gradient
                self.sums[place] = self.sums[place] + found if place in self.sums else found

            current.register_hook(note)  # type: ignore[no-untyped-call]


def _with_graph(value: Any) -> list[Tensor]:
    """The tensors of a carried value that a gradient goes back to."""
    parts = (
        [value] if isinstance(value, Tensor) else [getattr(value, f.name) for f in fields(value)]
    )
    return [part for part in parts if isinstance(part, Tensor) and part.requires_grad]


class _Tapped(nn.Module):
    """A module whose currents a ledger sees, whatever the rule that calls it."""

    def __init__(self, model: nn.Module, ledger: _Ledger) -> None:
        super().__init__()
        self.model, self._ledger = model, ledger
        self.training = model.training

    def forward(self, x: Carried[V]) -> Carried[V]:
        """As the module itself."""
        inner = x.treatment
        self._ledger.begin()

        def see(value: V, module: Population, _: LinearMap | None) -> None:
            self._ledger.see(value, module, inner.example(value))

        return Carried(through(self.model, x.value, Tap(inner, see)), inner)


def at_currents(model: nn.Module, lesson: Lesson) -> list[tuple[str, float]]:
    """Each population, in the order of firing, and the norm of the loss's gradient to its currents:
    to an offset that is added at every step, over samples and neurons.

    The norm, not the mean square: linear maps of unit gain leave it alone, whatever strides and
    channels do to the number of neurons. A population that nothing trainable feeds is left out.
    ``model`` is in training; a copy of it learns. Raises RequestError (E_RULE) when no currents
    of the rule carry a graph.
    """
    if lesson.rule.name == "bptt_recompute":  # the same gradient, where nobody sees it
        lesson = replace(lesson, rule=plugins.load("rules", "bptt")())
    scholar = copy.deepcopy(model)
    ledger = _Ledger(scholar)
    lesson.teach(_Tapped(scholar, ledger))
    if not ledger.sums:
        raise RequestError(
            "E_RULE", f"rule '{lesson.rule.name}' shows no gradient at any population's currents"
        )
    return [
        (ledger.names[place], float(ledger.sums[place].double().norm()))
        for place in sorted(ledger.sums)
    ]


def of_weights(model: nn.Module, lesson: Lesson) -> dict[str, Tensor]:
    """The gradient of every weight of a linear map, by name; a copy of the module learns."""
    scholar = copy.deepcopy(model)
    scholar.zero_grad(set_to_none=True)
    lesson.teach(scholar)
    return {
        name: parameter.grad
        for name, parameter in scholar.named_parameters()
        if parameter.dim() > 1 and parameter.grad is not None
    }


@dataclass(frozen=True)
class Activity:
    """A population at work on a batch: standard deviation of its current, spikes per neuron and
    step, and the share of all decisions at which its surrogate is exactly 0."""

    name: str
    deviation: float
    rate: float
    zeros: float


@dataclass
class _Counting:
    """A surrogate that counts its zeros."""

    inner: Surrogate
    name: str = "counting"
    zeros: int = 0
    seen: int = 0

    @property
    def width(self) -> float:
        """That of the surrogate."""
        return self.inner.width

    def __call__(self, x: Tensor) -> Tensor:
        """h(x), counted."""
        h = self.inner(x)
        self.zeros += int((h == 0).sum())
        self.seen += h.numel()
        return h


@torch.no_grad()
def activity(model: nn.Module, frames: Tensor, steps: int, norm: NormForm) -> list[Activity]:
    """Every population, in the order of firing; a copy of the module runs, in the mode it is in."""
    scholar = copy.deepcopy(model)
    names = {id(module): name for name, module in neurons(scholar).items()}
    found: list[Activity] = []

    def see(current: Tensor, module: Population, weights: LinearMap | None) -> None:
        counting = _Counting(module.spiking.surrogate)
        tally = Tally(
            rest(current[0], module.spiking), replace(module.spiking, surrogate=counting), ()
        )
        spikes = torch.zeros_like(current[0])
        for c in current.expand(steps, *current.shape[1:]):
            spikes = tally.step(c if weights is None else c + weights(spikes))
        found.append(
            Activity(
                names[id(module)],
                float(current.std()),
                float(tally.rate.mean()),
                counting.zeros / counting.seen,
            )
        )

    through(scholar, in_time(frames, steps), Tap(Unrolled(steps, norm=norm), see))
    return found
