"""The ONNX forms of a network: the names and shapes that their writer and reader must agree on.

``step``: one step. Inputs are ``x`` (N, *input_shape) and the states, all zero before the first
step; outputs the output layer's values and every state after the step, ``<state>.next``. States:

    v.<layer>      membrane, (N, *shape)
    i.<layer>      synaptic current of a Cuba neuron, (N, *shape)
    s.<layer>      values of the last step, where they feed a recurrent synapse, (N, *shape)
    d.<operation>  what is under way in a delay of d > 0 steps, oldest first, (N, d, *shape)

``scan`` and ``unrolled``: all steps in one call, with T free in ``scan`` and the contract's in
``unrolled``. The input is ``x`` (T, N, *input_shape), a still frame repeated; outputs are the
output layer's values and the spikes of every other spiking layer, (T, N, *shape).

Within them a step's values carry a mark: ``<name>@<step>``, ``<name>@t`` in the body of the Scan.
"""

from __future__ import annotations

from typing import Literal

from .graph import graph_sha256
from .layers import Delay, Layer, Network, Shape
from .neurons import Cuba, Spiking, Stateful, Sum
from .shapes import shape_after

Form = Literal["step", "scan", "unrolled"]
Axes = tuple[int | str, ...]
"""A shape with the names of the axes that are free."""

FORMS: tuple[Form, ...] = ("step", "scan", "unrolled")
MOST_UNROLLED = 16
"""Steps of an unrolled graph; opening one takes time that grows faster than they do."""
DOMAIN = "snnpipe"
"""Operator domain of the neurons' steps."""
BATCH = "N"
TIME = "T"
MAX_BYTES = 2**31 - 1
"""Where protobuf, and with it an ONNX file, ends."""


def file_of(form: Form) -> str:
    """Name of the file of a form."""
    return "network.onnx" if form == "step" else f"network.{form}.onnx"


def current_of(layer: Layer) -> str:
    """Name of the value that is a layer's complete current."""
    return f"{layer.name}:current"


def value_of(layer: Layer) -> str:
    """Name of the value that leaves a layer: spikes, a membrane, or the current of a Sum."""
    if isinstance(layer.neuron, Sum):
        return current_of(layer)
    return f"{layer.name}:{'spikes' if isinstance(layer.neuron, Spiking) else 'membrane'}"


def at(name: str, step: int | str) -> str:
    """Name of a step's value where several steps stand in one graph."""
    return f"{name}@{step}"


def states(network: Network) -> dict[str, Shape]:
    """Names and shapes (batch left out) of what is kept between steps, in the order of layers."""
    found: dict[str, Shape] = {}
    recurrent = {
        synapse.source
        for layer in network.layers
        for synapse in layer.synapses
        if network.late(layer, synapse)
    }
    for layer in network.layers:
        if isinstance(layer.neuron, Stateful):
            found[f"v.{layer.name}"] = layer.shape
        if isinstance(layer.neuron, Cuba):
            found[f"i.{layer.name}"] = layer.shape
        if layer.name in recurrent:
            found[f"s.{layer.name}"] = layer.shape
        for synapse in layer.synapses:
            shape = network.shape_of(synapse.source)
            for operation in synapse.operations:
                shape = shape_after(operation, shape)
                if isinstance(operation, Delay) and operation.steps:
                    found[f"d.{operation.name}"] = (operation.steps, *shape)
    return found


def _front(network: Network, form: Form) -> Axes:
    """The axes in front of a sample's own."""
    if form == "step":
        return (BATCH,)
    return (network.contract.steps if form == "unrolled" else TIME, BATCH)


def inputs(network: Network, form: Form) -> dict[str, Axes]:
    """Names and axes of what goes in, in order."""
    kept = states(network) if form == "step" else {}
    front = _front(network, form)
    return {name: (*front, *shape) for name, shape in {"x": network.input_shape, **kept}.items()}


def outputs(network: Network, form: Form) -> dict[str, Axes]:
    """Names and axes of what comes out, in order."""
    output = network.layer(network.output)
    shapes = {value_of(output): output.shape}
    if form == "step":
        shapes |= {f"{name}.next": shape for name, shape in states(network).items()}
    else:
        spiking = (layer for layer in network.layers if isinstance(layer.neuron, Spiking))
        shapes |= {value_of(layer): layer.shape for layer in spiking}
    front = _front(network, form)
    return {name: (*front, *shape) for name, shape in shapes.items()}


def metadata(network: Network, form: Form) -> dict[str, str]:
    """What the file says of itself; a reader holds all of it against its network."""
    return {
        "snnpipe.contract": network.contract.to_json(),
        "snnpipe.form": form,
        "snnpipe.graph_sha256": graph_sha256(network),
        "snnpipe.T": str(network.contract.steps),
    }
