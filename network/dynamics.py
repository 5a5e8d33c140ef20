"""One step of every neuron: integrate, decide, reset. Nobody else writes a membrane update.

Only operators, ``abs`` and shifts appear, so that the same functions serve numpy and torch, in
float32, float64 and integers. A recorded spike may be put in the place of `decide`.

Float: ``u = decay*v + c`` is a rounded product, then a rounded sum, never fused.
Integer: Loihi's fixed-point step as Lava 0.10 computes it (`PyLifModelBitAcc`): 24-bit current
with one wrap, saturating membrane, decays in units of 1/4096 rounded toward zero.
"""

from __future__ import annotations

from typing import Any

V_MAX = 2**23 - 1
"""Largest magnitude of an integer membrane; beyond it saturates."""
WEIGHT_SHIFT = 6
"""A synaptic sum enters the integer current shifted left by this many bits."""


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


def _times(x: Any, factor: Any) -> Any:
    """x*factor/4096, rounded toward zero."""
    return ((abs(x) * factor) >> 12) * ((x > 0) * 1 - (x < 0) * 1)


def loihi_current(u: Any, synaptic_sum: Any, du: Any) -> Any:
    """Integer current u, int64: decays by du/4096 (du = 4095 keeps nothing), adds the shifted
    sum, wraps once into (-2^23, 2^23]."""
    u = _times(u, 4096 - (du + 1)) + (synaptic_sum << WEIGHT_SHIFT)
    return u - (u > 2**23) * 2**24 + (u <= -(2**23)) * 2**24


def loihi_integrate(v: Any, u: Any, bias: Any, dv: Any) -> Any:
    """Integer membrane before the decision, int64; ``bias`` in membrane units (not shifted)."""
    v = _times(v, 4096 - dv) + u + bias
    return v - (v > V_MAX) * (v - V_MAX) - (v < -V_MAX) * (v + V_MAX)


def loihi_decide(v: Any, threshold: Any) -> Any:
    """Spikes (bool): v > threshold * 64, strictly."""
    return v > (threshold << WEIGHT_SHIFT)


def loihi_reset(v: Any, spike: Any) -> Any:
    """Membrane after the step: zero where it fired. The current is not reset."""
    return v - v * spike


def loihi_bias(mantissa: Any, exponent: int) -> Any:
    """Bias in membrane units: mantissa shifted left, or right (floor) for a negative exponent."""
    return mantissa << exponent if exponent >= 0 else mantissa >> -exponent
