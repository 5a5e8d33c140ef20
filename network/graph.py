"""A NIR graph in memory, and the way from a Network to it; `graph_reader` goes the other way.

The names of a graph's nodes are the names of layers and operations. The hash of a graph covers
nodes and edges and leaves metadata and the order of edges out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

import numpy as np

from ..errors import RequestError
from ..files import canonical_json
from .layers import Layer, Network, Shape
from .loops import Edge
from .neurons import Sum, parameters
from .node_types import Node
from .node_writing import neuron_node, operation_node, port_node
from .shapes import shape_after
from .sums import Preds, SumRecord, eliminate, successors

_LEGAL = re.compile(r"(?!\.+$)[A-Za-z0-9_.-]{1,100}")


@dataclass(frozen=True, eq=False)
class RawGraph:
    """Nodes by name and edges (source, target), as NIR holds them.

    ``edges``: in the order in which signals are added. ``sums``: Sum layers that were taken out.
    ``back_edges``: from layer to layer, those that carry the last step's values; None: not said.
    ``notes``: what a reader repaired or passed over, one sentence each.
    """

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sums: tuple[SumRecord, ...] = ()
    back_edges: tuple[Edge, ...] | None = None
    notes: tuple[str, ...] = ()


def legal_name(name: str) -> bool:
    """Whether a node may bear this name: letters, digits, ``_ . -``, at most 100, not all dots."""
    return _LEGAL.fullmatch(name) is not None


def fresh(name: str, taken: Container[str]) -> str:
    """The name, or with the first number behind it that no other has."""
    numbered = (f"{name}_{number}" for number in count(2))
    return next(free for free in chain([name], numbered) if free not in taken)


def _absorb(digest: Any, label: str, node: Node) -> None:
    """Put a node into a hash: type, and per parameter dtype, shape and little-endian bytes."""
    arrays = [(key, np.asarray(node.params[key], order="C")) for key in sorted(node.params)]
    head = [[key, values.dtype.str, list(values.shape)] for key, values in arrays]
    digest.update(canonical_json([label, node.type, head]).encode())
    for _, values in arrays:
        digest.update(values.tobytes())


def graph_hash(graph: RawGraph) -> str:
    """sha256 over sorted nodes (type, parameters: dtype, shape, little-endian bytes) and edges."""
    digest = hashlib.sha256()
    for name in sorted(graph.nodes):
        _absorb(digest, name, graph.nodes[name])
    digest.update(canonical_json(sorted(graph.edges)).encode())
    return digest.hexdigest()


def graph_sha256(network: Network) -> str:
    """Hash of a network's graph: equal for two networks that NIR cannot tell apart."""
    return graph_hash(to_graph(network))


def network_sha256(network: Network) -> str:
    """Hash of what a network computes under a given contract, whatever its parts are called and in
    whichever order they are written: equal for the flat and the nested file of one network.

    Every layer is labelled with its neurons and, synapse by synapse, with its operations, whether
    it is late, and the label of the source; labels are passed round until they tell no further
    layers apart (Weisfeiler and Lehman 1968).
    """
    own: dict[str, str] = {}
    chains: dict[str, list[tuple[str, str]]] = {}
    for layer in network.layers:
        full = {
            part: np.broadcast_to(values, layer.shape).astype("<f4")
            for part, values in parameters(layer.neuron).items()
        }
        digest = hashlib.sha256()
        _absorb(digest, str(layer.shape), Node(type(layer.neuron).__name__, full))
        own[layer.name] = digest.hexdigest()
        chains[layer.name] = []
        for synapse in layer.synapses:
            shape, digest = network.shape_of(synapse.source), hashlib.sha256()
            for operation in synapse.operations:
                _absorb(digest, "", operation_node(operation, shape, 1.0))
                shape = shape_after(operation, shape)
            late = network.late(layer, synapse)
            chains[layer.name].append((synapse.source, f"{late} {digest.hexdigest()}"))
    labels = {network.input: _text_hash("input", list(network.input_shape)), **own}
    told_apart = 0
    while len(set(labels.values())) > told_apart:
        told_apart = len(set(labels.values()))
        for name, synapses in chains.items():
            fed = sorted([text, labels[source]] for source, text in synapses)
            labels[name] = _text_hash(own[name], fed)
    return _text_hash(labels[network.output], sorted(labels.values()))


def _text_hash(*parts: Any) -> str:
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def same_network(a: Network, b: Network) -> bool:
    """Whether two networks are one: equal graphs under equal contracts."""
    return a.contract == b.contract and graph_sha256(a) == graph_sha256(b)


# --- Network to graph ---


class _Builder:
    """Nodes and edges of a network as they come up."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.preds: Preds = {}
        self.sums: dict[str, Shape] = {}

    def add(self, name: str, node: Node | None, sources: list[str], shape: Shape = ()) -> None:
        """One node; None stands for a Sum."""
        if not legal_name(name):
            raise RequestError(
                "E_NAME",
                f"{name[:120]!r} cannot name a NIR node; expected 1 to 100 letters, digits, "
                "'_', '.' or '-'",
            )
        if name in self.preds:
            raise RequestError("E_NAME", f"two parts of the network are called '{name}'")
        twice = [source for source in sources if sources.count(source) > 1]
        if twice:
            raise RequestError(
                "E_EDGES",
                f"'{name}' is fed twice by '{twice[0]}' without an operation in between; NIR "
                "holds an edge once",
            )
        self.preds[name] = sources
        if node is None:
            self.sums[name] = shape
        else:
            self.nodes[name] = node


def _add_layer(build: _Builder, network: Network, layer: Layer) -> None:
    dt = network.contract.dt
    sources = []
    for synapse in layer.synapses:
        tail, shape = synapse.source, network.shape_of(synapse.source)
        for operation in synapse.operations:
            build.add(operation.name, operation_node(operation, shape, dt), [tail])
            shape, tail = shape_after(operation, shape), operation.name
        sources.append(tail)
    neuron = layer.neuron
    node = None if isinstance(neuron, Sum) else neuron_node(layer.name, neuron, layer.shape, dt)
    build.add(layer.name, node, sources, layer.shape)


def to_graph(network: Network) -> RawGraph:
    """The graph of a network; its Sum layers are taken out and recorded.

    Raises RequestError: E_NAME, E_SHAPE, E_VALUE, E_EDGES for what a NIR graph cannot hold.
    """
    build = _Builder()
    build.add(network.input, port_node("Input", network.input_shape), [])
    for layer in network.layers:
        _add_layer(build, network, layer)
    shape = network.layer(network.output).shape
    build.add(network.output_port, port_node("Output", shape), [network.output])
    connected(build.preds, network.input, network.output_port)
    preds, records = eliminate(build.preds, build.sums)
    edges = tuple((source, target) for target in build.nodes for source in preds[target])
    late = {
        (synapse.source, layer.name)
        for layer in network.layers
        for synapse in layer.synapses
        if network.late(layer, synapse)
    }
    return RawGraph(build.nodes, edges, sums=records, back_edges=tuple(sorted(late)))


def connected(preds: Preds, first: str, last: str) -> None:
    """Every node is fed, and feeds something."""
    used = successors(preds)
    for name in preds:
        if name != first and not preds[name]:
            raise RequestError("E_EDGES", f"'{name}' is fed by nothing; expected an edge into it")
        if name != last and not used[name]:
            raise RequestError(
                "E_EDGES", f"'{name}' feeds nothing; expected a path to the output '{last}'"
            )
    if preds[first] or used[last]:
        raise RequestError(
            "E_EDGES", f"no edge may enter the input '{first}' or leave the output '{last}'"
        )
