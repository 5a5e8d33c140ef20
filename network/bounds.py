"""How large every neuron's sum can become, in either direction, over any input in range.

The sum of a neuron is split into its positive and its negative terms: with ``P`` the largest value
the positive terms can reach together and ``N`` the largest magnitude of the negative ones, every
partial sum, in any order of summation, lies in [-N, P].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from .contract import Integer
from .dynamics import V_MAX, WEIGHT_SHIFT, loihi_bias
from .layers import Conv, Layer, Network, Operation, Scale, Synapse, Weighted
from .linear import apply
from .loihi import MANTISSA_MAX, MANTISSA_MIN, host_factor
from .loops import ordered
from .neurons import Spiking, Sum

Bound = NDArray[np.float64]
Bounds = tuple[Bound, Bound]
"""(P, N), both >= 0: a value lies in [-N, P]."""


def _signed(operation: Weighted, sign: int) -> Weighted:
    """An operation with the weights of one sign, as magnitudes, without its biases."""
    if isinstance(operation, Scale):
        return replace(operation, scale=np.maximum(sign * operation.scale, 0))
    return replace(operation, weight=np.maximum(sign * operation.weight, 0), bias=None)


def _with_bias(operation: Weighted, bounds: Bounds) -> Bounds:
    if isinstance(operation, Scale) or operation.bias is None:
        return bounds
    bias = operation.bias.reshape(-1, *[1] * (operation.weight.ndim - 2))
    return bounds[0] + np.maximum(bias, 0), bounds[1] + np.maximum(-bias, 0)


def _products(operation: Weighted, bounds: Bounds) -> Bounds:
    """Bounds (1, *shape) of an operation's input to those of its sum of products.

    A positive weight carries P to P and N to N, a negative one crosses them over.
    """
    p, n = bounds
    up, down = (apply(_signed(operation, sign), p) for sign in (1, -1))
    if not n.any():
        return up, down
    crossed_up, crossed_down = (apply(_signed(operation, sign), n) for sign in (1, -1))
    return up + crossed_down, down + crossed_up


def _stored(arithmetic: Integer, operation: Weighted, bounds: Bounds) -> Bounds:
    """What an integer operation makes of its sum: a convolution's 24 bits, then the exponent."""
    p, n = bounds
    if isinstance(operation, Conv):
        wraps = (p > V_MAX) | (n > V_MAX + 1)
        p, n = np.where(wraps, V_MAX, p), np.where(wraps, V_MAX + 1, n)
    unit = 2.0 ** arithmetic.weight_exponents.get(operation.name, 0)
    return np.floor(p * unit), np.ceil(n * unit)


def walk(
    synapse: Synapse, bounds: Bounds, arithmetic: Integer | None
) -> Iterator[tuple[Operation, Bounds, Bounds]]:
    """Bounds (1, *shape) of a source through a synapse: each operation, its sum of products, and
    what it gives, biases included. ``arithmetic``: of the integers, None in floats."""
    for operation in synapse.operations:
        if isinstance(operation, Weighted):
            products = _products(operation, bounds)
            stored = products if arithmetic is None else _stored(arithmetic, operation, products)
            bounds = _with_bias(operation, stored)
        else:
            products = bounds = (apply(operation, bounds[0]), apply(operation, bounds[1]))
        yield operation, products, bounds


def _through_synapse(network: Network, layer: Layer, synapse: Synapse, bounds: Bounds) -> Bounds:
    """Bounds (1, *source shape) through all operations of a synapse, (1, *layer shape)."""
    for _, _, given in walk(synapse, bounds, integers_of(network, layer)):
        bounds = given
    return bounds


def integers_of(network: Network, layer: Layer) -> Integer | None:
    """The integers that a layer's synapses are summed in; None in floats, on a host too."""
    arithmetic = network.contract.arithmetic
    if isinstance(arithmetic, Integer) and layer.name not in arithmetic.host_scale:
        return arithmetic
    return None


def host_bias_bounds(bounds: Bounds, scale: float, exponent: int) -> Bounds:
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
    return host_bias_bounds(bounds, scale, arithmetic.bias_exponents[layer.name])


def _passed_on(network: Network, layer: Layer, bounds: Bounds) -> Bounds:
    """What a `Sum` layer emits, given the bounds of its sum; in integers, membrane units."""
    arithmetic = network.contract.arithmetic
    return step_bounds(arithmetic, layer, bounds) if isinstance(arithmetic, Integer) else bounds


def sums_first(network: Network) -> list[Layer]:
    """The layers, every `Sum` before all that it feeds, recurrent synapses included.

    Raises RequestError (E_GRID) for what feeds a layer and is neither spikes nor a sum of them.
    """
    # Reversed: of layers that wait for nothing `ordered` takes the last.
    preds: dict[str, list[str]] = {layer.name: [] for layer in reversed(network.layers)}
    for layer in network.layers:
        for synapse in layer.synapses:
            source = network.by_name.get(synapse.source)
            if source is None or isinstance(source.neuron, Spiking):
                continue
            if not isinstance(source.neuron, Sum):
                raise RequestError(
                    "E_GRID",
                    f"layer '{layer.name}' is fed by the membranes of '{source.name}' "
                    f"({type(source.neuron).__name__}), which are rounded and lie on no grid",
                )
            preds[layer.name].append(source.name)
    try:
        return [network.layer(name) for name in ordered(preds)]
    except RequestError as error:
        raise RequestError(
            "E_GRID", f"the sums {error.message} feed each other and can grow at every step"
        ) from None


def source_bounds(network: Network, found: Mapping[str, Bounds]) -> dict[str, Bounds]:
    """Per source (P, N) of its values, float64 of its shape, from the `term_sums` known so far.

    The input lies in [0, input_scale*input_levels], a spike is at most 1, a `Sum` layer at most
    its own P and N, in integers in membrane units.
    """
    largest = float(network.contract.input_scale) * network.contract.input_levels
    shape = network.input_shape
    sources = {network.input: (np.full(shape, largest), np.zeros(shape))}
    for layer in network.layers:
        if not isinstance(layer.neuron, Sum):
            sources[layer.name] = (np.ones(layer.shape), np.zeros(layer.shape))
        elif layer.name in found:
            sources[layer.name] = _passed_on(network, layer, found[layer.name])
    return sources


def term_sums(network: Network) -> dict[str, Bounds]:
    """Per layer (P, N), float64 of the layer's shape: the sums of positive and negative terms.

    Real borders (zero padding) count, biases are included, all synapses add, each source within
    its `source_bounds`. In weight units, of an integer network too, where an exponent and a
    convolution's 24 bits count as in a run; there a layer whose current the host computes is in
    units of that float current. Exact wherever the sums fit 53 bits, as on a grid. What a delay
    or a loop brings later is bounded like what comes at once.
    Raises RequestError (E_GRID) as `sums_first`.
    """
    sources = source_bounds(network, {})
    found: dict[str, Bounds] = {}
    for layer in sums_first(network):
        p, n = np.zeros((1, *layer.shape)), np.zeros((1, *layer.shape))
        for synapse in layer.synapses:
            source_p, source_n = sources[synapse.source]
            bounds = (source_p[None], source_n[None])
            more_p, more_n = _through_synapse(network, layer, synapse, bounds)
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
        more_p, more_n = _through_synapse(network, layer, synapse, (silent, silent))
        p, n = p + more_p, n + more_n
    return p[0], n[0]
