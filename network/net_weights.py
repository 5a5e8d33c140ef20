"""Whole weights of a `.net` file as synapses of 8 bits hold them.

A synapse with weights of both signs spends a bit on the sign and holds even values only. Weights
that it cannot hold as they are may be held scaled by a power of two, with an exponent that brings
the finished sum back: what runs is then the file's own value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .loihi import WEIGHT_MAX, WEIGHT_MIN, effective_weight, sign_mode

BITS = 8
EXPONENTS = (0, -1, 1)
"""Tried in this order; -1: weights are doubled and their sum halved."""

Whole = NDArray[np.int64]


def _held(weight: Whole) -> tuple[Whole, int] | None:
    mode = sign_mode(weight)
    for exponent in EXPONENTS:
        scaled = weight * 2 if exponent < 0 else weight >> exponent
        back = scaled >> 1 if exponent < 0 else scaled << exponent
        if (back == weight).all() and (effective_weight(scaled, BITS, mode) == scaled).all():
            return scaled, exponent
    return None


def fitted(weight: Whole) -> tuple[NDArray[np.float32], int]:
    """Weights of any shape as 8 bits hold them, and the exponent of their sum; no value changes.

    Raises RequestError (E_RANGE), to go on behind the name of the place.
    """
    held = _held(weight)
    if held is None:
        mode = sign_mode(weight)
        step = 2 if mode == "mixed" else 1
        bad = (weight < WEIGHT_MIN) | (weight > WEIGHT_MAX) | (weight % step != 0)
        where = np.argwhere(bad if bad.any() else weight == weight.min())[0]
        raise RequestError(
            "E_RANGE",
            f"holds {weight[tuple(where)]} at {where.tolist()}; expected even numbers from -256 to "
            "254 among weights of both signs, odd ones up to 127, and 255 at most among weights "
            "of one sign",
        )
    return held[0].astype(np.float32), held[1]


def clipped(weight: Whole) -> Whole:
    """Weights that 8 bits cannot hold, cut to what they reach as netx does; others as they are."""
    if _held(weight) is not None:
        return weight
    low, high = {"mixed": (-256, 254), "excitatory": (0, 255), "inhibitory": (-255, 0)}[
        sign_mode(weight)
    ]
    return weight.clip(low, high)
