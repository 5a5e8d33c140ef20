"""The forms of a network as ONNX models, each made of the nodes of one step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ...errors import RequestError
from ...network.layers import Network
from ...network.step_graph import (
    BATCH,
    DOMAIN,
    MAX_BYTES,
    MOST_UNROLLED,
    Axes,
    Form,
    at,
    inputs,
    metadata,
    outputs,
    states,
)
from ._onnx_graph import StepGraph, step_graph
from ._onnx_neurons import OPSET

OPSETS = {"": OPSET, DOMAIN: 1}
IR_VERSION = 10
Parts = tuple[list[onnx.NodeProto], dict[str, Axes]]
"""Nodes, and the axes of the values that stay inside."""


def _infos(values: dict[str, Axes]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)
        for name, axes in values.items()
    ]


def _step(graph: StepGraph) -> Parts:
    return graph.nodes, {name: (BATCH, *shape) for name, shape in graph.values.items()}


def _marks(graph: StepGraph, step: int | str, after: int | str) -> dict[str, str]:
    """The names of a step's values where several steps stand in one graph."""
    following = {f"{name}.next": at(name, after) for name in states(graph.network)}
    return {name: following.get(name, at(name, step)) for name in graph.values}


def _renamed(
    nodes: Iterable[onnx.NodeProto], marks: dict[str, str], step: int | str
) -> list[onnx.NodeProto]:
    """Copies of nodes that read and give the marked values; weights keep their names."""
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = at(node.name, step)
        copy.input[:] = [marks.get(name, name) for name in node.input]
        copy.output[:] = [marks[name] for name in node.output]
        copies.append(copy)
    return copies


def _zeros(graph: StepGraph) -> list[onnx.NodeProto]:
    """The states before the first step, ``<state>@0``; their batch size is that of ``x``."""
    nodes = [helper.make_node("Shape", ["x"], [BATCH], "batch", start=1, end=2)]
    for name, shape in states(graph.network).items():
        sizes = graph.weight(f"{name}.sizes", np.array(shape, np.int64))
        axes, start = f"{name}.axes", at(name, 0)
        nodes.append(helper.make_node("Concat", [BATCH, sizes], [axes], axes, axis=0))
        nodes.append(helper.make_node("ConstantOfShape", [axes], [start], start))
    return nodes


def _scan(graph: StepGraph) -> Parts:
    """A Scan over the first axis of ``x`` whose body is the step."""
    kept, collected = states(graph.network), list(outputs(graph.network, "scan"))
    marks = _marks(graph, "t", "t+1")
    axes: dict[str, Axes] = {marks[name]: (BATCH, *graph.values[name]) for name in graph.values}
    entering = [marks[name] for name in [*kept, "x"]]
    leaving = [marks[name] for name in [*(f"{name}.next" for name in kept), *collected]]
    body = helper.make_graph(
        _renamed(graph.nodes, marks, "t"),
        "step",
        _infos({name: axes[name] for name in entering}),
        _infos({name: axes[name] for name in leaving}),
        value_info=_infos({k: v for k, v in axes.items() if k not in {*entering, *leaving}}),
    )
    first, last = ([at(name, step) for name in kept] for step in (0, "T"))
    scan = helper.make_node(
        "Scan", [*first, "x"], [*last, *collected], "steps", body=body, num_scan_inputs=1
    )
    ends: dict[str, Axes] = {at(k, step): (BATCH, *kept[k]) for step in (0, "T") for k in kept}
    return [*_zeros(graph), scan], ends


def _unrolled(graph: StepGraph) -> Parts:
    """All steps of the contract one behind the other, without control flow."""
    steps = graph.network.contract.steps
    if steps > MOST_UNROLLED:
        raise RequestError(
            "E_RANGE",
            f"target 'onnx' cannot unroll {steps} steps, at most {MOST_UNROLLED}; form 'scan' "
            "takes any number",
        )
    nodes, hidden = _zeros(graph), dict[str, Axes]()
    for t in range(steps):
        marks = _marks(graph, t, t + 1)
        number = graph.weight(at("t", t), np.array(t, np.int64))
        nodes.append(helper.make_node("Gather", ["x", number], [at("x", t)], at("x", t), axis=0))
        nodes += _renamed(graph.nodes, marks, t)
        hidden |= {marks[name]: (BATCH, *shape) for name, shape in graph.values.items()}
    front = graph.weight("front", np.array([0], np.int64))
    for name in outputs(graph.network, "unrolled"):
        rows = [f"{at(name, t)}:row" for t in range(steps)]
        nodes += [
            helper.make_node("Unsqueeze", [at(name, t), front], [row], row)
            for t, row in enumerate(rows)
        ]
        nodes.append(helper.make_node("Concat", rows, [name], name, axis=0))
    return nodes, hidden


def build(network: Network, form: Form) -> onnx.ModelProto:
    """The network as an ONNX model of a form.

    Raises RequestError: E_NAME when two values would get one name, E_RANGE for more steps than are
    unrolled.
    """
    graph = step_graph(network)
    nodes, hidden = {"step": _step, "scan": _scan, "unrolled": _unrolled}[form](graph)
    entering, leaving = inputs(network, form), outputs(network, form)
    model = helper.make_model(
        helper.make_graph(
            nodes,
            form,
            _infos(entering),
            _infos(leaving),
            initializer=graph.weights,
            value_info=_infos({k: v for k, v in hidden.items() if k not in {*entering, *leaving}}),
        ),
        functions=[graph.functions[name] for name in sorted(graph.functions)],
        opset_imports=[helper.make_opsetid(name, version) for name, version in OPSETS.items()],
        ir_version=IR_VERSION,
        producer_name="snnpipe",
    )
    helper.set_model_props(model, metadata(network, form))
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
    """Facts for the manifest: versions, the names at both ends and of the functions."""
    return {
        "opset": OPSETS[""],
        "ir_version": model.ir_version,
        "inputs": [value.name for value in model.graph.input],
        "outputs": [value.name for value in model.graph.output],
        "functions": [function.name for function in model.functions],
    }
