"""torch: the network's own operations in float32, many steps of a layer at once."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import CouldNotRunError
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
from ...network.support import Recurrent, Table, refuse_integers, refuse_unsupported
from ..protocol import Session

TABLE: Table = dict.fromkeys(
    (
        *(Dense, Conv, Conv1d, Scale, SumPool, AvgPool, Flatten, Delay),
        *(LIF, IF, LI, CubaLIF, CubaLI, Threshold, Sum, Recurrent),
    )
)

DEVICE = "SNNPIPE_TORCH_DEVICE"
"""Environment variable: the torch device to run on, ``cpu`` without it."""


class TorchRuntime:
    """Runs the network itself; it needs no artefact but ``network.nir``."""

    name = "torch"
    target = "nir"
    table = TABLE

    def check(self, network: Network) -> None:
        """Raise RequestError (E_UNSUPPORTED) for integer arithmetic."""
        cannot = f"runtime '{self.name}' cannot run"
        refuse_unsupported(network, cannot, TABLE)
        refuse_integers(network, cannot, "run it with 'loihi'")

    def open(self, network: Network, folder: Path | None, device: str | None = None) -> Session:  # noqa: ARG002 - a runtime's signature; the network is all torch needs
        """Open a network on ``device`` (default `DEVICE`, then ``cpu``); ``folder`` is not read.

        Raises RequestError: E_UNSUPPORTED, E_DEVICE for a device torch does not know;
        CouldNotRunError: E_MISSING without torch, E_DEVICE for a device that is not here.
        """
        self.check(network)
        try:
            from ._torch_session import TorchSession
        except ImportError as error:
            raise CouldNotRunError(
                "E_MISSING",
                f"runtime 'torch' needs the package torch ({error}); "
                "install it with pip install 'snnpipe[train]'",
            ) from error
        return TorchSession(network, device or os.environ.get(DEVICE) or "cpu")


PLUGIN = TorchRuntime()
