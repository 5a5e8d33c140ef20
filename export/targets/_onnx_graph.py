"""The step graph of a network, built by hand so that its structure and names are the network's.

The order of operations is that of `network.dynamics`: a layer's current is complete, all synapses
and biases added, before the decayed membrane joins it; product and sum stay two operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...errors import RequestError
from ...network import step_graph
from ...network.layers import (
    AvgPool,
    Conv,
    Dense,
    Flatten,
    Layer,
    Network,
    Operation,
    Shape,
    SumPool,
    Synapse,
)
from ...network.neurons import LIF, Sum, decay_of
from ...network.shapes import shape_after
from ...network.step_graph import BATCH, DOMAIN, MAX_BYTES, current_of, value_of

OPSETS = {"": 21, DOMAIN: 1}
IR_VERSION = 10


@dataclass
class _Graph:
    """The graph while it grows; every value has one name and a known shape (batch left out)."""

    network: Network
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    values: dict[str, Shape] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)

    def claim(self, name: str) -> str:
        if name in self.names:
            raise RequestError(
                "E_NAME",
                f"two values of the ONNX graph would be called '{name}'; rename the layer or the "
                "operation it comes from",
            )
        self.names.add(name)
        return name

    def weight(self, name: str, array: NDArray[Any]) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), self.claim(name)))
        return name

    def node(
        self, kind: str, name: str, inputs: Sequence[str], output: str, shape: Shape, **more: Any
    ) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [self.claim(output)], name, **more))
        self.values[output] = shape
        return output


def _value(network: Network, source: str) -> str:
    return "x" if source == network.input else value_of(network.layer(source))


def _window_sum(graph: _Graph, op: SumPool | AvgPool, value: str, shape: Shape, output: str) -> str:
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


def _weights(graph: _Graph, op: Dense | Conv) -> list[str]:
    names = [graph.weight(f"{op.name}.weight", op.weight)]
    if op.bias is not None:
        names.append(graph.weight(f"{op.name}.bias", op.bias))
    return names


def _operation(graph: _Graph, op: Operation, value: str, output: str) -> str:
    """One operation on a value; returns the name of its result."""
    shape = shape_after(op, graph.values[value])
    match op:
        case Dense():
            inputs = [value, *_weights(graph, op)]
            return graph.node("Gemm", op.name, inputs, output, shape, transB=1)
        case Conv():
            return graph.node(
                "Conv",
                op.name,
                [value, *_weights(graph, op)],
                output,
                shape,
                kernel_shape=op.weight.shape[2:],
                strides=op.stride,
                pads=[*op.padding, *op.padding],
                dilations=op.dilation,
                group=op.groups,
            )
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


def _through(graph: _Graph, synapse: Synapse, result: str | None) -> str:
    """A synapse's operations on its source; the last value is called ``result`` where given."""
    value = _value(graph.network, synapse.source)
    last = len(synapse.operations) - 1
    for index, op in enumerate(synapse.operations):
        output = result if result is not None and index == last else f"{op.name}:out"
        value = _operation(graph, op, value, output)
    return value


def _current(graph: _Graph, layer: Layer) -> str:
    """A layer's complete current; returns its name."""
    name = current_of(layer)
    if len(layer.synapses) == 1:
        value = _through(graph, layer.synapses[0], name)
        if value != name:
            graph.node("Identity", f"{layer.name}.current", [value], name, layer.shape)
        return name
    total, *rest = (_through(graph, synapse, None) for synapse in layer.synapses)
    for index, term in enumerate(rest, 1):
        output = name if index == len(rest) else f"{layer.name}:sum{index}"
        total = graph.node("Add", f"{layer.name}.add{index}", [total, term], output, layer.shape)
    return name


def _step(graph: _Graph, layer: Layer, current: str) -> None:
    """A population's step: one call of the function that the contract asks for."""
    neuron = layer.neuron
    if isinstance(neuron, Sum):
        return
    inputs = [current, graph.claim(f"v.{layer.name}")]
    parameters = {"threshold": neuron.threshold}
    if isinstance(neuron, LIF):
        parameters = {"decay": decay_of(neuron), **parameters}
    if graph.network.contract.reset == "value":
        parameters["v_reset"] = neuron.v_reset
    for name, values in parameters.items():
        # With an axis of 1 for the batch the parameter broadcasts against (N, *shape).
        inputs.append(graph.weight(f"{layer.name}.{name}", values[np.newaxis]))
    outputs = [value_of(layer), f"v.{layer.name}.next"]
    contract = graph.network.contract
    function = f"{type(neuron).__name__}_{contract.compare}_{contract.reset}"
    graph.functions.add(function)
    for output in outputs:
        graph.values[graph.claim(output)] = layer.shape
    graph.nodes.append(helper.make_node(function, inputs, outputs, layer.name, domain=DOMAIN))


def neuron_function(name: str) -> onnx.FunctionProto:
    """The local function of a step, such as ``LIF_gt_value``, as `network.dynamics` defines it."""
    neuron, compare, reset = name.split("_")
    leaky, value = neuron == "LIF", reset == "value"
    node = helper.make_node
    nodes = [node("Mul", ["decay", "v"], ["kept"])] if leaky else []
    nodes += [
        node("Add", ["kept" if leaky else "v", "current"], ["u"]),
        node("GreaterOrEqual" if compare == "ge" else "Greater", ["u", "threshold"], ["fires"]),
        node("Cast", ["fires"], ["spikes"], to=TensorProto.FLOAT),
    ]
    if value:
        nodes += [
            node("Mul", ["u", "spikes"], ["fallen"]),
            node("Sub", ["u", "fallen"], ["stayed"]),
            node("Mul", ["v_reset", "spikes"], ["rest"]),
            node("Add", ["stayed", "rest"], ["v_next"]),
        ]
    else:
        nodes += [
            node("Mul", ["threshold", "spikes"], ["fallen"]),
            node("Sub", ["u", "fallen"], ["v_next"]),
        ]
    function = helper.make_function(
        DOMAIN,
        name,
        ["current", "v", *(["decay"] if leaky else []), "threshold"]
        + (["v_reset"] if value else []),
        ["spikes", "v_next"],
        nodes,
        [helper.make_opsetid("", OPSETS[""])],
    )
    function.doc_string = "; ".join(
        [
            "u = decay*v + current" if leaky else "u = v + current",
            f"spikes = u {'>=' if compare == 'ge' else '>'} threshold",
            "v_next = u - u*spikes + v_reset*spikes" if value else "v_next = u - threshold*spikes",
        ]
    )
    return function


def _info(name: str, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape])


def step_model(network: Network) -> onnx.ModelProto:
    """The network as an ONNX model of one step."""
    graph = _Graph(network)
    graph.values[graph.claim("x")] = network.input_shape
    for layer in network.layers:
        _step(graph, layer, _current(graph, layer))
    inputs, outputs = step_graph.inputs(network), step_graph.outputs(network)
    hidden = [name for name in graph.values if name not in {"x", *outputs}]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "step",
            [_info(name, shape) for name, shape in inputs.items()],
            [_info(name, shape) for name, shape in outputs.items()],
            initializer=graph.weights,
            value_info=[_info(name, graph.values[name]) for name in hidden],
        ),
        functions=[neuron_function(name) for name in sorted(graph.functions)],
        opset_imports=[helper.make_opsetid(name, version) for name, version in OPSETS.items()],
        ir_version=IR_VERSION,
        producer_name="snnpipe",
    )
    helper.set_model_props(model, step_graph.metadata(network))
    return model


def encode(model: onnx.ModelProto) -> bytes:
    """The bytes of a model that passes onnx's full check; equal models give equal bytes.

    Raises RequestError (E_RANGE) for a model above 2 GiB, which protobuf cannot hold.
    """
    size = model.ByteSize()
    if size > MAX_BYTES:
        raise RequestError(
            "E_RANGE", f"the ONNX file would have {size} bytes; the format ends at {MAX_BYTES}"
        )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def describe(model: onnx.ModelProto) -> dict[str, Any]:
    """Facts for the manifest: form, versions, the names at both ends and of the functions."""
    return {
        "form": "step",
        "opset": OPSETS[""],
        "ir_version": model.ir_version,
        "inputs": [value.name for value in model.graph.input],
        "outputs": [value.name for value in model.graph.output],
        "functions": [function.name for function in model.functions],
    }
