"""onnxruntime on the CPU: the exported step graph, run step by step with every spike in sight."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...errors import CouldNotRunError, RequestError
from ...network.layers import AvgPool, Conv, Dense, Flatten, Network, SumPool
from ...network.neurons import IF, LIF, Sum
from ..float_only import refuse_integers_and_delays
from ..protocol import Session, refuse_unsupported

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


class OnnxRuntime:
    """Opens ``network.onnx`` as the target of the same name wrote it, and no other ONNX file."""

    name = "onnx"
    target = "onnx"
    table = TABLE

    def open(self, network: Network, folder: Path | None) -> Session:
        """Open the step graph in ``folder``, which must be the graph of ``network``.

        Raises RequestError: E_UNSUPPORTED for integers and delays, E_ONNX for a file that is
        missing, damaged, unsafe or not of this network; CouldNotRunError: E_MISSING without onnx
        and onnxruntime.
        """
        refuse_unsupported(network, self.name, TABLE)
        refuse_integers_and_delays(network, self.name)
        if folder is None:
            raise RequestError(
                "E_ONNX", "runtime 'onnx' runs an exported file; export with target 'onnx' first"
            )
        try:
            from ._onnx_file import read_step_model
            from ._onnx_session import OnnxSession
        except ImportError as error:
            raise CouldNotRunError(
                "E_MISSING",
                f"runtime 'onnx' needs the packages onnx and onnxruntime ({error}); "
                "install them with pip install 'snnpipe[onnx]'",
            ) from error
        path = folder / FILE
        return OnnxSession(network, read_step_model(path, network), path)


PLUGIN = OnnxRuntime()
