"""Reads an ONNX file with suspicion: it must be one of ours, whole, and of the network at hand.

Nothing outside the file is read, and nothing but a short list of operators gets to onnxruntime.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from ...errors import RequestError
from ...network import step_graph
from ...network.layers import Network
from ...network.step_graph import (
    BATCH,
    DOMAIN,
    MAX_BYTES,
    TIME,
    Axes,
    Form,
    at,
    current_of,
    states,
    value_of,
)

MAX_VALUES = 2**27
"""Numbers in one value of one sample."""
MAP = frozenset({"Conv", "Gemm", "Add", "Mul", "Div", "Reshape", "Identity"})
"""Operators between the layers."""
AROUND = frozenset({"Shape", "Concat", "ConstantOfShape", "Gather", "Unsqueeze"})
"""Operators that make the first states, and that take steps out of ``x`` and put them together."""
STEP = frozenset(
    {
        *("Add", "Sub", "Mul", "Greater", "GreaterOrEqual", "Cast", "Identity"),
        *("Constant", "Unsqueeze", "Concat", "Gather", "Slice"),
    }
)
"""Operators within the step of a neuron and within a delay."""
PLAIN = frozenset({AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT})
"""Attributes that hold numbers; the others could hold tensors and graphs."""


def read_model(path: Path, network: Network, form: Form) -> onnx.ModelProto:
    """The model in ``path`` with every layer's current and value as further outputs.

    In form ``unrolled`` these come step by step, ``<name>@<step>``. Raises RequestError (E_ONNX)
    with the first thing that is not as the target wrote it.
    """
    model = _parse(path)
    _check_metadata(model, step_graph.metadata(network, form), path)
    _check_operators(model, form, path)
    _check_weights(model, path)
    _open_up(model, network, form, path)
    try:
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(
            onnx.inliner.inline_local_functions(model), strict_mode=True, data_prop=True
        )
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        RuntimeError,  # what the inliner asserts, such as a call's number of inputs
        ValueError,  # a damaged type, or a damaged name, met while onnx words its refusal
    ) as error:
        reason = str(error).strip().partition("\n")[0]
        raise _wrong(path, f"it is not a valid graph of this network: {reason}") from error
    _check_sizes(inferred, path)
    return model


def _wrong(path: Path, sentence: str) -> RequestError:
    return RequestError("E_ONNX", f"{path}: {sentence}")


def _parse(path: Path) -> onnx.ModelProto:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise _wrong(path, f"it has {size} bytes; an ONNX file ends at {MAX_BYTES}")
        return onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise _wrong(
            path, f"cannot be read ({error.strerror or error}); export with target 'onnx'"
        ) from error
    except DecodeError as error:
        raise _wrong(path, "it is damaged, or not an ONNX file") from error


def _check_metadata(model: onnx.ModelProto, expected: Mapping[str, str], path: Path) -> None:
    found = {entry.key: entry.value for entry in model.metadata_props}
    form = expected["snnpipe.form"]
    if found.get("snnpipe.form") != form:
        raise _wrong(
            path,
            f"its snnpipe.form is {found.get('snnpipe.form')!r}, expected '{form}'; this runtime "
            "runs only files that target 'onnx' wrote",
        )
    if found.get("snnpipe.contract") != expected["snnpipe.contract"]:
        raise _wrong(path, "its contract is not the network's; export it again")
    if found != expected:
        raise _wrong(path, "it was written for another network; export it again")


def _scans(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, onnx.GraphProto]]:
    """Every Scan of a graph with its body."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield node, attribute.g


def _check_operators(model: onnx.ModelProto, form: Form, path: Path) -> None:
    domains = {entry.domain for entry in model.opset_import}
    domains |= {function.domain for function in model.functions}
    if unknown := sorted(domains - {"", DOMAIN}):
        raise _wrong(path, f"it uses the operator domain '{unknown[0]}'; only ONNX's own is known")
    functions = {function.name for function in model.functions}
    for function in model.functions:
        _check_nodes(function.node, STEP, set(), path)
    if form == "step":
        _check_nodes(model.graph.node, MAP, functions, path)
    elif form == "unrolled":
        _check_nodes(model.graph.node, MAP | AROUND, functions, path)
    else:
        _check_nodes(model.graph.node, AROUND | {"Scan"}, set(), path)
        bodies = [body for _, body in _scans(model.graph)]
        if len(bodies) != 1 or bodies[0].initializer or bodies[0].sparse_initializer:
            raise _wrong(path, "it is not one Scan over a step without weights of its own")
        _check_nodes(bodies[0].node, MAP, functions, path)


def _check_nodes(
    nodes: Iterable[onnx.NodeProto], plain: frozenset[str], functions: set[str], path: Path
) -> None:
    for node in nodes:
        if node.op_type not in (functions if node.domain == DOMAIN else plain):
            raise _wrong(
                path,
                f"node '{node.name}' is a '{node.op_type}' of domain '{node.domain}', which "
                "target 'onnx' does not write here",
            )
        for attribute in node.attribute:
            body = node.op_type == "Scan" and attribute.name == "body"
            if attribute.type not in ({AttributeProto.GRAPH} if body else PLAIN):
                raise _wrong(
                    path, f"node '{node.name}': attribute '{attribute.name}' holds no number"
                )


def _check_weights(model: onnx.ModelProto, path: Path) -> None:
    if model.graph.sparse_initializer or model.training_info:
        raise _wrong(path, "it holds sparse weights or training graphs")
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise _wrong(path, f"the weight '{tensor.name}' points to a file outside it")
        if tensor.data_type not in (TensorProto.FLOAT, TensorProto.INT64):
            raise _wrong(path, f"the weight '{tensor.name}' is neither float32 nor int64")
        try:
            values = numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise _wrong(path, f"the weight '{tensor.name}' does not fill its shape") from error
        if not np.isfinite(values).all():
            raise _wrong(path, f"the weight '{tensor.name}' holds numbers that are not finite")


def _open_up(model: onnx.ModelProto, network: Network, form: Form, path: Path) -> None:
    """Declare the ends as the network has them, and what is hidden as further outputs.

    The full check behind this then holds every shape in the file against the network's.
    """
    graph, collected = model.graph, step_graph.outputs(network, form)
    of_step: dict[str, Axes] = {
        name: (BATCH, *layer.shape)
        for layer in network.layers
        for name in (current_of(layer), value_of(layer))
    }
    hidden: dict[str, Axes] = {k: axes for k, axes in of_step.items() if k not in collected}
    more = hidden
    if form == "unrolled":
        steps = range(network.contract.steps)
        more = {at(name, t): axes for name, axes in hidden.items() for t in steps}
    elif form == "scan":
        ((scan, body),) = _scans(graph)
        kept: dict[str, Axes] = {name: (BATCH, *shape) for name, shape in states(network).items()}
        x: Axes = (BATCH, *network.input_shape)
        before = {at(name, "t"): axes for name, axes in {**kept, "x": x}.items()}
        after = {at(name, "t+1"): axes for name, axes in kept.items()}
        after |= {at(name, "t"): axes[1:] for name, axes in collected.items()}
        _declare(body, before, after, {at(name, "t"): axes for name, axes in hidden.items()}, path)
        scan.output.extend(hidden)
        more = {name: (TIME, *axes) for name, axes in hidden.items()}
    _declare(graph, step_graph.inputs(network, form), collected, more, path)


def _declare(
    graph: onnx.GraphProto,
    inputs: Mapping[str, Axes],
    outputs: Mapping[str, Axes],
    more: Mapping[str, Axes],
    path: Path,
) -> None:
    """Hold the names of a graph's ends against the network's, and declare them with ``more``."""
    for found, expected in ((graph.input, inputs), (graph.output, outputs)):
        if [value.name for value in found] != list(expected):
            raise _wrong(
                path,
                f"its ends are {', '.join(str(value.name) for value in found)}; this network's are "
                f"{', '.join(expected)}",
            )
    leaving = {**outputs, **more}
    inside = [value for value in graph.value_info if value.name not in leaving]
    for field, values in (
        (graph.input, [_info(*item) for item in inputs.items()]),
        (graph.output, [_info(*item) for item in leaving.items()]),
        (graph.value_info, inside),
    ):
        del field[:]
        field.extend(values)


def _check_sizes(model: onnx.ModelProto, path: Path) -> None:
    """A short file can ask for much memory, by the padding of a convolution for one."""
    for graph in (model.graph, *(body for _, body in _scans(model.graph))):
        for value in graph.value_info:
            axes = value.type.tensor_type.shape.dim
            sizes = [axis for axis in axes if axis.dim_param not in (BATCH, TIME)]
            if not all(axis.HasField("dim_value") for axis in sizes):
                raise _wrong(path, f"nothing says how many numbers the value '{value.name}' holds")
            size = math.prod(axis.dim_value for axis in sizes)
            if size > MAX_VALUES:
                raise _wrong(
                    path,
                    f"the value '{value.name}' holds {size} numbers, at most {MAX_VALUES} may be",
                )


def _info(name: str, axes: Axes) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)
