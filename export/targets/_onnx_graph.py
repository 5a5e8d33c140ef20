"""The graph of one step of a network, built by hand so that its structure and names are the
network's; every form is made of it.

The order of operations is that of `network.dynamics`: a layer's current is complete, all synapses
and biases added, before anything else joins it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ...errors import RequestError
from ...network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Layer,
    Network,
    Operation,
    Scale,
    Shape,
    SumPool,
    Synapse,
)
from ...network.neurons import Sum
from ...network.shapes import shape_after
from ...network.step_graph import DOMAIN, current_of, states, value_of
from ._onnx_neurons import delay_function, neuron_function, used_parameters


@dataclass
class StepGraph:
    """The graph while it grows; every value has one name and a known shape (batch left out)."""

    network: Network
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    values: dict[str, Shape] = field(default_factory=dict)
    functions: dict[str, onnx.FunctionProto] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def claim(self, name: str) -> str:
        """A name that nothing else has; RequestError (E_NAME)."""
        if name in self.names:
            raise RequestError(
                "E_NAME",
                f"two values of the ONNX graph would be called '{name}'; rename the layer or the "
                "operation it comes from",
            )
        self.names.add(name)
        return name

    def value(self, name: str, shape: Shape) -> str:
        """A value that goes in or that a node gives."""
        self.values[self.claim(name)] = shape
        return name

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """A constant."""
        self.weights.append(numpy_helper.from_array(np.asarray(array, order="C"), self.claim(name)))
        return name

    def node(
        self, kind: str, name: str, inputs: Sequence[str], output: str, shape: Shape, **more: Any
    ) -> str:
        """A node of ONNX's own with one result."""
        made = helper.make_node(kind, inputs, [self.value(output, shape)], name, **more)
        self.nodes.append(made)
        return output

    def call(
        self,
        function: onnx.FunctionProto,
        name: str,
        inputs: Sequence[str],
        outputs: dict[str, Shape],
    ) -> None:
        """A node that calls a local function."""
        self.functions[function.name] = function
        results = [self.value(output, shape) for output, shape in outputs.items()]
        self.nodes.append(helper.make_node(function.name, inputs, results, name, domain=DOMAIN))


def _value(network: Network, layer: Layer, synapse: Synapse) -> str:
    """Name of what a synapse carries."""
    if synapse.source == network.input:
        return "x"
    if network.late(layer, synapse):
        return f"s.{synapse.source}"
    return value_of(network.layer(synapse.source))


def _window_sum(
    graph: StepGraph, op: SumPool | AvgPool, value: str, shape: Shape, output: str
) -> str:
    """Sum over windows as a depthwise convolution with ones: no division, so no rounding."""
    channels = graph.values[value][0]
    ones = np.ones((channels, 1, *op.kernel), np.float32)
    return graph.node(
        "Conv",
        op.name,
        [value, graph.weight(f"{op.name}.ones", ones)],
        output,
        shape,
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=[*op.padding, *op.padding],
        group=channels,
    )


def _weights(graph: StepGraph, op: Dense | Conv | Conv1d) -> list[str]:
    names = [graph.weight(f"{op.name}.weight", op.weight)]
    if op.bias is not None:
        names.append(graph.weight(f"{op.name}.bias", op.bias))
    return names


def _operation(graph: StepGraph, op: Operation, value: str, output: str) -> str:
    """One operation on a value; returns the name of its result."""
    shape = shape_after(op, graph.values[value])
    match op:
        case Dense():
            inputs = [value, *_weights(graph, op)]
            return graph.node("Gemm", op.name, inputs, output, shape, transB=1)
        case Conv() | Conv1d():
            padding = np.atleast_1d(op.padding).tolist()
            return graph.node(
                "Conv",
                op.name,
                [value, *_weights(graph, op)],
                output,
                shape,
                kernel_shape=op.weight.shape[2:],
                strides=np.atleast_1d(op.stride).tolist(),
                pads=[*padding, *padding],
                dilations=np.atleast_1d(op.dilation).tolist(),
                group=op.groups,
            )
        case Scale():
            # In front: a constant behind a convolution's result is folded into its weights by some
            # optimisers, and rounds differently there. The axis of 1 is the batch's.
            inputs = [graph.weight(f"{op.name}.scale", op.scale[np.newaxis]), value]
            return graph.node("Mul", op.name, inputs, output, shape)
        case Delay(steps=0):
            return graph.node("Identity", op.name, [value], output, shape)
        case Delay():
            past = f"d.{op.name}"
            after = {output: shape, f"{past}.next": (op.steps, *shape)}
            graph.call(delay_function(), op.name, [value, past], after)
            return output
        case SumPool():
            return _window_sum(graph, op, value, shape, output)
        case AvgPool():
            total = _window_sum(graph, op, value, shape, f"{op.name}:sum")
            area = np.array([op.kernel[0] * op.kernel[1]], np.float32)
            inputs = [total, graph.weight(f"{op.name}.area", area)]
            return graph.node("Div", f"{op.name}.mean", inputs, output, shape)
        case Flatten():
            # A 0 keeps the batch as it is; the rest is explicit.
            sizes = graph.weight(f"{op.name}.shape", np.array([0, *shape], np.int64))
            return graph.node("Reshape", op.name, [value, sizes], output, shape)


def _through(graph: StepGraph, layer: Layer, synapse: Synapse, result: str | None) -> str:
    """A synapse's operations on its source; the last value is called ``result`` where given."""
    value = _value(graph.network, layer, synapse)
    last = len(synapse.operations) - 1
    for index, op in enumerate(synapse.operations):
        output = result if result is not None and index == last else f"{op.name}:out"
        value = _operation(graph, op, value, output)
    return value


def _current(graph: StepGraph, layer: Layer) -> None:
    """A layer's complete current."""
    name = current_of(layer)
    if len(layer.synapses) == 1:
        value = _through(graph, layer, layer.synapses[0], name)
        if value != name:
            graph.node("Identity", f"{layer.name}.current", [value], name, layer.shape)
        return
    total, *rest = (_through(graph, layer, synapse, None) for synapse in layer.synapses)
    for index, term in enumerate(rest, 1):
        output = name if index == len(rest) else f"{layer.name}:sum{index}"
        total = graph.node("Add", f"{layer.name}.add{index}", [total, term], output, layer.shape)


def _neuron(graph: StepGraph, layer: Layer) -> None:
    """A population's step: one call of the function that neuron and contract ask for."""
    neuron, contract = layer.neuron, graph.network.contract
    if isinstance(neuron, Sum):
        return
    kept = [name for name in (f"v.{layer.name}", f"i.{layer.name}") if name in graph.values]
    inputs = [current_of(layer), *kept]
    for name, values in used_parameters(neuron, contract).items():
        # With an axis of 1 for the batch the parameter broadcasts against (N, *shape).
        inputs.append(graph.weight(f"{layer.name}.{name}", values[np.newaxis]))
    results = [value_of(layer), *(f"{name}.next" for name in kept)]
    shapes = dict.fromkeys(results, layer.shape)
    graph.call(neuron_function(neuron, contract), layer.name, inputs, shapes)


def step_graph(network: Network) -> StepGraph:
    """One step of a network: its nodes, weights, values and functions.

    Raises RequestError (E_NAME) when two values would get one name.
    """
    graph = StepGraph(network)
    for name, shape in {"x": network.input_shape, **states(network)}.items():
        graph.value(name, shape)
    for layer in network.layers:
        _current(graph, layer)
        _neuron(graph, layer)
        if (last := f"s.{layer.name}") in graph.values:
            name, value = f"{layer.name}.last", value_of(layer)
            graph.node("Identity", name, [value], f"{last}.next", layer.shape)
    return graph
