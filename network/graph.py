"""A NIR graph in memory, and the way from a Network to it and back.

The names of a graph's nodes are the names of layers and operations. The hash of a graph covers
nodes and edges and leaves metadata and the order of edges out.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import RequestError
from ..files import canonical_json
from .contract import Contract
from .layers import Layer, Network, Operation, Shape, Synapse
from .neurons import Neuron, Sum
from .node_fields import MAX_SIZE
from .node_types import TYPES, Node, neuron_node, operation_node, port_node
from .shapes import shape_after
from .sums import Preds, SumRecord, eliminate, restore, successors

Edge = tuple[str, str]
_LEGAL = re.compile(r"(?!\.+$)[A-Za-z0-9_.-]{1,100}")


@dataclass(frozen=True, eq=False)
class RawGraph:
    """Nodes by name and edges (source, target), as NIR holds them.

    ``edges``: in the order in which signals are added. ``sums``: Sum layers that were taken out.
    ``notes``: what a reader repaired or passed over, one sentence each.
    """

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sums: tuple[SumRecord, ...] = ()
    notes: tuple[str, ...] = ()


def legal_name(name: str) -> bool:
    """Whether a node may bear this name: letters, digits, ``_ . -``, at most 100, not all dots."""
    return _LEGAL.fullmatch(name) is not None


def graph_hash(graph: RawGraph) -> str:
    """sha256 over sorted nodes (type, parameters: dtype, shape, little-endian bytes) and edges."""
    digest = hashlib.sha256()
    for name in sorted(graph.nodes):
        node = graph.nodes[name]
        arrays = [(key, np.asarray(node.params[key], order="C")) for key in sorted(node.params)]
        head = [[key, values.dtype.str, list(values.shape)] for key, values in arrays]
        digest.update(canonical_json([name, node.type, head]).encode())
        for _, values in arrays:
            digest.update(values.tobytes())
    digest.update(canonical_json(sorted(graph.edges)).encode())
    return digest.hexdigest()


def graph_sha256(network: Network) -> str:
    """Hash of a network's graph: equal for two networks that NIR cannot tell apart."""
    return graph_hash(to_graph(network))


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
    sources = []
    for synapse in layer.synapses:
        if synapse.delay:
            raise RequestError(
                "E_UNSUPPORTED",
                f"layer '{layer.name}' is fed by '{synapse.source}' with a delay of "
                f"{synapse.delay} steps; NIR files with delays are not written yet",
            )
        tail = synapse.source
        if tail not in build.preds:
            raise RequestError(
                "E_CYCLE",
                f"layer '{layer.name}' is fed by '{tail}', which does not come earlier; "
                "recurrence is not written yet",
            )
        shape = network.shape_of(tail)
        for operation in synapse.operations:
            build.add(operation.name, operation_node(operation, shape), [tail])
            shape, tail = shape_after(operation, shape), operation.name
        sources.append(tail)
    neuron = layer.neuron
    node = (
        None
        if isinstance(neuron, Sum)
        else neuron_node(layer.name, neuron, layer.shape, network.contract.dt)
    )
    build.add(layer.name, node, sources, layer.shape)


def to_graph(network: Network) -> RawGraph:
    """The graph of a network; its Sum layers are taken out and recorded.

    Raises RequestError: E_NAME, E_SHAPE, E_VALUE, E_EDGES for what a NIR graph cannot hold,
    E_UNSUPPORTED and E_CYCLE for delays and recurrence.
    """
    build = _Builder()
    build.add(network.input, port_node("Input", network.input_shape), [])
    for layer in network.layers:
        _add_layer(build, network, layer)
    shape = network.layer(network.output).shape
    build.add(network.output_port, port_node("Output", shape), [network.output])
    _connected(build.preds, network.input, network.output_port)
    preds, records = eliminate(build.preds, build.sums)
    edges = tuple((source, target) for target in build.nodes for source in preds[target])
    return RawGraph(build.nodes, edges, sums=records)


# --- the shape of a graph ---


def _connected(preds: Preds, first: str, last: str) -> None:
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


def _preds_of(graph: RawGraph) -> Preds:
    preds: Preds = {name: [] for name in graph.nodes}
    if not graph.edges:
        raise RequestError("E_EDGES", "the graph has no edges; expected one or more")
    for source, target in graph.edges:
        for end in (source, target):
            if end not in preds:
                raise RequestError(
                    "E_EDGES",
                    f"the edge '{source}' -> '{target}' names '{end}', which is no node",
                )
        if source in preds[target]:
            raise RequestError("E_EDGES", f"the edge '{source}' -> '{target}' is there twice")
        preds[target].append(source)
    return preds


def _one_port(graph: RawGraph, kind: str) -> str:
    names = [name for name, node in graph.nodes.items() if node.type == kind]
    if len(names) != 1:
        raise RequestError(
            "E_UNSUPPORTED" if names else "E_EDGES",
            f"the graph has {len(names)} {kind} nodes ({', '.join(names) or 'none'}); this "
            "release reads graphs with exactly one",
        )
    return names[0]


def _order(preds: Preds) -> list[str]:
    """A topological order; RequestError (E_CYCLE) names the nodes of a cycle."""
    used = successors(preds)
    waiting = {name: len(sources) for name, sources in preds.items()}
    ready = [name for name, count in waiting.items() if not count]
    order: list[str] = []
    while ready:
        name = ready.pop()
        order.append(name)
        for target in used[name]:
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    if len(order) < len(preds):
        done = set(order)
        walk = [next(name for name in preds if name not in done)]
        while walk[-1] not in walk[:-1]:
            walk.append(next(source for source in preds[walk[-1]] if source not in done))
        cycle = walk[walk.index(walk[-1]) :][::-1]
        raise RequestError(
            "E_CYCLE",
            f"the nodes {' -> '.join(cycle[:12])} form a cycle; recurrence is not read yet",
        )
    return order


def _fresh(name: str, taken: Iterable[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _with_sums(preds: Preds, linear: set[str], last: str) -> Preds:
    """Give Sums to places where branches meet or part around a linear node.

    ``<node>.in`` for several edges into a linear node, ``<node>.out`` for a linear node that feeds
    several, ``readout`` for an Output that is not fed by one population.
    """
    found = {name: list(sources) for name, sources in preds.items()}

    def insert(wanted: str, sources: list[str]) -> str:
        name = _fresh(wanted, found)
        found[name] = sources
        return name

    for node in sorted(linear):
        if len(found[node]) > 1:
            found[node] = [insert(f"{node}.in", found[node])]
    for node, targets in successors(found).items():
        if node in linear and len(targets) > 1:
            name = insert(f"{node}.out", [node])
            for target in targets:
                found[target] = [name if source == node else source for source in found[target]]
    ends = found[last]
    if len(ends) > 1 or ends[0] in linear or not found[ends[0]]:
        found[last] = [insert("readout", ends)]
    return found


# --- graph to Network ---


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which ``layer2`` comes before ``layer10``."""
    parts = re.split(r"(\d+)", name)
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts if p)


def _in_node(name: str, graph: RawGraph, error: RequestError) -> RequestError:
    return RequestError(error.code, f"node '{name}' ({graph.nodes[name].type}): {error.message}")


class _Reader:
    """Walks a graph in topological order and puts layers together."""

    def __init__(self, graph: RawGraph, contract: Contract, preds: Preds) -> None:
        self.graph, self.contract, self.preds = graph, contract, preds
        self.shapes: dict[str, Shape] = {}
        self.chains: dict[str, tuple[str, tuple[Operation, ...]]] = {}
        self.layers: dict[str, Layer] = {}
        self.depth: dict[str, int] = {}

    def visit(self, name: str) -> None:
        """One node, behind all that feed it."""
        node = self.graph.nodes.get(name)
        if node is not None and node.type == "Input":
            self.shapes[name] = tuple(node.params["shape"].tolist())
            self.chains[name], self.depth[name] = (name, ()), 0
        elif node is not None and node.type == "Output":
            self._agrees(name, "shape", self.shapes[self.preds[name][0]])
        elif node is not None and (operation := TYPES[node.type].operation):
            self._linear(name, operation(name, node.params))
        else:
            self._layer(name)

    def _agrees(self, name: str, key: str, expected: Shape) -> None:
        stored = self.graph.nodes[name].params.get(key)
        if stored is not None and tuple(stored.tolist()) != expected:
            raise RequestError(
                "E_SHAPE",
                f"node '{name}' ({self.graph.nodes[name].type}): {key} is {stored.tolist()}, "
                f"what reaches it has {list(expected)}",
            )

    def _linear(self, name: str, operation: Operation) -> None:
        (source,) = self.preds[name]
        shape = self.shapes[source]
        after = shape_after(operation, shape)
        if math.prod(after) > MAX_SIZE:
            raise RequestError(
                "E_LIMIT", f"'{name}' gives shape {list(after)}; expected at most {MAX_SIZE} values"
            )
        self._agrees(name, "input_shape", shape[1:])
        self._agrees(name, "input_type", shape)
        begin, chain = self.chains[source]
        self.shapes[name], self.chains[name] = after, (begin, (*chain, operation))

    def _layer(self, name: str) -> None:
        sources = self.preds[name]
        shape = self.shapes[sources[0]]
        for source in sources:
            if self.shapes[source] != shape:
                raise RequestError(
                    "E_SHAPE",
                    f"'{name}' is fed with shape {list(shape)} by '{sources[0]}' and with "
                    f"{list(self.shapes[source])} by '{source}'; expected one shape",
                )
        synapses = tuple(Synapse(*self.chains[source]) for source in sources)
        self.layers[name] = Layer(name, self._neuron(name, shape), shape, synapses)
        self.depth[name] = 1 + max(self.depth[synapse.source] for synapse in synapses)
        self.shapes[name], self.chains[name] = shape, (name, ())

    def _neuron(self, name: str, shape: Shape) -> Neuron:
        node = self.graph.nodes.get(name)
        if node is None:
            return Sum()
        build = TYPES[node.type].neuron
        if build is None:
            raise RequestError("E_TYPE", f"node '{name}' has the type {node.type}")
        found = node.params["v_threshold"].shape
        if found != shape:
            raise RequestError(
                "E_SHAPE",
                f"node '{name}' ({node.type}): its parameters have shape {list(found)}, what "
                f"reaches it has {list(shape)}",
            )
        try:
            return build(node.params, self.contract.dt)
        except RequestError as error:
            raise _in_node(name, self.graph, error) from error


def from_graph(graph: RawGraph, contract: Contract) -> Network:
    """The network of a graph whose nodes have been checked; the Sums it records are put back.

    A place where branches meet or part and no record says how gets a Sum of its own:
    ``<node>.in`` before a linear node with several edges, ``<node>.out`` behind one that feeds
    several, ``readout`` before the output. Layers come in the order of their depth, then of their
    names (numbers by value); a layer's synapses in the order of the graph's edges.

    Raises RequestError: E_EDGES, E_CYCLE, E_SHAPE, E_VALUE, E_CONTRACT, E_LIMIT, E_UNSUPPORTED.
    """
    first, last = _one_port(graph, "Input"), _one_port(graph, "Output")
    preds = _preds_of(graph)
    _order(preds)
    preds = restore(preds, graph.sums)
    _connected(preds, first, last)
    linear = {name for name, node in graph.nodes.items() if TYPES[node.type].operation}
    preds = _with_sums(preds, linear, last)
    reader = _Reader(graph, contract, preds)
    for name in _order(preds):
        reader.visit(name)
    for record in graph.sums:
        if reader.shapes[record.name] != record.shape:
            raise RequestError(
                "E_CONTRACT",
                f"the contract says shape {list(record.shape)} for the sum '{record.name}', the "
                f"graph gives {list(reader.shapes[record.name])}",
            )
    order = sorted(reader.layers, key=lambda name: (reader.depth[name], natural(name), name))
    return Network(
        first,
        reader.shapes[first],
        tuple(reader.layers[name] for name in order),
        preds[last][0],
        contract,
        last,
    )
