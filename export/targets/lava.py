"""Loihi integers for Lava: 8-bit weights by post-training quantisation, as a .nir file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...network.layers import Network
from ...network.nir_file import write_network
from ..quantise import TABLE, quantise


class LavaTarget:
    """Writes ``network.nir`` with integer arithmetic in its contract."""

    name = "lava"
    table = TABLE
    options: Mapping[str, tuple[str, ...]] = {}

    def check(self, network: Network) -> None:
        """Raise RequestError (E_UNSUPPORTED, E_RANGE) for what Loihi's integers cannot hold."""
        quantise(network)

    def write(
        self,
        network: Network,
        folder: Path,
        options: Mapping[str, str],  # noqa: ARG002 - it has none
    ) -> Mapping[str, Any]:
        """Quantise a grid network; the manifest gets each layer's scale and caps."""
        quantised, scales = quantise(network)
        write_network(quantised, folder / "network.nir")
        return {"weight_bits": 8, "scales": [scale.to_dict() for scale in scales]}


PLUGIN = LavaTarget()
