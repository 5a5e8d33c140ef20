"""onnxruntime on the CPU: the exported step graph, run step by step with every spike in sight."""

from __future__ import annotations

from pathlib import Path

from ...errors import CouldNotRunError, RequestError
from ...network.layers import AvgPool, Conv, Dense, Flatten, Network, SumPool
from ...network.neurons import IF, LIF, Sum
from ...network.step_graph import FILE
from ...network.support import Table, refuse_integers, refuse_unsupported
from ..protocol import Session

TABLE: Table = dict.fromkeys((Dense, Conv, SumPool, AvgPool, Flatten, LIF, IF, Sum))


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
        cannot = f"runtime '{self.name}' cannot run"
        refuse_unsupported(network, cannot, TABLE)
        refuse_integers(network, cannot, "run it with 'loihi'")
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
