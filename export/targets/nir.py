"""NIR file: graph, contract and certificate in one, for other frameworks and for snnpipe itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...network.layers import Network
from ...network.nir_file import write_network


class NirTarget:
    """Writes ``network.nir``, byte for byte the file it was read from when that is ours."""

    name = "nir"

    def write(self, network: Network, folder: Path) -> Mapping[str, Any]:
        """Write the file; there is nothing to add to the manifest."""
        write_network(network, folder / "network.nir")
        return {}


PLUGIN = NirTarget()
