"""The scale of a layer, or one for each of its channels: as it lies on a lattice, or searched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..network.layers import Conv, Dense, Flatten, Layer, Network
from ..network.scale_caps import Caps, scale_caps
from ..network.scales import (
    against,
    candidates,
    channel_options,
    channel_scales,
    lattice_scale,
    lattice_scales,
    least_squares_scale,
    whole_weights,
)
from ..network.shared_scales import covered, shared

Wide = NDArray[np.float64]
Errors = Callable[[Wide], Wide]
"""Errors of a layer's channels, (C,), at a scale for all () or for each (C,)."""

SEARCHED, KEPT = 0.99, 0.999
"""Shares of a cap that a searched scale may take, and one whose weights are rounded: rounding a
weight may make it larger."""
TRIES = 30


@dataclass(frozen=True)
class Sharing:
    """Which channels lie on one core, and how many scales they may have; None: no limit."""

    groups: Sequence[slice]
    most: int


@dataclass(frozen=True, eq=False)
class Found:
    """A layer's scale, () or (C,), the bits that its sums are shifted to the right, whether its
    weights lay on a lattice, and its tightest cap."""

    scale: Wide
    shift: int
    kept: bool
    cap: float
    cap_reason: str


def maps(layer: Layer) -> list[Dense | Conv]:
    """The weights that meet in a layer's neurons."""
    return [op for s in layer.synapses for op in s.operations if isinstance(op, Dense | Conv)]


def has_channels(layer: Layer) -> bool:
    """Whether each channel of the layer has its own rows in all weights."""
    behind_conv = any(
        isinstance(a, Conv) and isinstance(b, Flatten)
        for synapse in layer.synapses
        for a, b in zip(synapse.operations, synapse.operations[1:], strict=False)
    )
    return not behind_conv


def at_scale(layer: Layer, scale: Wide, bits: int) -> list[NDArray[np.float64]]:
    """The float weights that the whole ones stand for."""
    return [whole_weights(op.weight, scale, bits) / against(scale, op.weight) for op in maps(layer)]


def find_scale(
    network: Network,
    layer: Layer,
    bits: int,
    by_channel: bool,
    sharing: Sharing | None,
    errors: Errors | None,
    shift: int = 0,
) -> Found:
    """The scale of a layer of ``network``, within all caps once its weights are rounded.

    ``shift``: so many bits its sums may be shifted to the right, behind which the caps stand.

    Weights that lie on a lattice keep it. Others get the scale of the least ``errors``, or without
    those of the least squares. Raises RequestError (E_RANGE) where no scale is small enough.
    """
    weights = [op.weight for op in maps(layer)]
    caps = _shifted(scale_caps(network, layer), shift)
    own = _on_lattice(weights, bits, by_channel, sharing, _least(caps) * KEPT)
    if own is not None:
        return _found(own, _least(caps), shift, True, caps)
    room = SEARCHED
    for _ in range(TRIES):
        wanted = _searched(weights, bits, by_channel, sharing, _least(caps) * room, errors)
        rounded = _rounded(layer, wanted, bits)
        limits = _least(_shifted(scale_caps(network, rounded), shift)) * KEPT
        fitting = [op.weight for op in maps(rounded)]
        settled = _on_lattice(fitting, bits, by_channel, sharing, limits)
        scale = wanted if settled is None else settled
        if (scale <= limits).all():
            return _found(scale, limits, shift, False, caps)
        room *= 0.99 * float((limits / scale).min())
    raise RequestError(
        "E_RANGE",
        f"layer '{layer.name}': at no scale do its weights of {bits} bits stay in range; "
        f"{_reason(caps)}",
    )


def _shifted(caps: Caps, shift: int) -> Caps:
    return {reason: cap * 2.0**shift for reason, cap in caps.items()}


def _reason(caps: Caps) -> str:
    return min(caps, key=lambda name: caps[name].min())


def _found(scale: Wide, limits: Wide, shift: int, kept: bool, caps: Caps) -> Found:
    """With the smallest shift that the scale needs, of those that ``limits`` reckon with."""
    needed = int(np.ceil(np.log2(float((scale / limits).max())) + shift)) if shift else 0
    reason = _reason(caps)
    return Found(scale, max(needed, 0), kept, float(caps[reason].min()), reason)


def _least(caps: Caps) -> Wide:
    least: Wide = np.min(list(caps.values()), axis=0)
    return least


def _rounded(layer: Layer, scale: Wide, bits: int) -> Layer:
    """The layer with the float weights that its whole ones stand for."""
    values = iter(at_scale(layer, scale, bits))

    def operation(op: Any) -> Any:
        if not isinstance(op, Dense | Conv):
            return op
        return replace(op, weight=next(values).astype(np.float32))

    synapses = tuple(
        replace(s, operations=tuple(operation(op) for op in s.operations)) for s in layer.synapses
    )
    return replace(layer, synapses=synapses)


def _on_lattice(
    weights: list[NDArray[Any]],
    bits: int,
    by_channel: bool,
    sharing: Sharing | None,
    caps: Wide,
) -> Wide | None:
    """The scales of weights that lie on lattices already, none above its cap; None if they do
    not."""
    if not by_channel:
        scale = lattice_scale(weights, bits, float(caps.min()))
        return None if scale is None else np.array(scale)
    if sharing is None:
        return lattice_scales(weights, bits, caps)
    options = channel_options(weights, bits, caps)
    if options is None:
        return None
    silent = [not any(w[channel].any() for w in weights) for channel in range(len(options))]
    return covered(options, silent, sharing.groups, sharing.most)


def _searched(
    weights: list[NDArray[Any]],
    bits: int,
    by_channel: bool,
    sharing: Sharing | None,
    caps: Wide,
    errors: Errors | None,
) -> Wide:
    if not by_channel:
        cap = float(caps.min())
        if errors is None:
            return np.array(least_squares_scale(weights, bits, cap))
        rows = np.concatenate([w.reshape(1, -1) for w in weights], axis=1).astype(np.float64)
        tried = np.unique(candidates(rows, bits, np.array([cap])))
        return np.array(min(tried, key=lambda scale: float(errors(np.array(scale)).sum())))
    if errors is None:
        scales = channel_scales(weights, bits, caps)
    else:
        rows = np.concatenate([w.reshape(len(w), -1) for w in weights], axis=1).astype(np.float64)
        every = candidates(rows, bits, caps)
        counts = np.stack([errors(scales) for scales in every])
        best = counts.argmin(axis=0)
        scales = np.take_along_axis(every, best[np.newaxis], axis=0)[0]
    if sharing is None:
        return scales
    return shared(scales, caps, bits, sharing.groups, sharing.most)
