"""What a neuron module is made of, apart from how it is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from ..errors import RequestError
from ..network.contract import Compare
from .protocol import Surrogate

SpikingReset = Literal["zero", "subtract"]


@dataclass(frozen=True)
class Spiking:
    """Parameters of a neuron module; see `modules.LIF`."""

    decay: float
    threshold: float
    reset: SpikingReset
    compare: Compare
    detach_reset: bool
    surrogate: Surrogate

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay <= 1.0:
            raise RequestError("E_NEURON", f"the decay is {self.decay}; expected 0 to 1")
        for name, value in (("threshold", self.threshold), ("width", self.surrogate.width)):
            if not 0.0 < value < math.inf:
                raise RequestError("E_NEURON", f"the {name} is {value}; expected above 0")
        if self.reset not in ("zero", "subtract"):
            raise RequestError(
                "E_NEURON", f"the reset is {self.reset!r}; expected 'zero' or 'subtract'"
            )
        if self.compare not in ("gt", "ge"):
            raise RequestError(
                "E_NEURON", f"the comparison is {self.compare!r}; expected 'gt' or 'ge'"
            )


class Population(Protocol):
    """A neuron module, as far as a treatment needs to know it."""

    spiking: Spiking
