"""torch: the network's own operations in float32, all steps of a layer at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ...errors import CouldNotRunError
from ...network.layers import AvgPool, Conv, Dense, Flatten, Network, SumPool
from ...network.neurons import IF, LIF, Sum
from ..float_only import refuse_integers_and_delays
from ..protocol import Session, refuse_unsupported

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

DEVICE = "SNNPIPE_TORCH_DEVICE"
"""Environment variable: the torch device to run on, ``cpu`` without it."""


class TorchRuntime:
    """Runs the network itself; it needs no artefact but ``network.nir``."""

    name = "torch"
    target = "nir"
    table = TABLE

    def open(self, network: Network, folder: Path | None, device: str | None = None) -> Session:  # noqa: ARG002 - a runtime's signature; the network is all torch needs
        """Open a network on ``device`` (default `DEVICE`, then ``cpu``); ``folder`` is not read.

        Raises RequestError: E_UNSUPPORTED, E_DEVICE for a device torch does not know;
        CouldNotRunError: E_MISSING without torch, E_DEVICE for a device that is not here.
        """
        refuse_unsupported(network, self.name, TABLE)
        refuse_integers_and_delays(network, self.name)
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
