"""Random integer networks that a Loihi-style chip can hold, made from the float generator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import random_networks
from hypothesis import assume
from hypothesis import strategies as st
from snnpipe.errors import RequestError
from snnpipe.network.check import check
from snnpipe.network.contract import Contract, Integer
from snnpipe.network.layers import AvgPool, Conv, Dense, Layer, Network, Operation, SumPool
from snnpipe.network.neurons import IF, LIF, Sum

EXPONENT = 3


def _operation(operation: Operation) -> Operation:
    """Weights to even numbers, biases to multiples of 2^EXPONENT / 64."""
    if isinstance(operation, (Dense, Conv)):
        bias = operation.bias
        return replace(
            operation,
            weight=np.rint(operation.weight * 2) * 2,
            bias=None if bias is None else np.rint(bias * 99) * np.float32(2**EXPONENT / 64),
        )
    if isinstance(operation, AvgPool):
        return SumPool(operation.name, operation.kernel, operation.stride, operation.padding)
    return operation


def _layer(layer: Layer) -> Layer:
    synapses = tuple(
        replace(synapse, operations=tuple(map(_operation, synapse.operations)))
        for synapse in layer.synapses
    )
    neuron = layer.neuron
    if isinstance(neuron, Sum):
        return replace(layer, synapses=synapses)
    threshold = np.rint(neuron.threshold * 8)
    if isinstance(neuron, LIF):
        decay = np.rint(neuron.decay * 4096 * np.float32(0.9)) / np.float32(4096)
        return replace(layer, neuron=LIF(decay, threshold), synapses=synapses)
    return replace(layer, neuron=IF(threshold), synapses=synapses)


@st.composite
def integer_networks(draw: Any, branches: bool = True) -> Network:
    """A random network of level ``integer``, weights of 8 bits, some currents from the host."""
    network = draw(random_networks.networks(False, branches, 3, random_networks.FLOAT_ONLY))
    layers = tuple(_layer(layer) for layer in network.layers)
    exponents = {layer.name: EXPONENT for layer in layers}
    host = {layers[0].name: 20} if draw(st.booleans()) else {}
    if host:  # the host computes this current in float: any weights will do
        layers = (network.layers[0], *layers[1:])
        layers = (replace(layers[0], neuron=_layer(layers[0]).neuron), *layers[1:])
    contract = Contract(draw(st.integers(1, 4)), arithmetic=Integer(8, exponents, host))
    made = replace(network, layers=layers, contract=contract)
    try:
        check(made, "integer")
    except RequestError as error:
        assume(error.code != "E_RANGE")
        raise
    return made
