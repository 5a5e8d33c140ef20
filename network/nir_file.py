"""Networks as NIR files: what is written, what is read, and what a file without contract needs.

A file carries its contract as one JSON text in the graph's metadata, with the graph's hash, the
float32 decay of every LIF layer and the Sum layers, for which NIR has no node.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, nearest
from ..files import canonical_json, write_file
from .check import check
from .contract import Contract, Integer
from .graph import RawGraph, from_graph, graph_hash, graph_sha256, to_graph
from .graph_file import read_graph
from .grid import certificate
from .hdf5 import NirFileError
from .layers import Layer, Network
from .neurons import LIF
from .node_types import Node
from .plain import parse
from .sums import SumRecord

__all__ = ["PRESETS", "graph_sha256", "read_network", "write_network"]

_LOG = logging.getLogger(__name__)

CONTRACT, CERTIFICATE = "snnpipe_contract", "snnpipe_certificate"
OPEN = (
    "dt, the steps T, the integrator, the input gain, the comparison at the threshold, the reset "
    "and the scale of the input"
)
DECAY_TOLERANCE = 1e-6
"""A recorded decay is the float32 value itself; 1 - dt/tau may miss it by rounding only."""

PRESETS: Mapping[str, Contract | str] = {
    "snnpipe": Contract(steps=1),
    "nir-strict": Contract(steps=1),
    "snntorch": "reset by subtraction one step late",
    "snntorch-import": "the input gain that snnTorch's importer sets",
    "spikingjelly": "input gains of 1 and tau/dt in one file",
    "norse": "an input gain forced to 1 and dt 1e-3",
    "sinabs": "exponential decay in steps and several spikes per step",
    "lava": "decays of current and voltage",
}
"""Semantics by name: the contract under which a file without one is read, or what is missing in
this release to read it so. T is 1: the file does not say."""


@dataclass(frozen=True)
class _Record:
    """What the contract's text holds besides the contract."""

    graph_sha256: str
    decay: Mapping[str, str]
    sums: tuple[SumRecord, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "graph_sha256": self.graph_sha256,
            "decay": dict(self.decay),
            "sums": [record.to_dict() for record in self.sums],
        }


def _parse(text: str) -> tuple[Contract, _Record]:
    """A contract's text; RequestError (E_CONTRACT) names the field that is wrong."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError("E_CONTRACT", f"the contract is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise RequestError("E_CONTRACT", "the contract is not a JSON object")
    rest = {field.name: data.pop(field.name) for field in fields(_Record) if field.name in data}
    return Contract.from_dict(data), parse(_Record, rest, "the contract")


# --- the float32 decay ---


def _decay_hash(decay: NDArray[Any], layer: Layer) -> str:
    full = np.ascontiguousarray(np.broadcast_to(decay, layer.shape), "<f4")
    return f"sha256:{hashlib.sha256(full.tobytes()).hexdigest()}"


def _decay_text(decay: NDArray[Any], layer: Layer) -> str:
    """One value as hexadecimal float, several as the hash of the full array."""
    return float(decay.flat[0]).hex() if decay.size == 1 else _decay_hash(decay, layer)


def _recorded(layer: Layer, neuron: LIF, text: str) -> Layer:
    """The layer with the recorded decay; RequestError (E_CONTRACT) when it cannot be meant."""
    if text.startswith("sha256:"):
        if text != _decay_hash(neuron.decay, layer):
            raise RequestError(
                "E_CONTRACT",
                f"the contract's hash of the decays of layer '{layer.name}' is not that of "
                "1 - dt/tau",
            )
        return layer
    try:
        value = float.fromhex(text)
    except (ValueError, OverflowError):
        value = np.nan
    if not (abs(neuron.decay.astype(np.float64) - value) <= DECAY_TOLERANCE).all():
        raise RequestError(
            "E_CONTRACT",
            f"the contract says decay {text[:40]!r} for layer '{layer.name}', 1 - dt/tau gives "
            f"{neuron.decay.flat[0]:.9g}",
        )
    return replace(layer, neuron=replace(neuron, decay=np.asarray(value, np.float32)))


def _with_decays(network: Network, decay: Mapping[str, str]) -> Network:
    lif = {layer.name for layer in network.layers if isinstance(layer.neuron, LIF)}
    if set(decay) != lif:
        odd = min(set(decay) ^ lif)
        raise RequestError(
            "E_CONTRACT", f"the contract's decays and the graph's LIF layers differ in '{odd}'"
        )
    layers = tuple(
        _recorded(layer, layer.neuron, decay[layer.name])
        if isinstance(layer.neuron, LIF)
        else layer
        for layer in network.layers
    )
    return replace(network, layers=layers)


# --- writing ---


def _nir_node(node: Node) -> Any:
    params: dict[str, Any] = dict(node.params)
    if node.type in ("Input", "Output"):
        return getattr(nir, node.type)({node.type.lower(): params["shape"]})
    if node.type == "Flatten":
        params["input_type"] = {"input": params["input_type"]}
    for key in ("groups", "start_dim", "end_dim"):  # nir cannot write arrays without an axis
        if key in params:
            params[key] = int(params[key])
    return getattr(nir, node.type)(**params)


def _nir_bytes(graph: RawGraph) -> bytes:
    nodes = {name: _nir_node(node) for name, node in graph.nodes.items()}
    # nir's own type inference is wrong for kernels that are not square and for groups.
    whole = nir.NIRGraph(nodes, list(graph.edges), dict(graph.metadata), type_check=False)
    stream = io.BytesIO()
    nir.write(stream, whole)
    return stream.getvalue()


def _level(network: Network) -> Any:
    return "integer" if isinstance(network.contract.arithmetic, Integer) else "float"


def write_network(network: Network, path: Path) -> None:
    """Write a network as a NIR file, whole or not at all; equal networks give equal bytes.

    The contract goes into the metadata, and for a network on the grid its certificate. The file is
    read back before it is put in place. Raises RequestError for what `check` or NIR refuses,
    CouldNotRunError (E_WRITE).
    """
    check(network, _level(network))
    graph = to_graph(network)
    decay = {
        layer.name: _decay_text(layer.neuron.decay, layer)
        for layer in network.layers
        if isinstance(layer.neuron, LIF)
    }
    digest = graph_hash(graph)
    record = _Record(digest, decay, graph.sums)
    metadata = {
        CONTRACT: canonical_json({**network.contract.to_dict(), **record.to_dict()}),
        "dt": network.contract.dt,
        "reset": network.contract.reset,
    }
    if layers := certificate(network):
        metadata[CERTIFICATE] = canonical_json([layer.to_dict() for layer in layers])
    content = _nir_bytes(replace(graph, metadata=metadata))

    def write(beside: Path) -> None:
        beside.write_bytes(content)
        try:
            found = graph_hash(read_graph(beside))
        except RequestError as error:
            text = error.message.replace(str(beside), str(path))
            raise RequestError(error.code, text) from error
        if found != digest:
            raise RequestError(
                "E_CONTRACT", f"{path}: the written graph reads back with another hash"
            )

    write_file(path, write)


# --- reading ---


def _preset(semantics: str) -> Contract:
    preset = PRESETS.get(semantics)
    if preset is None:
        raise RequestError(
            "E_SEMANTICS",
            f"there is no semantics '{semantics}'{nearest(semantics, PRESETS)}; known: "
            f"{', '.join(PRESETS)}",
        )
    if isinstance(preset, str):
        raise RequestError(
            "E_SEMANTICS",
            f"the semantics '{semantics}' is not supported yet: it needs {preset}",
        )
    return preset


def _names() -> str:
    return " or ".join(name for name, preset in PRESETS.items() if isinstance(preset, Contract))


def _interpret(graph: RawGraph, semantics: str | None) -> Network:
    text = graph.metadata.get(CONTRACT)
    if text is None:
        if semantics is None:
            raise RequestError(
                "E_SEMANTICS",
                f"the file carries no contract, so {OPEN} are open; name a semantics: {_names()}",
            )
        return from_graph(graph, _preset(semantics))
    if not isinstance(text, str):
        raise RequestError("E_CONTRACT", f"the metadata {CONTRACT} is not a text")
    if semantics is not None and _stale(text, graph):
        return from_graph(graph, _preset(semantics))
    contract, record = _parse(text)
    if record.graph_sha256 != graph_hash(graph):
        raise RequestError(
            "E_CONTRACT",
            "the graph was edited after the contract was written: its hash is "
            f"{graph_hash(graph)[:12]}…, the contract says {record.graph_sha256[:12]}…; write it "
            f"again, or name a semantics: {_names()}",
        )
    if semantics is not None:
        raise RequestError(
            "E_SEMANTICS",
            f"the file carries a contract that fits its graph; leave the semantics '{semantics}' "
            "out",
        )
    network = from_graph(replace(graph, sums=record.sums), contract)
    return _with_decays(network, record.decay)


def _stale(text: str, graph: RawGraph) -> bool:
    """Whether a contract cannot be used: unreadable here, or written for another graph."""
    try:
        return _parse(text)[1].graph_sha256 != graph_hash(graph)
    except RequestError:
        return True


def read_network(path: Path, semantics: str | None = None) -> Network:
    """Read a NIR file as a network, under its own contract or under a named semantics.

    Raises NirFileError, a RequestError: E_SEMANTICS when there is no contract and none is named,
    E_CONTRACT when contract and graph do not belong together, and the codes of `read_graph`,
    `from_graph` and `check`; every message begins with the file. What was repaired or passed over
    is logged.
    """
    graph = read_graph(path)
    try:
        network = _interpret(graph, semantics)
        check(network, _level(network))
    except RequestError as error:
        raise NirFileError(error.code, f"{path}: {error.message}") from error
    for note in graph.notes:
        _LOG.warning(note)
    return network
