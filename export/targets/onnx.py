"""ONNX: one step of the network as a graph with its states as inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import CouldNotRunError, RequestError
from ...network.contract import Integer
from ...network.layers import AvgPool, Conv, Dense, Flatten, Layer, Network, SumPool
from ...network.neurons import IF, LIF, Sum

FILE = "network.onnx"

TABLE: Mapping[type, str | None] = {
    Dense: None,
    Conv: None,
    SumPool: None,
    AvgPool: None,
    Flatten: None,
    LIF: None,
    IF: None,
    Sum: None,
}
"""Operation or neuron type to None (handled) or to the reason why it is refused."""


def _unsupported(sentence: str) -> RequestError:
    return RequestError("E_UNSUPPORTED", f"target 'onnx' cannot write {sentence}")


def _refuse(network: Network) -> None:
    if isinstance(network.contract.arithmetic, Integer):
        raise _unsupported(
            f"a network in integer arithmetic ({network.contract.arithmetic.weight_bits}-bit "
            "weights): its graph computes in float32; export integer networks with 'lava'"
        )
    earlier = {network.input}
    for layer in network.layers:
        _refuse_part(layer.neuron, layer.name, layer)
        for synapse in layer.synapses:
            for operation in synapse.operations:
                _refuse_part(operation, operation.name, layer)
            if synapse.delay or synapse.source not in earlier:
                raise _unsupported(
                    f"the synapse from '{synapse.source}' into layer '{layer.name}': it is delayed "
                    "or recurrent, and a step passes values only forward"
                )
        earlier.add(layer.name)


def _refuse_part(part: object, name: str, layer: Layer) -> None:
    kind = type(part)
    reason = TABLE.get(kind, "it does not know this type")
    if reason is not None:
        raise _unsupported(f"'{name}' ({kind.__name__}, layer '{layer.name}'): {reason}")


class OnnxTarget:
    """Writes ``network.onnx``, opset 21, float32, batch size free.

    Inputs ``x`` (N, *input_shape) and ``v.<layer>`` (N, *shape) for every layer with a state, zero
    before the first step; outputs the output layer's value and ``v.<layer>.next``.
    """

    name = "onnx"
    table = TABLE

    def write(self, network: Network, folder: Path) -> Mapping[str, Any]:
        """Write the step graph; equal networks give equal bytes.

        Raises RequestError: E_UNSUPPORTED for integer arithmetic and delays, E_NAME when two
        values would get one name, E_RANGE above the 2 GiB of an ONNX file; CouldNotRunError
        (E_MISSING) when onnx is not installed.
        """
        _refuse(network)
        try:
            from ._onnx_graph import describe, encode, step_model
        except ImportError as error:
            raise CouldNotRunError(
                "E_MISSING",
                f"target 'onnx' needs the package onnx ({error}); "
                "install it with pip install 'snnpipe[onnx]'",
            ) from error
        model = step_model(network)
        (folder / FILE).write_bytes(encode(model))
        return {"file": FILE, **describe(model)}


PLUGIN = OnnxTarget()
