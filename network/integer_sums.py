"""What one step brings an integer neuron: synaptic sums in weight units, biases in membrane units.

A convolution's sum is kept in a signed 24-bit register, as Lava keeps it; a dense one's is not. An
exponent shifts the finished sum of its own operation, to the right with floor. Biases enter a
neuron without the shift of the sums, all of its synapses' together as one number.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bounds import bias_sums
from .contract import Integer
from .dynamics import WEIGHT_SHIFT, loihi_bias
from .layers import Conv, Delay, Dense, Layer, Network, Operation, Synapse
from .linear import apply
from .loihi import MANTISSA_MAX, MANTISSA_MIN, host_factor, wrap24

Ints = NDArray[np.int64]


def products(operation: Dense | Conv, x: Ints) -> Ints:
    """An operation's sum on a batch (B, *shape) of whole numbers, int64, before it is stored.

    Without the bias. Summed in float64, exact below 2^53.
    """
    unbiased = replace(operation, bias=None)
    return np.rint(apply(unbiased, x.astype(np.float64))).astype(np.int64)


def stored(arithmetic: Integer, operation: Dense | Conv, total: Ints) -> Ints:
    """What an operation makes of its sum: a convolution wraps it at 24 bits, then the exponent
    shifts it."""
    kept: Ints = wrap24(total) if isinstance(operation, Conv) else total
    exponent = arithmetic.weight_exponents.get(operation.name, 0)
    return kept << exponent if exponent >= 0 else kept >> -exponent


def carry(arithmetic: Integer, operation: Operation, x: Ints) -> Ints:
    """One operation without its bias on a batch (B, *shape) of whole numbers, int64."""
    if not isinstance(operation, Dense | Conv):
        return apply(operation, x)
    return stored(arithmetic, operation, products(operation, x))


def neuron_bias(network: Network, layer: Layer) -> Ints:
    """The bias of every neuron, (*shape), in membrane units: what a silent network brings it."""
    positive, negative = bias_sums(network, layer)
    return np.asarray(np.rint((positive - negative) * 2**WEIGHT_SHIFT), np.int64)


def host_bias(arithmetic: Integer, layer: Layer, current: NDArray[Any]) -> Ints:
    """What the host writes for a float32 current (B, *shape), in membrane units."""
    exponent = arithmetic.bias_exponents[layer.name]
    factor = host_factor(arithmetic.host_scale[layer.name], exponent)
    mantissa = np.rint(current.astype(np.float64) * factor)
    whole = np.clip(mantissa, MANTISSA_MIN, MANTISSA_MAX).astype(np.int64)
    return np.asarray(loihi_bias(whole, exponent), np.int64)


def host_biases(network: Network, layer: Layer, frames: NDArray[Any]) -> Ints:
    """What the host writes over all steps for frames (T, B, *input_shape): (T, B, *shape), in
    membrane units. ``layer`` is fed by the input alone."""
    arithmetic = network.contract.arithmetic
    if not isinstance(arithmetic, Integer):
        raise TypeError(f"{arithmetic.kind} networks have no host layer")
    current = np.zeros((*frames.shape[:2], *layer.shape), np.float32)
    for synapse in layer.synapses:
        current = current + _over_steps(synapse, frames)
    return host_bias(arithmetic, layer, current)


def _over_steps(synapse: Synapse, x: NDArray[Any]) -> NDArray[Any]:
    """All steps of a synapse from the input, (T, B, *source shape) to (T, B, *layer shape)."""
    for operation in synapse.operations:
        if isinstance(operation, Delay):
            late = np.zeros_like(x)
            late[operation.steps :] = x[: max(len(x) - operation.steps, 0)]
            x = late
        else:
            flat = apply(operation, x.reshape(-1, *x.shape[2:]))
            x = flat.reshape(*x.shape[:2], *flat.shape[1:])
    return x
