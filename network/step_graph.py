"""The step graph: one step of a network as an ONNX file, and the names that its writer and its
reader must agree on.

Inputs are ``x`` and ``v.<layer>`` for every layer with a state, zero before the first step; outputs
the output layer's value and ``v.<layer>.next``. Every value has the batch as its first axis.
"""

from __future__ import annotations

from .graph import graph_sha256
from .layers import Layer, Network, Shape
from .neurons import Sum

FILE = "network.onnx"
DOMAIN = "snnpipe"
"""Operator domain of the neurons' steps."""
BATCH = "N"
MAX_BYTES = 2**31 - 1
"""Where protobuf, and with it an ONNX file, ends."""


def current_of(layer: Layer) -> str:
    """Name of the value that is a layer's complete current."""
    return f"{layer.name}:current"


def value_of(layer: Layer) -> str:
    """Name of the value that leaves a layer: its spikes, or the current of a Sum."""
    return current_of(layer) if isinstance(layer.neuron, Sum) else f"{layer.name}:spikes"


def states(network: Network) -> dict[str, Shape]:
    """Names and shapes of the membranes, in the order of layers; ``<name>.next`` after the step."""
    spiking = (layer for layer in network.layers if not isinstance(layer.neuron, Sum))
    return {f"v.{layer.name}": layer.shape for layer in spiking}


def inputs(network: Network) -> dict[str, Shape]:
    """Names and shapes (batch left out) of what goes in, in order."""
    return {"x": network.input_shape, **states(network)}


def outputs(network: Network) -> dict[str, Shape]:
    """Names and shapes (batch left out) of what comes out, in order."""
    output = network.layer(network.output)
    after = {f"{name}.next": shape for name, shape in states(network).items()}
    return {value_of(output): output.shape, **after}


def metadata(network: Network) -> dict[str, str]:
    """What the file says of itself; a reader holds all of it against its network."""
    return {
        "snnpipe.contract": network.contract.to_json(),
        "snnpipe.form": "step",
        "snnpipe.graph_sha256": graph_sha256(network),
        "snnpipe.T": str(network.contract.steps),
    }
