"""Targets written into artefact folders, each from ``network.nir`` alone, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import __version__, plugins
from ..errors import RequestError
from ..files import sha256, write_folder, write_manifest
from ..network.graph import graph_sha256
from ..network.grid import certificate
from ..network.layers import Network
from .flips import Calibration
from .protocol import Calibrated, Target


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


def options_of(names: Iterable[str], given: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Per target a value for each of its options: the one in ``given``, else its default.

    Raises RequestError (E_OPTION) for an option that none of the targets knows, or a value that
    one of them does not take; E_PLUGIN for a target that is not there.
    """
    targets: dict[str, Target] = {name: plugins.load("targets", name) for name in names}
    for option, value in given.items():
        takers = {
            name: target.options[option]
            for name, target in targets.items()
            if option in target.options
        }
        if not takers:
            raise RequestError(
                "E_OPTION", f"no target of {', '.join(targets)} has an option '{option}'"
            )
        for name, values in takers.items():
            if value not in values:
                raise RequestError(
                    "E_OPTION",
                    f"target '{name}': option '{option}' is '{value}'; expected one of "
                    f"{', '.join(values)}",
                )
    return {
        name: {option: given.get(option, values[0]) for option, values in target.options.items()}
        for name, target in targets.items()
    }


def write_targets(
    network: Network,
    names: Iterable[str],
    folder: Path,
    recipe: Path | None = None,
    options: Mapping[str, str] | None = None,
    calibration: Calibration | None = None,
) -> dict[str, Path]:
    """Write each target's artefact to ``folder/<name>``; returns the folders by target.

    ``network`` must come from ``network.nir``, so that a bare file gives the same payload.
    ``options`` go to the targets that have them, ``calibration`` to those that look at inputs.
    Raises RequestError (E_PLUGIN, E_OPTION, E_UNSUPPORTED, E_RANGE) and CouldNotRunError
    (E_MISSING, E_WRITE).
    """
    written: dict[str, Path] = {}
    for name, chosen in options_of(names, options or {}).items():
        target: Target = plugins.load("targets", name)
        if calibration is not None and isinstance(target, Calibrated):
            target = target.calibrated(calibration)

        def fill(beside: Path, target: Target = target, chosen: Mapping[str, str] = chosen) -> None:
            facts = target.write(network, beside, chosen)
            about = {**manifest(network, target.name, recipe), "options": chosen}
            write_manifest(beside, {**about, **facts})

        write_folder(folder / target.name, fill)
        written[target.name] = folder / target.name
    return written
