"""Targets written into artefact folders, each from ``network.nir`` alone, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import __version__, plugins
from ..files import sha256, write_folder, write_manifest
from ..network.grid import certificate
from ..network.layers import Network
from ..network.nir_file import graph_sha256
from .protocol import Target


def manifest(network: Network, target: str, recipe: Path | None) -> dict[str, Any]:
    """What every manifest says: versions, target, graph, contract, certificate, recipe."""
    facts: dict[str, Any] = {
        "snnpipe": __version__,
        "target": target,
        "graph_sha256": graph_sha256(network),
        "contract": network.contract.to_dict(),
        "certificate": [layer.to_dict() for layer in certificate(network)],
    }
    if recipe is not None:
        facts["recipe_sha256"] = sha256(recipe)
    return facts


def write_targets(
    network: Network, names: Iterable[str], folder: Path, recipe: Path | None = None
) -> dict[str, Path]:
    """Write each target's artefact to ``folder/<name>``; returns the folders by target.

    ``network`` must come from ``network.nir``, so that a bare file gives the same payload. Raises
    RequestError (E_PLUGIN, E_UNSUPPORTED, E_RANGE) and CouldNotRunError (E_MISSING, E_WRITE).
    """
    targets: list[Target] = [plugins.load("targets", name) for name in names]
    written: dict[str, Path] = {}
    for target in targets:

        def fill(beside: Path, target: Target = target) -> None:
            facts = target.write(network, beside)
            write_manifest(beside, {**manifest(network, target.name, recipe), **facts})

        write_folder(folder / target.name, fill)
        written[target.name] = folder / target.name
    return written
