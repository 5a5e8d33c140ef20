"""One step of every neuron: integrate, decide, reset. Nobody else writes a membrane update.

Only operators, ``abs`` and shifts appear, so that the same functions serve numpy and torch, in
float32, float64 and integers. A recorded spike may be put in the place of `decide`.

Float: ``u = decay*v + drive`` is a rounded product, then a rounded sum, never fused. A step is

    current   = filtered(i, c, ...)               Cuba neurons; the new i
    u         = integrate(v, driven(current, ...), decay), minus what a late reset owes
    spike     = decide(u, threshold, compare)
    v         = reset(u, spike, ...)              or u itself where the reset comes one step late

and `Cell.membrane` and `Cell.settle` put these together for whoever has a `Cell`.
Integer: Loihi's fixed-point step as Lava 0.10 computes it (`PyLifModelBitAcc`): 24-bit current
with one wrap, saturating membrane, decays in units of 1/4096 rounded toward zero; an `IntegerCell`
puts it together. Beyond Lava and the first Loihi it can fire at the threshold itself (``ge``) and
subtract the threshold, as a chip with programmable neurons could.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .contract import Contract
from .neurons import IF, CubaLIF, Neuron, Resetting, decay_of, is_driven, parameters

V_MAX = 2**23 - 1
"""Largest magnitude of an integer membrane; beyond it saturates."""
WEIGHT_SHIFT = 6
"""A synaptic sum enters the integer current shifted left by this many bits."""
DECAY_UNITS = 4096
"""Integer decays are multiples of 1/4096."""


def integrate(v: Any, current: Any, decay: Any) -> Any:
    """Membrane before the decision, u = decay*v + c. All broadcast to (B, *shape)."""
    return decay * v + current


def decide(u: Any, threshold: Any, compare: str) -> Any:
    """Spikes (bool): u > threshold for ``gt``, u >= threshold for ``ge``."""
    return u >= threshold if compare == "ge" else u > threshold


def reset(u: Any, spike: Any, threshold: Any, v_reset: Any, kind: str) -> Any:
    """Membrane after the step: ``subtract`` takes the threshold off, ``value`` sets v_reset.

    ``spike`` is 0 or 1 (or bool); ``u - u*spike`` is exact for both.
    """
    if kind == "subtract":
        return u - threshold * spike
    return u - u * spike + v_reset * spike


def filtered(i: Any, current: Any, synaptic_decay: Any, synaptic_gain: Any) -> Any:
    """Synaptic current of this step, i = synaptic_decay*i + synaptic_gain*current."""
    return synaptic_decay * i + synaptic_gain * current


def driven(current: Any, gain: Any, leak: Any) -> Any:
    """What enters the membrane, gain*current + leak."""
    return gain * current + leak


@dataclass(frozen=True)
class State:
    """What a float population keeps between steps: membrane, synaptic current, and what a reset
    one step late will take off. Each (B, *shape), or the number 0 before the first step."""

    v: Any = 0.0
    i: Any = 0.0
    owed: Any = 0.0


@dataclass(frozen=True)
class Cell:
    """A float neuron as numbers of one library and dtype. None: it has no such part; a gain of 1
    and a leak of 0 are left out too, for they change nothing."""

    contract: Contract
    decay: Any = None
    threshold: Any = None
    v_reset: Any = None
    gain: Any = None
    leak: Any = None
    synaptic_decay: Any = None
    synaptic_gain: Any = None

    @staticmethod
    def of(neuron: Neuron, contract: Contract, convert: Callable[[Any], Any]) -> Cell:
        """A neuron's cell; ``convert`` brings each float32 array to where it is needed."""
        own = {name: convert(values) for name, values in parameters(neuron).items()}
        if not is_driven(neuron):
            own = {name: part for name, part in own.items() if name not in ("gain", "leak")}
        elif isinstance(neuron, IF):
            own["leak"] = 0.0
        if isinstance(neuron, IF):
            own["decay"] = 1.0
        return Cell(contract, **own)

    def membrane(self, state: State, current: Any) -> State:
        """The state before the decision: v is the membrane u, i the new synaptic current.

        ``current``: the sum of the synapses, (B, *shape). For a neuron without a membrane u is
        what is held against the threshold, the current itself.
        """
        i = state.i
        if self.synaptic_decay is not None:
            i = current = filtered(i, current, self.synaptic_decay, self.synaptic_gain)
        if self.gain is not None:
            current = driven(current, self.gain, self.leak)
        v = current if self.stateless else integrate(state.v, current, self.decay)
        if self.contract.late_reset and self.v_reset is not None:
            v = v - state.owed
        return State(v, i)

    @property
    def stateless(self) -> bool:
        """Whether nothing is kept from step to step."""
        return self.decay is None

    def decide(self, u: Any) -> Any:
        """Spikes (bool) of the membrane before the decision."""
        return decide(u, self.threshold, self.contract.compare)

    def settle(self, state: State, spike: Any) -> State:
        """The state after the step in which ``spike`` (0 or 1) was emitted."""
        if self.v_reset is None:
            return state
        if self.contract.late_reset:
            return State(state.v, state.i, self.threshold * spike)
        v = reset(state.v, spike, self.threshold, self.v_reset, self.contract.reset)
        return State(v, state.i)


def _times(x: Any, factor: Any) -> Any:
    """x*factor/4096, rounded toward zero."""
    return ((abs(x) * factor) >> 12) * ((x > 0) * 1 - (x < 0) * 1)


def loihi_current(u: Any, synaptic_sum: Any, du: Any) -> Any:
    """Integer current u, int64: decays by du/4096 (du = 4095 keeps nothing), adds the shifted
    sum, wraps once into (-2^23, 2^23]."""
    return _wrapped(_gathered(u, synaptic_sum, du))


def _gathered(u: Any, synaptic_sum: Any, du: Any) -> Any:
    return _times(u, 4096 - (du + 1)) + (synaptic_sum << WEIGHT_SHIFT)


def _wrapped(u: Any) -> Any:
    return u - (u > 2**23) * 2**24 + (u <= -(2**23)) * 2**24


def loihi_integrate(v: Any, u: Any, bias: Any, dv: Any) -> Any:
    """Integer membrane before the decision, int64; ``bias`` in membrane units (not shifted).

    It saturates at `V_MAX` on both sides.
    """
    v = _times(v, 4096 - dv) + u + bias
    return v - (v > V_MAX) * (v - V_MAX) - (v < -V_MAX) * (v + V_MAX)


def loihi_decide(v: Any, threshold: Any, compare: str = "gt") -> Any:
    """Spikes (bool) of the membrane against threshold * 64; Loihi fires strictly above."""
    return decide(v, threshold << WEIGHT_SHIFT, compare)


def loihi_reset(v: Any, spike: Any, threshold: Any = 0, kind: str = "value") -> Any:
    """Membrane after the step: zero where it fired, or less by the threshold. The current is not
    reset."""
    return reset(v, spike, threshold << WEIGHT_SHIFT, 0, kind)


def loihi_bias(mantissa: Any, exponent: int) -> Any:
    """Bias in membrane units: mantissa shifted left, or right (floor) for a negative exponent."""
    return mantissa << exponent if exponent >= 0 else mantissa >> -exponent


@dataclass(frozen=True)
class IntegerCell:
    """A neuron in Loihi's integers: what current and membrane lose per step in 1/4096 (``du`` of
    4095: the current keeps nothing), and its threshold in weight units."""

    contract: Contract
    du: Any
    dv: Any
    threshold: Any

    @staticmethod
    def of(neuron: Neuron, contract: Contract, convert: Callable[[Any], Any]) -> IntegerCell:
        """A neuron's cell; ``convert`` brings whole numbers held in float32 to integers."""
        if not isinstance(neuron, Resetting):  # `check` lets no other into integers
            raise TypeError(f"{type(neuron).__name__} has no integer step")
        kept = (
            neuron.synaptic_decay * DECAY_UNITS
            if isinstance(neuron, CubaLIF)
            else 0 * decay_of(neuron)
        )
        return IntegerCell(
            contract,
            convert(DECAY_UNITS - 1 - kept),
            convert(DECAY_UNITS - decay_of(neuron) * DECAY_UNITS),
            convert(neuron.threshold),
        )

    def membrane(self, state: State, synaptic_sum: Any, bias: Any) -> State:
        """The state before the decision: v is the membrane, i the new current.

        ``synaptic_sum``, in weight units, and ``bias``, in membrane units: (B, *shape), int64.
        """
        i = loihi_current(state.i, synaptic_sum, self.du)
        return State(loihi_integrate(state.v, i, bias, self.dv), i)

    def lost(self, state: State, synaptic_sum: Any, bias: Any) -> Any:
        """How many of a neuron's two states leave their range in the step of `membrane`, int64.

        A current that wraps counts, and a membrane that saturates, but not one above a threshold
        that it is reset from.
        """
        gathered = _gathered(state.i, synaptic_sum, self.du)
        i = _wrapped(gathered)
        v = _times(state.v, DECAY_UNITS - self.dv) + i + bias
        above = v > V_MAX
        if self.contract.reset == "value":
            above = above & ~self.decide(above * V_MAX)
        return (gathered != i) * 1 + (v < -V_MAX) * 1 + above * 1

    def decide(self, v: Any) -> Any:
        """Spikes (bool) of the membrane before the decision."""
        return loihi_decide(v, self.threshold, self.contract.compare)

    def settle(self, state: State, spike: Any) -> State:
        """The state after the step in which ``spike`` (0 or 1) was emitted."""
        return State(loihi_reset(state.v, spike, self.threshold, self.contract.reset), state.i)
