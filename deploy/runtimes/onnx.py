"""onnxruntime on the CPU: the exported graph, run with every spike in sight."""

from __future__ import annotations

from pathlib import Path

from ...errors import CouldNotRunError, RequestError
from ...network.layers import (
    AvgPool,
    Conv,
    Conv1d,
    Delay,
    Dense,
    Flatten,
    Network,
    Scale,
    SumPool,
)
from ...network.neurons import IF, LI, LIF, CubaLI, CubaLIF, Sum, Threshold
from ...network.step_graph import FORMS, file_of
from ...network.support import Recurrent, Table, refuse_integers, refuse_unsupported
from ..protocol import Session

TABLE: Table = dict.fromkeys(
    (
        *(Dense, Conv, Conv1d, Scale, SumPool, AvgPool, Flatten, Delay, Recurrent),
        *(LIF, IF, LI, CubaLIF, CubaLI, Threshold, Sum),
    )
)


class OnnxRuntime:
    """Opens a file of any form as the target of the same name wrote it, and no other ONNX file."""

    name = "onnx"
    target = "onnx"
    table = TABLE

    def check(self, network: Network) -> None:
        """Raise RequestError (E_UNSUPPORTED) for integer arithmetic."""
        cannot = f"runtime '{self.name}' cannot run"
        refuse_unsupported(network, cannot, TABLE)
        refuse_integers(network, cannot, "run it with 'loihi'")

    def open(self, network: Network, folder: Path | None) -> Session:
        """Open the graph in ``folder``, which must be that of ``network``; where there are several
        forms of it, the step graph.

        Raises RequestError: E_UNSUPPORTED for integers, E_ONNX for a file that is
        missing, damaged, unsafe or not of this network; CouldNotRunError: E_MISSING without onnx
        and onnxruntime.
        """
        self.check(network)
        if folder is None:
            raise RequestError(
                "E_ONNX", "runtime 'onnx' runs an exported file; export with target 'onnx' first"
            )
        try:
            from ._onnx_file import read_model
            from ._onnx_session import OnnxSession
        except ImportError as error:
            raise CouldNotRunError(
                "E_MISSING",
                f"runtime 'onnx' needs the packages onnx and onnxruntime ({error}); "
                "install them with pip install 'snnpipe[onnx]'",
            ) from error
        there = (form for form in FORMS if (folder / file_of(form)).is_file())
        form = next(there, FORMS[0])
        path = folder / file_of(form)
        return OnnxSession(network, form, read_model(path, network, form), path)


PLUGIN = OnnxRuntime()
