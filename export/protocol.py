"""What a target is: it writes one form of a network into a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ..network.layers import Network


class Target(Protocol):
    """One form a network can leave in."""

    name: str

    def write(self, network: Network, folder: Path) -> Mapping[str, Any]:
        """Write the payload files of ``network`` (read from ``network.nir``, never from torch)
        into an empty folder; returns facts for the manifest (plain JSON values).

        Raises RequestError (E_UNSUPPORTED, E_RANGE) naming layer, value and limit.
        """
        ...
