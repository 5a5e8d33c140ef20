"""Presynaptic traces: what linear maps have received, as the neurons that they feed remember it.

With one trace per map the gradient of a step reaches what the map did at all steps before
(arXiv 2210.04195, there for one decay and for weights alone).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import RequestError
from ..network import dynamics
from ..network.dynamics import State
from .operations import Gradients
from .spiking import Population, Spiking, number


class TracedMap(Protocol):
    """A linear map with parameters, as in `operations`."""

    @property
    def weight(self) -> Tensor | None:
        """What multiplies."""
        ...

    @property
    def bias(self) -> Tensor | None:
        """What is added."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """The mapped values."""
        ...

    def backward(self, gradient: Tensor, x: Tensor, needs: tuple[bool, bool, bool]) -> Gradients:
        """Gradients to the input ``x``, the weight and the bias, where needed."""
        ...


class _Traced(torch.autograd.Function):
    """A linear map: its input answers for this step alone, its parameters for the trace."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, of: TracedMap,
        trace: Tensor, ones: float,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(weight, bias, trace)
        ctx.operation, ctx.ones = of, ones
        return of(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *_, trace = ctx.saved_tensors
        # The gradient to the input of a linear map does not ask what the input was.
        to_x, to_weight, to_bias = ctx.operation.backward(gradient, trace, ctx.needs_input_grad[:3])
        return to_x, to_weight, None if to_bias is None else ctx.ones * to_bias, None, None, None


@dataclass(frozen=True)
class Decays:
    """How fast neurons forget: membrane, and synaptic current (0 where there is none).

    ``learned_by``: the population that learns them; another's are others, if equal for now.
    """

    membrane: float = 0.0
    synaptic: float = 0.0
    learned_by: Population | None = None

    @staticmethod
    def of(module: Population) -> Decays:
        """Those of a population, as they are now."""
        neuron = module.spiking
        synaptic = neuron.synaptic_decay
        return Decays(
            number(neuron.decay),
            0.0 if synaptic is None else number(synaptic),
            module if neuron.learned else None,
        )

    def remembered(self, state: State, x: Any) -> State:
        """The state of a neuron that never fires, a step with current ``x`` after ``state``."""
        i = dynamics.filtered(state.i, x, self.synaptic, 1.0) if self.synaptic else x
        if not self.membrane:
            return State(i, i)
        return State(dynamics.integrate(state.v, i, self.membrane), i if self.synaptic else 0.0)


class PresynapticTrace:
    """What a linear map has received, and the same of the constant 1 that its bias receives.

    Whom it feeds is told after each step's map, and needed from the second step on.
    """

    def __init__(self) -> None:
        self._decays: Decays | None = None
        self._received = self._ones = State()

    def feeds(self, decays: Decays) -> None:
        """Its map feeds neurons of these decays; of none, if it feeds the read-out.

        Raises RequestError (E_RULE) if it feeds others too.
        """
        if self._decays is not None and self._decays != decays:
            raise RequestError(
                "E_RULE",
                "online training through time cannot train a linear map whose output meets both "
                f"{_said(self._decays)} and {_said(decays)}, for it has one trace; use rule "
                "'sltt'",
            )
        self._decays = decays

    def through(self, x: Tensor, operation: TracedMap) -> Tensor:
        """The map of this step's input, with a graph to it and, by the trace, to the map."""
        decays, self._decays = self._decays or Decays(), None
        self._received = decays.remembered(self._received, x.detach())
        self._ones = decays.remembered(self._ones, 1.0)
        y: Tensor = _Traced.apply(  # type: ignore[no-untyped-call]
            x, operation.weight, operation.bias, operation, self._received.v, self._ones.v
        )
        return y


@dataclass(frozen=True, eq=False)
class _Kept:
    """What a decay keeps of the last step's state: a linear map with one weight."""

    weight: Tensor
    bias: None = None

    def __call__(self, x: Tensor) -> Tensor:
        return self.weight * x

    def backward(self, gradient: Tensor, x: Tensor, needs: tuple[bool, bool, bool]) -> Gradients:
        return None, (gradient * x).sum() if needs[1] else None, None


class LearnedDecays:
    """How the decays that a population learns reach its membrane through all steps."""

    def __init__(self) -> None:
        self._traces = {"decay": PresynapticTrace(), "synaptic_decay": PresynapticTrace()}

    def reaching(self, state: State, module: Population) -> tuple[Tensor | float, Spiking]:
        """Nothing, with a graph to the decays, to be added to the current of a step that begins
        with ``state``; and the neuron without a graph to them.

        A membrane answers to what its decay keeps as to a current, and so does a synaptic current.
        """
        nothing: Tensor | float = 0.0
        neuron, decays = module.spiking, Decays.of(module)
        meets = {"decay": Decays(decays.membrane), "synaptic_decay": decays}
        begun = {"decay": state.v, "synaptic_decay": state.i}
        for name in neuron.learned:
            decay = getattr(neuron, name)
            kept = self._traces[name].through(begun[name], _Kept(decay))
            self._traces[name].feeds(meets[name])
            nothing = nothing + (kept - kept.detach())
            neuron = replace(neuron, **{name: decay.detach()})
        return nothing, neuron


def _said(decays: Decays) -> str:
    if decays == Decays():
        return "the read-out"
    learned = "" if decays.learned_by is None else " that learn it"
    return f"neurons of decay {decays.membrane:g}{learned}"
