"""What Loihi's integers can hold: the limits of its fields, and weights truncated as by Lava 0.10.

A weight matrix has one sign mode. Of ``weight_bits`` a mixed matrix spends one on the sign: at 8
bits it holds even values from -256 to 254, a one-sign matrix all values up to 255 in magnitude.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .dynamics import V_MAX, WEIGHT_SHIFT

THRESHOLD_MAX = 131_071
"""17 bits, in weight units."""
SUM_MAX = V_MAX >> WEIGHT_SHIFT
"""A larger synaptic sum, shifted into the membrane's units, wraps the 24-bit current."""
WEIGHT_MIN, WEIGHT_MAX = -256, 255
MANTISSA_MIN, MANTISSA_MAX = -4096, 4095
"""A bias mantissa has 13 bits."""
BIAS_EXPONENT_MAX = 7
NEURONS_PER_CORE, THRESHOLDS_PER_CORE = 1024, 8
"""A core of Loihi 1, as in its chip file: neurons, and different thresholds among them."""

HELD_SUM, HELD_PRODUCTS = 2**24, 2**30
"""A run keeps 32 bits: what a larger synaptic sum, or a larger sum of products before its
exponent, would come to is refused, even where wraps of 24 bits are run as they are."""

Sign = Literal["mixed", "excitatory", "inhibitory"]
Ints = NDArray[np.int64]


def sign_mode(weight: NDArray[Any]) -> Sign:
    """Of a whole matrix: excitatory without a negative weight, inhibitory without a positive."""
    if weight.min() >= 0:
        return "excitatory"
    return "inhibitory" if weight.max() <= 0 else "mixed"


def weight_step(weight_bits: int, sign: Sign) -> int:
    """Distance between two neighbouring weights, 2^(9-bits) for a mixed matrix."""
    return 1 << (8 - weight_bits + (sign == "mixed"))


def effective_weight(weight: NDArray[Any], weight_bits: int = 8, sign: Sign | None = None) -> Ints:
    """The weights that the chip uses: clipped, then truncated to the step (floor of s*W).

    ``weight`` of any shape, fractions are cut off first; ``sign`` None: as `sign_mode` finds it.
    """
    mode = sign or sign_mode(weight)
    side = -1 if mode == "inhibitory" else 1
    low = WEIGHT_MIN if mode == "mixed" else 0
    whole = np.trunc(side * np.asarray(weight, np.float64)).astype(np.int64)
    step = weight_step(weight_bits, mode)
    return side * (whole.clip(low, WEIGHT_MAX) // step * step)


def host_factor(scale: float, exponent: int) -> float:
    """Bias mantissas per unit of a float current that the host scales and writes."""
    return float(scale * 2**WEIGHT_SHIFT / 2**exponent)


def wrap24(total: Any) -> Any:
    """A sum in a signed 24-bit register, [-2^23, 2^23), as Lava's convolution keeps it."""
    return ((total + 2**23) % 2**24) - 2**23
