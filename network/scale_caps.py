"""The largest scales at which a layer's integers stay in a chip's fields, for any input.

A cap is integer weight units per float unit, one for each output channel. Currents with a memory
add up to sum/(1 - synaptic decay), membranes to that over (1 - decay), or over T steps where
nothing decays.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .bounds import Bounds, bias_sums, term_sums
from .dynamics import V_MAX, WEIGHT_SHIFT
from .layers import Layer, Network
from .loihi import BIAS_EXPONENT_MAX, MANTISSA_MAX, SUM_MAX, THRESHOLD_MAX
from .neurons import CubaLIF, Resetting, decay_of

Caps = dict[str, NDArray[np.float64]]
"""Per reason the caps of a layer's channels, (C,)."""

BIAS_MAX = MANTISSA_MAX << BIAS_EXPONENT_MAX
"""The largest bias, in membrane units."""


def sums_of(network: Network, layer: Layer) -> Bounds:
    """`term_sums` of one layer, which need not be the network's own of that name; its sources are
    spikes or the input."""
    names = {synapse.source for synapse in layer.synapses} - {network.input, layer.name}
    sources = tuple(replace(network.layer(name), synapses=()) for name in sorted(names))
    return term_sums(replace(network, layers=(*sources, layer)))[layer.name]


def bias_reach(layer: Layer, steps: int) -> float:
    """What a chip's bias stands for, of a float layer's own: 1, and more where the current has a
    memory.

    A chip adds the bias behind the synaptic current. Where the float neuron adds it before, it
    builds up, b*(1 - a^t)/(1 - a) after t steps; the chip gets the mean of that over T steps.
    """
    if not isinstance(layer.neuron, CubaLIF):
        return 1.0
    decay = float(layer.neuron.synaptic_decay.max())
    return float(np.mean([sum(decay**n for n in range(t + 1)) for t in range(steps)]))


def _memory(decay: NDArray[np.float32], steps: int) -> float:
    """How many times its input a leaky sum can hold, at most."""
    most = float(decay.max())
    return float(steps) if most == 1.0 else 1 / (1 - most)


def _capped(limit: float, values: NDArray[np.float64], layer: Layer) -> NDArray[np.float64]:
    """The limit over the largest value in each channel; infinite where there is none."""
    largest = np.broadcast_to(values, layer.shape).reshape(layer.shape[0], -1).max(axis=1)
    return np.where(largest > 0, limit / np.where(largest > 0, largest, 1.0), np.inf)


def scale_caps(network: Network, layer: Layer) -> Caps:
    """The caps of one float layer, by the reason for each; ``network`` holds its sources."""
    steps = network.contract.steps
    sums, biases = sums_of(network, layer), bias_sums(network, layer)
    reach = bias_reach(layer, steps)
    up, down = (whole - bias for whole, bias in zip(sums, biases, strict=True))
    drive = tuple(bias * reach for bias in biases)
    neuron, unit = layer.neuron, 1 << WEIGHT_SHIFT
    held = _memory(neuron.synaptic_decay, steps) if isinstance(neuron, CubaLIF) else 1.0
    caps = {
        "a synaptic sum must stay below 2^17": _capped(SUM_MAX, held * np.maximum(up, down), layer),
        "a bias is at most 4095 * 2^7": _capped(BIAS_MAX / unit, drive[0] + drive[1], layer),
    }
    if not isinstance(neuron, Resetting):
        room = V_MAX / (unit * steps)
        caps["the read-out must not saturate over T steps"] = _capped(
            room, np.maximum(*sums), layer
        )
        return caps
    memory = _memory(decay_of(neuron), steps)
    caps["the membrane must not saturate below"] = _capped(
        V_MAX / unit, (held * down + drive[1]) * memory, layer
    )
    if network.contract.reset == "subtract":
        caps["the membrane must not saturate above"] = _capped(
            V_MAX / unit, (held * up + drive[0]) * memory, layer
        )
    caps["a threshold is at most 131071"] = _capped(
        THRESHOLD_MAX, neuron.threshold.astype(np.float64), layer
    )
    return caps
