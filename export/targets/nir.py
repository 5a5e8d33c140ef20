"""NIR file: graph, contract and certificate in one, for other frameworks and for snnpipe itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...files import canonical_json
from ...network.graph import graph_sha256
from ...network.grid import certificate
from ...network.layers import Network
from ...network.nir_file import write_network


class NirTarget:
    """Writes ``network.nir``; a grid network takes its certificate along."""

    name = "nir"

    def write(self, network: Network, folder: Path) -> Mapping[str, Any]:
        """Write the file; the manifest gets the graph's hash."""
        layers = [layer.to_dict() for layer in certificate(network)]
        extra = {"snnpipe_certificate": canonical_json(layers)} if layers else {}
        write_network(network, folder / "network.nir", extra)
        return {"graph_sha256": graph_sha256(network)}


PLUGIN = NirTarget()
