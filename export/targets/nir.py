"""NIR file: graph, contract and certificate in one, for other frameworks and for snnpipe itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...network.graph import to_graph
from ...network.layers import Network
from ...network.nir_file import write_network
from ...network.support import PARTS, Table
from . import _nir_1_0_4 as old
from ._nir_portable import portable


class NirTarget:
    """Writes ``network.nir``, byte for byte the file it was read from when that is ours.

    ``profile`` portable: as snnTorch and SpikingJelly both read it with equal spikes. ``compat``
    1.0.4: as nir 1.0.4 and sinabs read it. The manifest says what was changed and what differs.
    """

    name = "nir"
    table: Table = dict.fromkeys(PARTS)
    options: Mapping[str, tuple[str, ...]] = {
        "profile": ("full", "portable"),
        "compat": ("1.0.8", old.VERSION),
    }

    def check(self, network: Network) -> None:
        """Raise RequestError (E_NAME, E_EDGES, E_VALUE) for what no NIR graph can hold."""
        to_graph(network)

    def write(
        self, network: Network, folder: Path, options: Mapping[str, str]
    ) -> Mapping[str, Any]:
        """Write the file. Raises RequestError (E_UNSUPPORTED, E_NAME) for what it cannot hold."""
        facts: dict[str, Any] = {}
        remarks: list[str] = []
        path = folder / "network.nir"
        if options["profile"] == "portable":
            network, facts["portable"] = portable(network)
            remarks += [
                f"layer '{name}' may differ by a tie at the threshold: {why}"
                for name, why in facts["portable"]["ties"].items()
            ]
        if options["compat"] == old.VERSION:
            old.hold(network)
            write_network(network, path)
            old.rewrite(path)
            facts["sinabs_differs"] = old.sinabs_differs(network)
            remarks += [
                f"layer '{name}' runs otherwise in sinabs: {why}"
                for name, why in facts["sinabs_differs"].items()
            ]
        else:
            write_network(network, path)
        return {**facts, "remarks": remarks} if remarks else facts


PLUGIN = NirTarget()
