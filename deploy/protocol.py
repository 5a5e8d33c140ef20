"""What a runtime is: it opens a network (and its artefact) and turns frames into a Trace."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..network.layers import Network
from ..network.support import Table
from ..network.trace import Record, Trace


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

    def check(self, network: Network) -> None:
        """Raise RequestError (E_UNSUPPORTED) for a network that it cannot run."""
        ...

    def open(self, network: Network, folder: Path | None) -> Session:
        """Open a network; ``folder`` is its artefact folder, None for a bare network.

        Raises what `check` raises, CouldNotRunError (E_MISSING) when a library is not installed.
        """
        ...
