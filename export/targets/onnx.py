"""ONNX: one step of the network as a graph with its states as inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import CouldNotRunError
from ...network.layers import AvgPool, Conv, Dense, Flatten, Network, SumPool
from ...network.neurons import IF, LIF, Sum
from ...network.step_graph import FILE
from ...network.support import Table, refuse_integers, refuse_unsupported

TABLE: Table = dict.fromkeys((Dense, Conv, SumPool, AvgPool, Flatten, LIF, IF, Sum))


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
        cannot = "target 'onnx' cannot write"
        refuse_unsupported(network, cannot, TABLE)
        refuse_integers(network, cannot, "export integer networks with 'lava'")
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
