"""What a runtime is: it opens a network (and its artefact) and turns frames into a Trace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..network.layers import Layer, Network, Operation
from ..network.trace import Record, Trace

Table = Mapping[type, str | None]
"""Operation or neuron type to None (handled) or to the reason why it is refused."""


class Session(Protocol):
    """One opened network, ready to run batches."""

    def run(self, x: NDArray[np.float32], steps: int, record: Record | None = None) -> Trace:
        """Frames (B, *input_shape), shown at every step, or (T, B, *input_shape), to a Trace."""
        ...


class Runtime(Protocol):
    """Where a network can run. ``target`` names the artefact it opens."""

    name: str
    target: str
    table: Table

    def open(self, network: Network, folder: Path | None) -> Session:
        """Open a network; ``folder`` is its artefact folder, None for a bare network.

        Raises RequestError (E_UNSUPPORTED) for what the table refuses, CouldNotRunError
        (E_MISSING) when a library is not installed.
        """
        ...


def refuse_unsupported(network: Network, runtime: str, table: Table) -> None:
    """Raise RequestError (E_UNSUPPORTED) for the first part of a network that is not handled."""

    def look(part: Operation | object, layer: Layer, name: str) -> None:
        kind = type(part)
        reason = table.get(kind, "it does not know this type")
        if reason is not None:
            raise RequestError(
                "E_UNSUPPORTED",
                f"runtime '{runtime}' cannot run '{name}' ({kind.__name__}, layer "
                f"'{layer.name}'): {reason}",
            )

    for layer in network.layers:
        look(layer.neuron, layer, layer.name)
        for synapse in layer.synapses:
            for operation in synapse.operations:
                look(operation, layer, operation.name)
