"""Loihi integers for Lava: 8-bit weights by post-training quantisation, as a .nir file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...network.layers import Network
from ...network.nir_file import write_network
from ..quantise import quantise


class LavaTarget:
    """Writes ``network.nir`` with integer arithmetic in its contract."""

    name = "lava"

    def write(self, network: Network, folder: Path) -> Mapping[str, Any]:
        """Quantise a grid network; the manifest gets each layer's scale and caps."""
        quantised, scales = quantise(network)
        write_network(quantised, folder / "network.nir")
        return {"weight_bits": 8, "scales": [scale.to_dict() for scale in scales]}


PLUGIN = LavaTarget()
