"""Where lava-dl's own reader of `.net` files (netx) runs other than what the file says.

The file holds what was trained. netx re-expresses dense weights in as few bits as it can, and Lava
then finds the sign mode by itself: mostly the values survive, sometimes they do not, and never is
it said. Facts: `netx/utils.py`, `netx/hdf5.py` and `netx/blocks/process.py` of lava-dl 0.6.0, the
weights of `Dense` of Lava 0.10.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .loihi import effective_weight, sign_mode
from .net_layers import LAST_THRESHOLD, NetLayer, Whole
from .net_weights import clipped

MOST_DELAY = 62
"""Longer delays are cut by netx."""


def _optimised(weight: Whole) -> tuple[Whole, int, int] | str:
    """`optimize_weight_bits` of netx: weights shifted to fill their range, their bits, the shift.

    Returns why it cannot be computed where netx stops.
    """
    low, high = int(weight.min()), int(weight.max())
    if (high > 254 and low < 0) or (low < -256 and high > 0):
        weight = weight.clip(-256, 254)
        low, high = int(weight.min()), int(weight.max())
    if not high and not low:
        return "all weights are 0, on which it stops with an OverflowError"
    mixed = low < 0 <= high
    reaches = [limit / end for limit, end in _limits(low, high, mixed) if end]
    shift = int(np.floor(np.log2(min(reaches)))) + mixed
    zeros = next(n for n in range(8, -1, -1) if not (weight % 2**n).any())
    # A shift by a negative number leaves nothing (numpy gives 0).
    whole = weight << shift if shift >= 0 else np.zeros_like(weight)
    return whole, 8 - shift - (zeros - mixed), shift


def _limits(low: int, high: int, mixed: bool) -> tuple[tuple[int, int], ...]:
    if mixed:
        return (127, high), (-128, low)
    return ((255, high),) if low >= 0 else ((-256, low),)


def in_netx(weight: Whole, recurrent: Whole | None = None) -> tuple[NDArray[Any], ...] | str:
    """Dense weights (out, in) and recurrent ones (out, out) as lava-dl 0.6.0 and Lava 0.10 run
    them, float64, or why they cannot.

    Both share bits and shift; each process then takes its sign mode from its own weights.
    """
    parts = [weight] if recurrent is None else [weight, recurrent]
    found = _optimised(np.hstack(parts))
    if isinstance(found, str):
        return found
    whole, bits, shift = found
    cut = np.split(whole, [weight.shape[1]], axis=1)[: len(parts)]
    return tuple(_truncated(part, bits) / 2.0**shift for part in cut)


def _truncated(part: Whole, bits: int) -> Whole:
    """What Lava keeps; more bits than there are make its shift negative, which leaves nothing."""
    if bits > 8 + (sign_mode(part) == "mixed"):
        return np.zeros_like(part)
    return effective_weight(part, bits)


def netx_remarks(layer: NetLayer, last: bool) -> Iterator[str]:
    """What netx would make otherwise of a layer, a sentence each; ``last``: it is the read-out."""
    if layer.weight is None:
        return
    name = f"layer '{layer.name}'"
    delayed = layer.delay is not None and bool(layer.delay.any())
    if layer.kind == "conv":
        if delayed:
            yield f"{name} has delays, which netx leaves out of convolutions"
        if layer.neuron is None:
            yield f"{name} is a convolution without a neuron, which netx cannot load"
    else:
        yield from _dense_remarks(layer, name)
        if layer.delay is not None and int(layer.delay.max()) > MOST_DELAY:
            yield f"{name} has delays up to {layer.delay.max()}; netx cuts them at {MOST_DELAY}"
        if delayed and layer.recurrent is not None:
            yield (
                f"{name} has delays and a loop: both wait here, as in netx, which also forgets "
                "their weights' exponent; in training the output waits"
            )
    if delayed and layer.bias is not None and layer.bias.any():
        yield (
            f"{name} has delays and a bias: its inputs wait here, as in netx; in training the "
            "output waits, and the bias with it"
        )
    if last and layer.neuron is None and layer.bias is not None and layer.bias.any():
        yield (
            f"{name} is a read-out with a bias, added here at every step; the neuron that netx "
            "puts in its place adds up its inputs and takes the bias once"
        )
    if last and layer.neuron is not None and layer.neuron.threshold >= LAST_THRESHOLD:
        yield (
            f"{name} never fires below {layer.neuron.threshold} weight units: it is read as the "
            "sum that its membrane adds up"
        )


def _dense_remarks(layer: NetLayer, name: str) -> Iterator[str]:
    weights = [part for part in (layer.weight, layer.recurrent) if part is not None]
    for weight, key in zip(weights, ("weight", "weight_rec"), strict=False):
        cut = clipped(weight)
        if (changed := cut != weight).any():
            yield (
                f"{name}: {changed.sum():,} of {weight.size:,} numbers of {key} are cut to what 8 "
                f"bits reach, the first from {weight[changed][0]} to {cut[changed][0]}, as in netx"
            )
    found = in_netx(*(clipped(weight) for weight in weights))
    if isinstance(found, str):
        yield f"{name} cannot be loaded by netx: {found}"
        return
    for weight, theirs, key in zip(weights, found, ("weight", "weight_rec"), strict=False):
        own = clipped(weight)
        if (changed := theirs != own).any():
            yield (
                f"{name}: netx runs {changed.sum():,} of {weight.size:,} numbers of {key} "
                f"otherwise, the first {own[changed][0]} as {theirs[changed][0]:g}"
            )
