"""Networks as NIR files: what is written, what is read, and what a file without contract needs.

A file carries its contract as one JSON text in the graph's metadata, with the graph's hash, every
float32 decay, the edges that close loops, and the Sum layers, for which NIR has no node.
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

from ..errors import RequestError
from ..files import canonical_json, write_file
from .check import check
from .contract import Contract, Integer
from .graph import RawGraph, graph_hash, network_sha256, to_graph
from .graph_file import read_graph
from .graph_reader import Note, from_graph
from .grid import certificate
from .hdf5 import Limits, NirFileError
from .layers import Layer, Network
from .neurons import parameters
from .node_types import Node
from .plain import parse
from .repairs import interpret
from .semantics import Semantics, named, readable
from .sums import SumRecord

_LOG = logging.getLogger(__name__)

CONTRACT, CERTIFICATE = "snnpipe_contract", "snnpipe_certificate"


@dataclass(frozen=True)
class _Record:
    """What the contract's text holds besides the contract."""

    graph_sha256: str
    decay: Mapping[str, str]
    sums: tuple[SumRecord, ...]
    back_edges: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "graph_sha256": self.graph_sha256,
            "decay": dict(self.decay),
            "sums": [record.to_dict() for record in self.sums],
            "back_edges": [list(edge) for edge in self.back_edges],
        }


def _parse(text: str) -> tuple[Contract, _Record]:
    """A contract's text; RequestError (E_CONTRACT) names the field that is wrong."""
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise RequestError("E_CONTRACT", "the contract is not a JSON object")
        rest = {field.name: data.pop(field.name) for field in fields(_Record) if field.name in data}
        return Contract.from_dict(data), parse(_Record, rest, "the contract")
    except (ValueError, RecursionError) as error:  # also where a message quotes a deep list
        raise RequestError("E_CONTRACT", f"the contract is not JSON: {error}") from error


# --- the float32 decays ---


def _decays(network: Network) -> dict[str, tuple[Layer, str]]:
    """Every decay: under the layer's name the membrane's, behind a colon the synaptic one's."""
    found = {}
    for layer in network.layers:
        own = parameters(layer.neuron)
        if "decay" in own:
            found[layer.name] = (layer, "decay")
        if "synaptic_decay" in own:
            found[f"{layer.name}:synaptic"] = (layer, "synaptic_decay")
    return found


def _decay_text(layer: Layer, part: str) -> str:
    """One value as hexadecimal float, several as the hash of the full array."""
    full = np.broadcast_to(parameters(layer.neuron)[part], layer.shape).astype("<f4")
    if (full == full.flat[0]).all():
        return float(full.flat[0]).hex()
    return f"sha256:{hashlib.sha256(full.tobytes()).hexdigest()}"


def _hold_decays(network: Network, recorded: Mapping[str, str]) -> None:
    """The decays that the time constants give must be those of the contract, bit for bit."""
    found = {key: _decay_text(*place) for key, place in _decays(network).items()}
    if set(recorded) != set(found):
        odd = min(set(recorded) ^ set(found))
        raise RequestError(
            "E_CONTRACT", f"the contract's decays and the graph's neurons differ in {odd[:120]!r}"
        )
    for key, text in recorded.items():
        if text != found[key]:
            raise RequestError(
                "E_CONTRACT",
                f"the contract says decay {text[:40]!r} for layer '{key}', 1 - dt/tau gives "
                f"{found[key]!r}",
            )


# --- writing ---


def _nir_node(node: Node) -> Any:
    params: dict[str, Any] = dict(node.params)
    if node.type in ("Input", "Output"):
        return getattr(nir, node.type)({node.type.lower(): params["shape"]})
    if node.type == "Flatten":
        params["input_type"] = {"input": params["input_type"]}
    numbers = ["groups", "start_dim", "end_dim"]  # nir cannot write arrays without an axis
    if node.type == "Conv1d":
        numbers += ["input_shape", "stride", "padding", "dilation"]
    for key in numbers:
        if key in params:
            params[key] = int(params[key].item())
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
    decay = {key: _decay_text(*place) for key, place in _decays(network).items()}
    record = _Record(graph_hash(graph), decay, graph.sums, graph.back_edges or ())
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
            back = read_network(beside)
        except RequestError as error:
            text = error.message.replace(str(beside), str(path))
            raise RequestError(error.code, text) from error
        if network_sha256(back) != network_sha256(network):
            raise RequestError("E_CONTRACT", f"{path}: what is written reads back as another net")

    write_file(path, write)


# --- reading ---


def no_contract() -> RequestError:
    """The error of a file without a contract for which no semantics was named."""
    return RequestError(
        "E_NO_CONTRACT",
        "the file carries no contract, so dt, the steps T, the decay, the input gain, the "
        "comparison at the threshold and the reset are open; name a semantics: " + readable(),
    )


def _interpret(graph: RawGraph, semantics: Semantics | None, note: Note) -> Network:
    text = graph.metadata.get(CONTRACT)
    if text is None:
        if semantics is None:
            raise no_contract()
        return interpret(graph, semantics, note)
    if not isinstance(text, str):
        raise RequestError("E_CONTRACT", f"the metadata {CONTRACT} is not a text")
    if semantics is not None and _stale(text, graph):
        return interpret(graph, semantics, note)
    contract, record = _parse(text)
    if record.graph_sha256 != graph_hash(graph):
        raise RequestError(
            "E_CONTRACT",
            "the graph was edited after the contract was written: its hash is "
            f"{graph_hash(graph)[:12]}…, the contract says {record.graph_sha256[:12]}…; write it "
            f"again, or name a semantics: {readable()}",
        )
    if semantics is not None:
        raise RequestError(
            "E_SEMANTICS",
            "the file carries a contract that fits its graph; leave the semantics out",
        )
    whole = replace(graph, sums=record.sums, back_edges=record.back_edges)
    network = from_graph(whole, Semantics(contract))
    _hold_decays(network, record.decay)
    for text in graph.notes:
        note(text)
    return network


def _stale(text: str, graph: RawGraph) -> bool:
    """Whether a contract cannot be used: unreadable here, or written for another graph."""
    try:
        return _parse(text)[1].graph_sha256 != graph_hash(graph)
    except RequestError:
        return True


def read_network(
    path: Path,
    semantics: Semantics | str | None = None,
    limits: Limits | None = None,
    note: Note | None = None,
) -> Network:
    """Read a NIR file as a network, under its own contract or under a named semantics.

    Raises NirFileError, a RequestError: E_NO_CONTRACT when there is no contract and no semantics,
    E_SEMANTICS for one that cannot be used, E_CONTRACT when contract and graph do not belong
    together, and the codes of `read_graph`, `interpret` and `check`; every message begins with the
    file. ``note`` is told what was repaired or passed over; without it that is logged.
    """
    if isinstance(semantics, str):
        semantics = named(semantics)
    graph = read_graph(path, limits)
    try:
        logged = note or (lambda text: _LOG.warning("%s: %s", path, text))
        network = _interpret(graph, semantics, logged)
        check(network, _level(network))
    except RequestError as error:
        raise NirFileError(error.code, f"{path}: {error.message}") from error
    return network
