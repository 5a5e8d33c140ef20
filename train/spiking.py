"""What a neuron module is made of, apart from how it is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from ..errors import RequestError
from ..network.contract import Compare
from .protocol import Surrogate

SpikingReset = Literal["zero", "subtract"]
Decay = float | Tensor
"""A number, or what is learned: a tensor () with a graph, on the grid of `decay.learned`."""


def number(decay: Decay) -> float:
    """What it is now."""
    return decay.item() if isinstance(decay, Tensor) else decay


@dataclass(frozen=True, eq=False)
class Spiking:
    """Parameters of a neuron module; see `modules.LIF`.

    ``threshold``: one, or one per channel (C,). ``synaptic_decay``: of CubaLIF alone.
    """

    decay: Decay
    threshold: float | Tensor
    reset: SpikingReset
    compare: Compare
    detach_reset: bool
    surrogate: Surrogate
    synaptic_decay: Decay | None = None

    def __post_init__(self) -> None:
        for name, decay in (("decay", self.decay), ("synaptic decay", self.synaptic_decay)):
            if isinstance(decay, float | int) and not 0.0 <= decay <= 1.0:
                raise RequestError("E_NEURON", f"the {name} is {decay}; expected 0 to 1")
        for name, value in (("threshold", self.threshold), ("width", self.surrogate.width)):
            if not isinstance(value, Tensor) and not 0.0 < value < math.inf:
                raise RequestError("E_NEURON", f"the {name} is {value}; expected above 0")
        if self.reset not in ("zero", "subtract"):
            raise RequestError(
                "E_NEURON", f"the reset is {self.reset!r}; expected 'zero' or 'subtract'"
            )
        if self.compare not in ("gt", "ge"):
            raise RequestError(
                "E_NEURON", f"the comparison is {self.compare!r}; expected 'gt' or 'ge'"
            )

    @property
    def learned(self) -> tuple[str, ...]:
        """Which of its decays are learned."""
        names = ("decay", "synaptic_decay")
        return tuple(name for name in names if isinstance(getattr(self, name), Tensor))

    def thresholds(self, current: Tensor) -> Tensor:
        """The threshold in the dtype of currents (B, C, ...) or (B, N), to broadcast against them.

        Raises RequestError (E_MODEL) when there are other channels than thresholds.
        """
        if not isinstance(self.threshold, Tensor):
            return current.new_tensor(self.threshold)
        if current.dim() < 2 or current.shape[1] != len(self.threshold):
            count = len(self.threshold)
            raise RequestError(
                "E_MODEL",
                f"neurons with {count} thresholds, one per channel, received currents of shape "
                f"{list(current.shape)}; expected (B, {count}, ...)",
            )
        return self.threshold.to(current).view(-1, *[1] * (current.dim() - 2))


class Population(Protocol):
    """A neuron module, as far as a treatment needs to know it."""

    @property
    def spiking(self) -> Spiking:
        """Its parameters as they are now."""
        ...
