"""Lava's own ProcessModels in a private environment (`snnpipe lava setup`): the referee.

The published classes of Lava 0.10 are driven one after the other in one process: the arithmetic is
Lava's, the order of a step is the network's. Slow, and no silicon.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...network.check_integer import TABLE
from ...network.layers import Network
from ...network.support import Table
from ..lava.environment import find_environment
from ..lava.lowering import check_lava
from ..lava.models import ModelsSession


@dataclass(frozen=True)
class LavaRuntime:
    """Integer networks on Lava's models."""

    name: str
    target: str
    table: Table

    def check(self, network: Network) -> None:
        """Raise RequestError (E_UNSUPPORTED, E_RANGE) for what Lava cannot express."""
        check_lava(network)

    def open(self, network: Network, folder: Path | None) -> ModelsSession:  # noqa: ARG002 - the network was read from the artefact
        """Lower an integer network.

        Raises what `check` raises, CouldNotRunError (E_MISSING) where Lava is not set up.
        """
        self.check(network)
        return ModelsSession(network, find_environment().interpreter)


PLUGIN = LavaRuntime("lava", "lava", TABLE)
