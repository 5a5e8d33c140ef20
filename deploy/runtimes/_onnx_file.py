"""Reads a step graph with suspicion: it must be one of ours, whole, and of the network at hand.

Nothing outside the file is read, and nothing but a short list of operators gets to onnxruntime.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from ...errors import RequestError
from ...network import step_graph
from ...network.layers import Network, Shape
from ...network.step_graph import BATCH, DOMAIN, MAX_BYTES, current_of, value_of

MAX_VALUES = 2**27
"""Numbers in one value of one sample."""
MAP = frozenset({"Conv", "Gemm", "Add", "Div", "Reshape", "Identity"})
"""Operators between the layers."""
STEP = frozenset({"Add", "Sub", "Mul", "Greater", "GreaterOrEqual", "Cast"})
"""Operators within the step of a neuron."""
PLAIN = frozenset({AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT})
"""Attributes that hold numbers; the others could hold tensors and graphs."""


def read_step_model(path: Path, network: Network) -> onnx.ModelProto:
    """The step graph in ``path`` with every layer's current and spikes as further outputs.

    Raises RequestError (E_ONNX) with the first thing that is not as the target wrote it.
    """
    model = _parse(path)
    _check_metadata(model, network, path)
    _check_operators(model, path)
    _check_weights(model, path)
    _open_up(model, network, path)
    try:
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        UnicodeDecodeError,  # a damaged name, met while onnx words its refusal
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


def _check_metadata(model: onnx.ModelProto, network: Network, path: Path) -> None:
    found = {entry.key: entry.value for entry in model.metadata_props}
    expected = step_graph.metadata(network)
    if found.get("snnpipe.form") != expected["snnpipe.form"]:
        raise _wrong(
            path,
            f"its snnpipe.form is {found.get('snnpipe.form')!r}, expected 'step'; this runtime "
            "runs only files that target 'onnx' wrote",
        )
    if found.get("snnpipe.contract") != expected["snnpipe.contract"]:
        raise _wrong(path, "its contract is not the network's; export it again")
    if found != expected:
        raise _wrong(path, "it was written for another network; export it again")


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    domains = {entry.domain for entry in model.opset_import}
    domains |= {function.domain for function in model.functions}
    if unknown := sorted(domains - {"", DOMAIN}):
        raise _wrong(path, f"it uses the operator domain '{unknown[0]}'; only ONNX's own is known")
    functions = {function.name for function in model.functions}
    _check_nodes(model.graph.node, MAP, functions, path)
    for function in model.functions:
        _check_nodes(function.node, STEP, set(), path)


def _check_nodes(
    nodes: Iterable[onnx.NodeProto], plain: frozenset[str], functions: set[str], path: Path
) -> None:
    for node in nodes:
        if node.op_type not in (functions if node.domain == DOMAIN else plain):
            raise _wrong(
                path,
                f"node '{node.name}' is a '{node.op_type}' of domain '{node.domain}', which "
                "target 'onnx' never writes",
            )
        for attribute in node.attribute:
            if attribute.type not in PLAIN:
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


def _open_up(model: onnx.ModelProto, network: Network, path: Path) -> None:
    """Declare both ends as the network has them, and what is hidden as further outputs.

    The full check behind this then holds every shape in the file against the network's.
    """
    inputs, outputs = step_graph.inputs(network), step_graph.outputs(network)
    for found, expected in ((model.graph.input, inputs), (model.graph.output, outputs)):
        if [value.name for value in found] != list(expected):
            raise _wrong(
                path,
                f"its ends are {', '.join(str(value.name) for value in found)}; this network's are "
                f"{', '.join(expected)}",
            )
    for layer in network.layers:
        outputs |= {current_of(layer): layer.shape, value_of(layer): layer.shape}
    hidden = [v for v in model.graph.value_info if v.name not in outputs]
    for field, values in (
        (model.graph.input, [_info(*item) for item in inputs.items()]),
        (model.graph.output, [_info(*item) for item in outputs.items()]),
        (model.graph.value_info, hidden),
    ):
        del field[:]
        field.extend(values)


def _check_sizes(model: onnx.ModelProto, path: Path) -> None:
    """A short file can ask for much memory, by the padding of a convolution for one."""
    for value in model.graph.value_info:
        size = math.prod(axis.dim_value for axis in value.type.tensor_type.shape.dim[1:])
        if size > MAX_VALUES:
            raise _wrong(
                path, f"the value '{value.name}' holds {size} numbers, at most {MAX_VALUES} may be"
            )


def _info(name: str, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape])
