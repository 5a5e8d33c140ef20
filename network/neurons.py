"""Neurons: what a population does with its input current.

Parameters are float32 arrays that broadcast against the population's shape: one value for all
``()``, one per channel ``(C, 1, 1)``, or one per neuron. Their dynamics stand in `dynamics`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def _zero() -> Array:
    return np.zeros((), np.float32)


@dataclass(frozen=True, eq=False)
class LIF:
    """Leaky integrate-and-fire: u = decay*v + c; fire at the threshold; reset."""

    decay: Array
    threshold: Array
    v_reset: Array = field(default_factory=_zero)


@dataclass(frozen=True, eq=False)
class IF:
    """Integrate-and-fire: u = v + c; fire at the threshold; reset."""

    threshold: Array
    v_reset: Array = field(default_factory=_zero)


@dataclass(frozen=True, eq=False)
class Sum:
    """No state: passes its current on. The read-out, and the place where branches meet."""


Neuron = LIF | IF | Sum


def decay_of(neuron: LIF | IF) -> Array:
    """The factor on the membrane from one step to the next; 1 for IF."""
    return neuron.decay if isinstance(neuron, LIF) else np.ones((), np.float32)
