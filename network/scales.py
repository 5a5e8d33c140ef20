"""From float weights to a chip's whole weights: the one rounding, and the scales it is done with.

A scale is integer weight units per float unit. Weights of ``bits`` bits with mixed sign are
multiples of a step 2^(9-bits) in -256..256-step, so on the scale s a float weight w becomes
``step * n`` with ``n`` the whole number next to ``w / spacing``, and ``spacing = step / s``. Every
scale found here has a spacing of few significant bits: ``n * spacing`` is then a float32 number, a
grid of powers of two holds it, and `lattice_scale` finds the same scale in weights that were
rounded once. Export and training share these functions, so that both see the same integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .loihi import weight_step

Wide = NDArray[np.float64]
Weights = NDArray[Any] | Sequence[NDArray[Any]]
"""One weight matrix, or all that meet in one layer's neurons."""

RATIOS = np.geomspace(0.8, 5.0, 26)
"""Scales tried, in units of the one that maps the largest weight to the largest integer."""
SPACING_BITS = 6
"""Significant bits of a spacing: it is at most 2^-5 wider than asked for."""
SILENT_SCALE = 256.0
"""The scale of a layer or channel without weights; its threshold and bias still need one."""


def step_of(bits: int) -> int:
    """Distance between two neighbouring whole weights of mixed sign, 2^(9-bits)."""
    return weight_step(bits, "mixed")


def against(scale: float | NDArray[Any], weight: NDArray[Any]) -> Wide:
    """A scale, or one for each output channel (C,), in a shape that multiplies ``weight`` on axis
    0."""
    wide = np.asarray(scale, np.float64)
    return wide.reshape(-1, *(1,) * (weight.ndim - 1)) if wide.ndim else wide


def whole_weights(weight: NDArray[Any], scale: float | NDArray[Any], bits: int) -> Wide:
    """Whole weights of ``bits`` bits: step * rint(w * s / step), clipped to what the chip holds.

    ``weight`` (C, ...), ``scale`` one number or (C,). A matrix left without a positive weight is
    taken for an inhibitory one, which has no -256: it keeps to -256 + step.
    """
    step = step_of(bits)
    whole = np.rint(np.asarray(weight, np.float64) * against(scale, weight) / step)
    low = -256 // step + (0 if (whole > 0).any() else 1)
    clipped: Wide = step * whole.clip(low, 256 // step - 1)
    return clipped + 0.0  # no -0.0, whose bytes differ


def threshold_units(threshold: NDArray[Any], scale: float | NDArray[Any]) -> Wide:
    """Thresholds in whole weight units, rint(threshold * s); the two broadcast."""
    return np.asarray(np.rint(np.asarray(threshold, np.float64) * scale), np.float64)


def _rows(weights: Weights) -> Wide:
    """All weights of an output channel in one row, (C, n)."""
    matrices = [weights] if isinstance(weights, np.ndarray) else weights
    return np.concatenate([m.astype(np.float64).reshape(len(m), -1) for m in matrices], axis=1)


def few_bits(scale: Wide, bits: int) -> Wide:
    """The largest scales not above ``scale`` whose spacing has `SPACING_BITS` bits."""
    step = step_of(bits)
    mantissa, exponent = np.frexp(step / scale)
    up = np.ceil(np.ldexp(mantissa, SPACING_BITS))
    return np.asarray(step / np.ldexp(up, exponent - SPACING_BITS), np.float64)


def channel_scales(weights: Weights, bits: int, caps: float | NDArray[Any]) -> Wide:
    """`least_squares_scale` of each output channel, (C,); ``caps`` one number or (C,)."""
    return _least_squares(_rows(weights), bits, np.asarray(caps, np.float64))


def least_squares_scale(weights: Weights, bits: int, cap: float = math.inf) -> float:
    """The scale, at most ``cap``, with the least squared error of the weights, clipping included.

    Tries `RATIOS`; clipping the few largest weights pays below 8 bits.
    """
    return float(_least_squares(_rows(weights).reshape(1, -1), bits, np.asarray(cap))[0])


def candidates(rows: Wide, bits: int, caps: Wide) -> Wide:
    """Scales to try for each row of weights, (ratios, C), none above its cap."""
    largest = abs(rows).max(axis=1, initial=0.0)
    step = step_of(bits)
    base = np.where(largest > 0, (256 - step) / np.where(largest > 0, largest, 1.0), SILENT_SCALE)
    return few_bits(np.minimum(RATIOS[:, np.newaxis] * base, caps), bits)


def _least_squares(rows: Wide, bits: int, caps: Wide) -> Wide:
    step = step_of(bits)
    tried = candidates(rows, bits, caps)
    errors = np.empty_like(tried)
    for place, scales in enumerate(tried):
        column = scales[:, np.newaxis]
        whole = step * np.rint(rows * column / step).clip(-256 // step, 256 // step - 1)
        errors[place] = ((whole / column - rows) ** 2).sum(axis=1)
    best = np.take_along_axis(tried, errors.argmin(axis=0)[np.newaxis], axis=0)[0]
    silent = few_bits(np.minimum(SILENT_SCALE, caps) + 0 * best, bits)
    return np.where(rows.any(axis=1), best, silent)


def spacing_of(weight: NDArray[Any]) -> float | None:
    """The widest spacing of which every weight is a whole multiple, exactly.

    None for weights that are all zero, and for more than 256 different magnitudes: no chip holds
    those.
    """
    magnitudes = np.unique(abs(np.asarray(weight, np.float64)))
    magnitudes = magnitudes[magnitudes > 0]
    if not 0 < len(magnitudes) <= 256:
        return None
    mantissas, exponents = np.frexp(magnitudes)
    low = int(exponents.min())
    whole = [int(m * 2.0**53) << int(e - low) for m, e in zip(mantissas, exponents, strict=True)]
    return math.ldexp(math.gcd(*whole), low - 53)


def lattice_scale(weights: Weights, bits: int, cap: float = math.inf) -> float | None:
    """The scale that holds weights exactly which are whole multiples of one spacing, else None.

    Of several the largest up to ``cap``, at which threshold and biases are rounded least. Weights
    that are all zero lie on every lattice and get `SILENT_SCALE`.
    """
    found = lattice_options([weights] if isinstance(weights, np.ndarray) else weights, bits, cap)
    return None if found is None else found[-1]


def lattice_scales(weights: Weights, bits: int, caps: float | NDArray[Any]) -> Wide | None:
    """`lattice_scale` of each output channel, (C,); None when one of them lies on no lattice."""
    every = channel_options(weights, bits, caps)
    return None if every is None else np.array([options[-1] for options in every])


def channel_options(
    weights: Weights, bits: int, caps: float | NDArray[Any]
) -> list[list[float]] | None:
    """`lattice_options` of each output channel; None when one of them lies on no lattice."""
    matrices = [weights] if isinstance(weights, np.ndarray) else list(weights)
    signed = [bool((matrix > 0).any()) for matrix in matrices]
    found = []
    for channel, cap in enumerate(np.broadcast_to(caps, len(matrices[0]))):
        options = lattice_options([m[channel] for m in matrices], bits, float(cap), signed)
        if options is None:
            return None
        found.append(options)
    return found


def lattice_options(
    matrices: Sequence[NDArray[Any]],
    bits: int,
    cap: float = math.inf,
    signed: Sequence[bool] | None = None,
) -> list[float] | None:
    """All scales up to ``cap`` that hold weights exactly, smallest first; None where none does.

    ``signed``: per matrix whether it, or the one that it is a part of, has a positive weight.
    """
    flat = np.concatenate([matrix.reshape(-1) for matrix in matrices])
    if not flat.any():
        return [float(few_bits(np.asarray(min(SILENT_SCALE, cap)), bits))]
    spacing, step = spacing_of(flat), step_of(bits)
    if spacing is None:
        return None
    room = cap * spacing / step
    for place, matrix in enumerate(matrices):
        low, high = float(matrix.min()) / spacing, float(matrix.max()) / spacing
        positive = high > 0 if signed is None else signed[place]
        if high > 0:
            room = min(room, (256 // step - 1) / high)
        if low < 0:
            room = min(room, (256 // step - (0 if positive else 1)) / -low)
    found = [times * step / spacing for times in range(1, math.floor(room) + 1)]
    return found or None
