"""A pass that goes step by step: a module is called once for every step, and what its calls keep
for the next one lies in the pass, not in the module."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ..errors import RequestError
from ..network.dynamics import State
from . import eager
from .frames import in_time
from .operations import FixedMap, LinearMap, Norm
from .protocol import Part
from .spiking import Population, Spiking

S = TypeVar("S")


class Places:
    """What the calls of a step keep for the next, in the order of the calls: a module that is
    called twice in a step has two places."""

    def __init__(self) -> None:
        self._kept: list[Any] = []
        self._at = 0
        self._steps = 0

    def begin(self) -> None:
        """The next step begins. Raises RequestError (E_MODEL) if the last one was shorter."""
        if self._at < len(self._kept):
            raise _other_way(self._at)
        self._steps += 1
        self._at = 0

    def next(self, kind: type[S]) -> S:
        """The place of the call made now, a new ``kind`` at the first step.

        Raises RequestError (E_MODEL) where the module's calls are not those of the first step.
        """
        if self._steps == 1 and self._at == len(self._kept):
            self._kept.append(kind())
        found = self._kept[self._at] if self._at < len(self._kept) else None
        if not isinstance(found, kind):
            raise _other_way(self._at)
        self._at += 1
        return found


def _other_way(call: int) -> RequestError:
    return RequestError(
        "E_MODEL",
        f"call {call + 1} of the module is not what it was at the first step; a rule that goes "
        "step by step needs the same calls at every step",
    )


class Mask:
    """The mask of a dropout: drawn at the first step, the same at all."""

    def __init__(self) -> None:
        self._drawn: Tensor | None = None

    def of(self, drawn: Tensor) -> Tensor:
        """The mask of the pass; ``drawn`` is it at the first step."""
        if self._drawn is None:
            self._drawn = drawn
        return self._drawn


def same_at_all_steps(factor: float | Tensor, places: Places) -> float | Tensor:
    """What a value is scaled by: a number, or the mask of the first step."""
    return places.next(Mask).of(factor) if isinstance(factor, Tensor) else factor


class Membrane:
    """The state of a population between two steps; no graph leads through it."""

    def __init__(self) -> None:
        self._state: State | None = None

    def state(self, current: Tensor, neuron: Spiking) -> State:
        """What the population begins a step with ``current`` (B, ...) with."""
        return self._state or eager.rest(current, neuron)

    def step(self, current: Tensor, neuron: Spiking) -> Tensor:
        """Spikes (B, ...) of a step with ``current`` (B, ...), with a graph to it alone."""
        state, spikes = eager.step(self.state(current, neuron), current, neuron)
        self._state = eager.detached(state)
        return spikes


class Echo:
    """The spikes of the last step, without a graph: none before the first."""

    def __init__(self) -> None:
        self._spikes: Tensor | None = None

    def before(self, current: Tensor) -> Tensor:
        """Spikes (B, ...) of the step before, for a population with these currents."""
        return torch.zeros_like(current) if self._spikes is None else self._spikes

    def keep(self, spikes: Tensor) -> None:
        """They are those of the last step from now on."""
        self._spikes = spikes.detach()


class Acts(Protocol):
    """What a rule does where more than the value of this step is needed."""

    def normalise(self, x: Tensor, norm: Norm) -> Tensor:
        """Batch normalisation."""
        ...

    def fire(self, x: Tensor, module: Population) -> Tensor:
        """Currents to spikes."""
        ...

    def recur(self, x: Tensor, module: Population, weights: LinearMap) -> Tensor:
        """Currents to spikes, the population's own of the last step mapped and added."""
        ...

    def replace(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """A function that is not linear."""
        ...


@dataclass(frozen=True, eq=False)
class OneStep:
    """The value is the tensor (B, ...) of a step, or rates: what is linear is done to it as it
    stands, the rest is left to ``acts``."""

    acts: Acts
    places: Places

    def example(self, value: Tensor) -> Tensor:
        """The value, (B, ...)."""
        return value

    def linear(self, value: Tensor, operation: LinearMap) -> Tensor:
        """A convolution or a matrix product."""
        return operation(value)

    def normalise(self, value: Tensor, norm: Norm) -> Tensor:
        """Batch normalisation."""
        return self.acts.normalise(value, norm)

    def fire(self, value: Tensor, module: Population) -> Tensor:
        """Currents to spikes."""
        return self.acts.fire(value, module)

    def recur(self, value: Tensor, module: Population, weights: LinearMap) -> Tensor:
        """Currents to spikes of neurons that feed themselves."""
        return self.acts.recur(value, module, weights)

    def fixed(self, value: Tensor, operation: FixedMap) -> Tensor:
        """Pooling, flatten, reshape."""
        return operation(value)

    def scale(self, value: Tensor, factor: float | Tensor) -> Tensor:
        """Multiply by a number, or by a mask (B, ...): that of the first step."""
        return value * same_at_all_steps(factor, self.places)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """Sum of two values."""
        return a + b

    def join(self, values: Sequence[Tensor], axis: int) -> Tensor:
        """Concatenation."""
        return torch.cat(list(values), axis)

    def replace(self, value: Tensor, function: Callable[[Tensor], Tensor], name: str) -> Tensor:  # noqa: ARG002
        """A function that is not linear."""
        return self.acts.replace(value, function)


def steps_of(frames: Tensor, steps: int) -> Iterator[Tensor]:
    """The frame (B, ...) of every step; ``frames`` as of a learning rule."""
    shown = in_time(frames, steps)
    for t in range(steps):
        yield shown[min(t, len(shown) - 1)]


def parts(
    step: Callable[[Tensor], Tensor],
    frames: Tensor,
    steps: int,
    learned: Container[int],
    share: float,
) -> Iterator[Part]:
    """The outputs of every step in ``learned`` as a part of its own, of ``share`` each; the other
    steps pass without a graph. ``step``: a frame (B, ...) to outputs (B, K)."""
    for t, frame in enumerate(steps_of(frames, steps)):
        if t in learned:
            yield Part(step(frame)[None], share)
        else:
            with torch.no_grad():
                step(frame)
