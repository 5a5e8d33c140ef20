"""How large every neuron's sum can become, in either direction, over any input in range.

The sum of a neuron is split into its positive and its negative terms: with ``P`` the largest value
the positive terms can reach together and ``N`` the largest magnitude of the negative ones, every
partial sum, in any order of summation, lies in [-N, P].
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .contract import Integer
from .dynamics import WEIGHT_SHIFT, loihi_bias
from .layers import Conv, Dense, Layer, Network, Operation, Synapse
from .linear import apply
from .loihi import MANTISSA_MAX, MANTISSA_MIN, host_factor
from .neurons import Sum

Bound = NDArray[np.float64]
Bounds = tuple[Bound, Bound]
"""(P, N), both >= 0: a value lies in [-N, P]."""


def _through_operation(operation: Operation, bounds: Bounds) -> Bounds:
    """Bounds (1, *shape) of an operation's input to those of its output, biases included.

    A positive weight carries P to P and N to N, a negative one crosses them over.
    """
    p, n = bounds
    if not isinstance(operation, (Dense, Conv)):
        return apply(operation, p), apply(operation, n)
    bias = operation.bias
    up = replace(
        operation,
        weight=np.maximum(operation.weight, 0),
        bias=None if bias is None else np.maximum(bias, 0),
    )
    down = replace(
        operation,
        weight=np.maximum(-operation.weight, 0),
        bias=None if bias is None else np.maximum(-bias, 0),
    )
    if not n.any():
        return apply(up, p), apply(down, p)
    crossed_up, crossed_down = replace(up, bias=None), replace(down, bias=None)
    return apply(up, p) + apply(crossed_down, n), apply(down, p) + apply(crossed_up, n)


def _through_synapse(synapse: Synapse, bounds: Bounds) -> Bounds:
    """Bounds (1, *source shape) through all operations of a synapse, (1, *layer shape)."""
    for operation in synapse.operations:
        bounds = _through_operation(operation, bounds)
    return bounds


def host_bias(bounds: Bounds, scale: float, exponent: int) -> Bounds:
    """Bounds of the bias that the host writes for a float32 current, in membrane units.

    One mantissa above the exact one: the current is a rounded sum.
    """

    def reach(side: Bound, limit: int) -> Bound:
        mantissa = np.where(side > 0, np.floor(side * host_factor(scale, exponent)) + 1, 0)
        whole = np.minimum(mantissa, limit).astype(np.int64)
        return np.asarray(loihi_bias(whole, exponent), np.float64)

    return reach(bounds[0], MANTISSA_MAX), reach(bounds[1], -MANTISSA_MIN)


def step_bounds(arithmetic: Integer, layer: Layer, bounds: Bounds) -> Bounds:
    """Bounds of what one step adds, in membrane units, bias included, from those of the sum."""
    scale = arithmetic.host_scale.get(layer.name)
    if scale is None:
        return bounds[0] * 2**WEIGHT_SHIFT, bounds[1] * 2**WEIGHT_SHIFT
    return host_bias(bounds, scale, arithmetic.bias_exponents[layer.name])


def _passed_on(network: Network, layer: Layer, bounds: Bounds) -> Bounds:
    """What a `Sum` layer emits, given the bounds of its sum; in integers, membrane units."""
    arithmetic = network.contract.arithmetic
    return step_bounds(arithmetic, layer, bounds) if isinstance(arithmetic, Integer) else bounds


def term_sums(network: Network) -> dict[str, Bounds]:
    """Per layer (P, N), float64 of the layer's shape: the sums of positive and negative terms.

    Real borders (zero padding) count, biases are included, all synapses add. The input lies in
    [0, input_scale*input_levels], a spike is at most 1, a `Sum` layer at most its own P and N. In
    weight units, of an integer network too; there a layer whose current the host computes is in
    units of that float current. Exact wherever the sums fit 53 bits, as on a grid.
    Raises RequestError (E_LAYER) for a source whose values are not known yet.
    """
    contract = network.contract
    largest = float(contract.input_scale) * contract.input_levels
    shape = network.input_shape
    sources: dict[str, Bounds] = {network.input: (np.full(shape, largest), np.zeros(shape))}
    for layer in network.layers:
        if not isinstance(layer.neuron, Sum):  # known beforehand, for the edges that look back
            sources[layer.name] = (np.ones(layer.shape), np.zeros(layer.shape))
    found: dict[str, Bounds] = {}
    for layer in network.layers:
        p, n = np.zeros((1, *layer.shape)), np.zeros((1, *layer.shape))
        for synapse in layer.synapses:
            if synapse.source not in sources:
                raise RequestError(
                    "E_LAYER",
                    f"layer '{layer.name}' is fed by '{synapse.source}', whose values cannot be "
                    "bounded: it is no spiking layer and does not come earlier",
                )
            source = sources[synapse.source]
            more_p, more_n = _through_synapse(synapse, (source[0][None], source[1][None]))
            p, n = p + more_p, n + more_n
        found[layer.name] = (p[0], n[0])
        if isinstance(layer.neuron, Sum):
            sources[layer.name] = _passed_on(network, layer, found[layer.name])
    return found


def bias_sums(network: Network, layer: Layer) -> Bounds:
    """The share of the biases in a layer's `term_sums`: (P, N) with silent sources."""
    p, n = np.zeros((1, *layer.shape)), np.zeros((1, *layer.shape))
    for synapse in layer.synapses:
        silent = np.zeros((1, *network.shape_of(synapse.source)))
        more_p, more_n = _through_synapse(synapse, (silent, silent))
        p, n = p + more_p, n + more_n
    return p[0], n[0]
