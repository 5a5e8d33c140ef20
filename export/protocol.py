"""What a target is: it writes one form of a network into a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from ..network.layers import Network
from ..network.support import Table
from .flips import Calibration


class Target(Protocol):
    """One form a network can leave in."""

    name: str
    table: Table
    options: Mapping[str, tuple[str, ...]]
    """Its options and the values that each takes, the default first."""

    def check(self, network: Network) -> None:
        """Raise RequestError (E_UNSUPPORTED, E_RANGE, …) for a network that it cannot hold."""
        ...

    def write(
        self, network: Network, folder: Path, options: Mapping[str, str]
    ) -> Mapping[str, Any]:
        """Write the payload files of ``network`` (read from ``network.nir``, never from torch)
        into an empty folder; returns facts for the manifest (plain JSON values). ``options`` has a
        value for each of the target's own.

        Raises RequestError (E_UNSUPPORTED, E_RANGE) naming layer, value and limit.
        """
        ...


@runtime_checkable
class Calibrated(Target, Protocol):
    """A target whose form may depend on what the network does on some inputs."""

    def calibrated(self, calibration: Calibration) -> Self:
        """The same target with inputs to look at."""
        ...
