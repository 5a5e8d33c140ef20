"""Neurons: what a population does with its input current.

Parameters are float32 arrays that broadcast against the population's shape: one value for all
``()``, one per channel ``(C, 1, 1)``, or one per neuron. Their dynamics stand in `dynamics`:

    i = synaptic_decay*i + synaptic_gain*c     Cuba neurons; c is the sum of the synapses
    u = decay*v + (gain*c + leak)              with i in the place of c in Cuba neurons
    fires at the threshold, then resets        all but LI, CubaLI and Sum
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def _zero() -> Array:
    return np.zeros((), np.float32)


def _one() -> Array:
    return np.ones((), np.float32)


@dataclass(frozen=True, eq=False)
class LIF:
    """Leaky integrate-and-fire: u = decay*v + (gain*c + leak); fire at the threshold; reset."""

    decay: Array
    threshold: Array
    v_reset: Array = field(default_factory=_zero)
    gain: Array = field(default_factory=_one)
    leak: Array = field(default_factory=_zero)


@dataclass(frozen=True, eq=False)
class IF:
    """Integrate-and-fire: u = v + gain*c; fire at the threshold; reset."""

    threshold: Array
    v_reset: Array = field(default_factory=_zero)
    gain: Array = field(default_factory=_one)


@dataclass(frozen=True, eq=False)
class LI:
    """Leaky integrator: v = decay*v + (gain*c + leak) is what it emits; it never fires."""

    decay: Array
    gain: Array = field(default_factory=_one)
    leak: Array = field(default_factory=_zero)


@dataclass(frozen=True, eq=False)
class CubaLIF:
    """LIF driven by a synaptic current i = synaptic_decay*i + synaptic_gain*c of its own step."""

    synaptic_decay: Array
    decay: Array
    threshold: Array
    v_reset: Array = field(default_factory=_zero)
    synaptic_gain: Array = field(default_factory=_one)
    gain: Array = field(default_factory=_one)
    leak: Array = field(default_factory=_zero)


@dataclass(frozen=True, eq=False)
class CubaLI:
    """LI driven by a synaptic current i = synaptic_decay*i + synaptic_gain*c of its own step."""

    synaptic_decay: Array
    decay: Array
    synaptic_gain: Array = field(default_factory=_one)
    gain: Array = field(default_factory=_one)
    leak: Array = field(default_factory=_zero)


@dataclass(frozen=True, eq=False)
class Threshold:
    """No state: fires when its current is at the threshold."""

    threshold: Array


@dataclass(frozen=True, eq=False)
class Sum:
    """No state: passes its current on. The read-out, and the place where branches meet."""


Neuron = LIF | IF | LI | CubaLIF | CubaLI | Threshold | Sum
Spiking = LIF | IF | CubaLIF | Threshold
"""Emit spikes. The others emit real numbers: membranes, or their current."""
Resetting = LIF | IF | CubaLIF
"""Have a membrane that a spike resets."""
Cuba = CubaLIF | CubaLI
"""Have a synaptic current with a memory."""
Stateful = LIF | IF | LI | CubaLIF | CubaLI
"""Have a membrane."""


def parameters(neuron: Neuron) -> dict[str, Array]:
    """The arrays of a neuron by name."""
    return {part.name: getattr(neuron, part.name) for part in fields(neuron)}


def decay_of(neuron: Stateful) -> Array:
    """The factor on the membrane from one step to the next; 1 for IF."""
    return _one() if isinstance(neuron, IF) else neuron.decay


def is_driven(neuron: Neuron) -> bool:
    """Whether a gain other than 1 or a leak changes its current; in no trained network."""
    own = parameters(neuron)
    return any((own[k] != neutral).any() for k, neutral in _NEUTRAL.items() if k in own)


_NEUTRAL = {"gain": 1.0, "synaptic_gain": 1.0, "leak": 0.0}
