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
from .layers import Layer, Network, Operation, Scale, Synapse, Weighted
from .linear import apply
from .loihi import MANTISSA_MAX, MANTISSA_MIN, host_factor
from .loops import ordered
from .neurons import Spiking, Sum

Bound = NDArray[np.float64]
Bounds = tuple[Bound, Bound]
"""(P, N), both >= 0: a value lies in [-N, P]."""


def _positive(operation: Weighted, sign: int, biased: bool) -> Weighted:
    """An operation with the weights of one sign, as magnitudes, with or without its biases."""
    if isinstance(operation, Scale):
        return replace(operation, scale=np.maximum(sign * operation.scale, 0))
    bias = operation.bias if biased else None
    return replace(
        operation,
        weight=np.maximum(sign * operation.weight, 0),
        bias=None if bias is None else np.maximum(sign * bias, 0),
    )


def _through_operation(operation: Operation, bounds: Bounds) -> Bounds:
    """Bounds (1, *shape) of an operation's input to those of its output, biases included.

    A positive weight carries P to P and N to N, a negative one crosses them over.
    """
    p, n = bounds
    if not isinstance(operation, Weighted):
        return apply(operation, p), apply(operation, n)
    up, down = (apply(_positive(operation, sign, True), p) for sign in (1, -1))
    if not n.any():
        return up, down
    crossed_up, crossed_down = (apply(_positive(operation, sign, False), n) for sign in (1, -1))
    return up + crossed_down, down + crossed_up


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


def term_sums(network: Network) -> dict[str, Bounds]:
    """Per layer (P, N), float64 of the layer's shape: the sums of positive and negative terms.

    Real borders (zero padding) count, biases are included, all synapses add. The input lies in
    [0, input_scale*input_levels], a spike is at most 1, a `Sum` layer at most its own P and N. In
    weight units, of an integer network too; there a layer whose current the host computes is in
    units of that float current. Exact wherever the sums fit 53 bits, as on a grid. What a delay
    or a loop brings later is bounded like what comes at once.
    Raises RequestError (E_GRID) as `sums_first`.
    """
    contract = network.contract
    largest = float(contract.input_scale) * contract.input_levels
    shape = network.input_shape
    sources: dict[str, Bounds] = {network.input: (np.full(shape, largest), np.zeros(shape))}
    for layer in network.layers:
        sources[layer.name] = (np.ones(layer.shape), np.zeros(layer.shape))
    found: dict[str, Bounds] = {}
    for layer in sums_first(network):
        p, n = np.zeros((1, *layer.shape)), np.zeros((1, *layer.shape))
        for synapse in layer.synapses:
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
