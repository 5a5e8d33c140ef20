"""From a NIR graph to a Network: chains of linear nodes become synapses, loops get their order."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

from ..errors import RequestError
from .graph import RawGraph, connected, fresh, legal_name
from .layers import Layer, Network, Operation, Shape, Synapse
from .loops import Edge, back_edges, ordered
from .neurons import Neuron, Sum
from .node_fields import MAX_SIZE
from .node_types import TYPES
from .semantics import Semantics
from .shapes import shape_after
from .sums import Preds, restore, successors

Chain = tuple[str, tuple[str, ...]]
"""A source and the linear nodes behind it, by name."""
Note = Callable[[str], None]


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
        preds[target].append(source)
    for target, sources in preds.items():
        if len(set(sources)) < len(sources):
            raise RequestError("E_EDGES", f"an edge into '{target}' is there twice")
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


def _with_sums(preds: Preds, linear: set[str], last: str) -> Preds:
    """Give Sums to places where branches meet or part around a linear node.

    ``<node>.in`` for several edges into a linear node, ``<node>.out`` for a linear node that feeds
    several, ``readout`` for an Output that is not fed by one population.
    """
    found = {name: list(sources) for name, sources in preds.items()}

    def insert(wanted: str, sources: list[str]) -> str:
        name = fresh(wanted, found)
        found[name] = sources
        return name

    for node in sorted(linear):
        if len(found[node]) > 1:
            found[node] = [insert(f"{node[:90]}.in", found[node])]
    parted = sorted(node for node, targets in successors(found).items() if len(targets) > 1)
    sums = {node: insert(f"{node[:90]}.out", [node]) for node in parted if node in linear}
    for target in found.keys() - set(sums.values()):
        found[target] = [sums.get(source, source) for source in found[target]]
    ends = found[last]
    if len(ends) > 1 or ends[0] in linear or not found[ends[0]]:
        found[last] = [insert("readout", ends)]
    return found


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which ``layer2`` comes before ``layer10``."""
    parts = re.split(r"(\d+)", name)
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts if p)


class _Reader:
    """Puts layers together, in the order of a step."""

    def __init__(self, graph: RawGraph, semantics: Semantics, preds: Preds, note: Note) -> None:
        self.graph, self.semantics, self.note = graph, semantics, note
        linear = {name for name, node in graph.nodes.items() if TYPES[node.type].operation}
        self.preds = _with_sums(preds, linear, _one_port(graph, "Output"))
        self.linear = linear
        self.chains = {
            name: [self._chain(source) for source in sources]
            for name, sources in self.preds.items()
            if name not in linear
        }
        """What feeds the nodes that are not linear, edge by edge."""
        self.shapes: dict[str, Shape] = {}
        self.built: dict[Chain, tuple[tuple[Operation, ...], Shape]] = {}
        self.layers: dict[str, Layer] = {}

    def _chain(self, name: str) -> Chain:
        chain: dict[str, None] = {}
        while name in self.linear:
            if name in chain:
                loop = " -> ".join(list(chain)[:-13:-1])
                raise RequestError(
                    "E_CYCLE", f"the linear nodes {loop} form a loop in which nothing has a state"
                )
            chain[name] = None
            (name,) = self.preds[name]
        return name, tuple(reversed(chain))

    def operations(self, chain: Chain) -> tuple[tuple[Operation, ...], Shape]:
        """A chain's operations, and the shape behind them."""
        if chain not in self.built:
            self.built[chain] = self._built(chain)
        return self.built[chain]

    def _built(self, chain: Chain) -> tuple[tuple[Operation, ...], Shape]:
        source, names = chain
        shape = self.shapes[source]
        found = []
        for name in names:
            node = self.graph.nodes[name]
            build = TYPES[node.type].operation
            if build is None:  # `linear` holds names of nodes with one
                raise TypeError(node.type)
            try:
                operation = build(name, node.params, self.semantics)
            except RequestError as error:
                raise self._in_node(name, error) from error
            after = shape_after(operation, shape)
            if math.prod(after) > MAX_SIZE:
                raise RequestError(
                    "E_LIMIT",
                    f"'{name}' gives shape {list(after)}; expected at most {MAX_SIZE} values",
                )
            self.agrees(name, "input_shape", shape[1:])
            self.agrees(name, "input_type", shape)
            self._spans(name, shape)
            shape = after
            found.append(operation)
        return tuple(found), shape

    def _in_node(self, name: str, error: RequestError) -> RequestError:
        kind = self.graph.nodes[name].type
        return RequestError(error.code, f"node '{name}' ({kind}): {error.message}")

    def agrees(self, name: str, key: str, expected: Shape) -> None:
        """Hold a shape that the file states against what reaches the node; zeros state nothing."""
        stored = self.graph.nodes[name].params.get(key)
        if stored is not None and stored.any() and tuple(stored.tolist()) != expected:
            raise RequestError(
                "E_SHAPE",
                f"node '{name}' ({self.graph.nodes[name].type}): {key} is {stored.tolist()}, "
                f"what reaches it has {list(expected)}",
            )

    def _spans(self, name: str, shape: Shape) -> None:
        """A scale or a delay is one for all, one per value, or as many as broadcast to them."""
        node = self.graph.nodes[name]
        for key in {"scale", "delay"} & node.params.keys():
            found = node.params[key].shape
            pairs = zip(found, shape, strict=False)
            if found and (len(found) != len(shape) or any(n not in (1, m) for n, m in pairs)):
                raise RequestError(
                    "E_SHAPE",
                    f"node '{name}' ({node.type}): {key} has shape {list(found)}, what reaches it "
                    f"has {list(shape)}",
                )

    def layer(self, name: str, late: set[Edge]) -> None:
        """One layer, as yet without its synapses: ``late`` ones may come from layers behind it."""
        early = [chain for chain in self.chains[name] if (chain[0], name) not in late]
        shape = self.operations(early[0])[1] if early else self._stated(name)
        self.shapes[name] = shape
        self.layers[name] = Layer(name, self._neuron(name, shape), shape, ())

    def _stated(self, name: str) -> Shape:
        """The shape that a file states for a layer: of a Sum its record does."""
        if name in self.graph.nodes:
            shape: Shape = next(iter(self.graph.nodes[name].params.values())).shape
            return shape
        return next((record.shape for record in self.graph.sums if record.name == name), ())

    def connect(self, name: str) -> None:
        """The synapses of a layer, once the shapes of all layers are known."""
        layer = self.layers[name]
        synapses = []
        for chain, pred in zip(self.chains[name], self.preds[name], strict=True):
            operations, shape = self.operations(chain)
            if shape != layer.shape:
                raise RequestError(
                    "E_SHAPE",
                    f"'{name}' is fed with shape {list(layer.shape)} and, by '{pred}', with "
                    f"{list(shape)}; expected one shape",
                )
            synapses.append(Synapse(chain[0], operations))
        self.layers[name] = replace(layer, synapses=tuple(synapses))

    def _neuron(self, name: str, shape: Shape) -> Neuron:
        node = self.graph.nodes.get(name)
        if node is None:
            return Sum()
        build = TYPES[node.type].neuron
        if build is None:
            raise RequestError("E_TYPE", f"node '{name}' has the type {node.type}")
        found = next(iter(node.params.values())).shape
        if found not in ((), shape):
            raise RequestError(
                "E_SHAPE",
                f"node '{name}' ({node.type}): its parameters have shape {list(found)}, what "
                f"reaches it has {list(shape)}",
            )
        if not found and shape:
            self.note(
                f"node '{name}' has single numbers as parameters, taken for all {list(shape)}"
            )
        try:
            neuron = build(node.params, self.semantics)
        except RequestError as error:
            raise self._in_node(name, error) from error
        reason = self.semantics.accepts(node.type, node.params, self.semantics.contract.dt)
        if reason:
            raise RequestError("E_SEMANTICS", f"node '{name}' ({node.type}): {reason}")
        return neuron


def _order(reader: _Reader, late: set[Edge], first: str) -> list[str]:
    """Layers by depth, then by name (numbers by value)."""
    inner = [n for n in reader.preds if n != first and n not in reader.linear]
    preds = {
        name: [source for source, _ in reader.chains[name] if (source, name) not in late]
        for name in inner
    }
    try:
        order = ordered({first: [], **preds})
    except RequestError as error:
        if reader.graph.back_edges is not None:
            text = f"the contract's back edges leave a loop closed: {error.message}"
            raise RequestError("E_CONTRACT", text) from None
        raise RequestError(
            "E_CYCLE", f"{error.message} form a loop that no path from '{first}' leads into"
        ) from None
    depth = {first: 0}
    for name in order:
        if name == first:
            continue
        depth[name] = 1 + max((depth[source] for source in preds[name]), default=0)
    return sorted(inner, key=lambda name: (depth[name], natural(name), name))


def from_graph(graph: RawGraph, semantics: Semantics, note: Note = lambda _: None) -> Network:
    """The network of a graph whose nodes have been checked; the Sums it records are put back.

    A place where branches meet or part and no record says how gets a Sum of its own:
    ``<node>.in`` before a linear node with several edges, ``<node>.out`` behind one that feeds
    several, ``readout`` before the output. Where layers feed each other in a loop the graph's back
    edges are late, or those that `back_edges` finds. Layers come in the order of their depth, then
    of their names (numbers by value); a layer's synapses in the order of the graph's edges.
    ``note`` is told what was taken with tolerance.

    Raises RequestError: E_EDGES, E_CYCLE, E_SHAPE, E_VALUE, E_CONTRACT, E_LIMIT, E_UNSUPPORTED,
    E_SEMANTICS.
    """
    for record in graph.sums:
        if not legal_name(record.name):
            raise RequestError("E_CONTRACT", f"{record.name[:120]!r} cannot name a sum")
    first, last = _one_port(graph, "Input"), _one_port(graph, "Output")
    preds = restore(_preds_of(graph), graph.sums)
    connected(preds, first, last)
    reader = _Reader(graph, semantics, preds, note)
    reader.shapes[first] = tuple(graph.nodes[first].params["shape"].tolist())
    inner = [n for n in reader.preds if n not in (first, last) and n not in reader.linear]
    edges = {(source, name) for name in inner for source, _ in reader.chains[name]}
    late = set(graph.back_edges) if graph.back_edges is not None else back_edges(edges, first)
    if unknown := late - edges:
        raise RequestError("E_CONTRACT", f"the contract's back edge {min(unknown)} is no edge")
    order = [name for name in _order(reader, late, first) if name != last]
    for name in order:
        reader.layer(name, late)
    for name in order:
        reader.connect(name)
    for record in graph.sums:
        if reader.shapes[record.name] != record.shape:
            raise RequestError(
                "E_CONTRACT",
                f"the contract says shape {list(record.shape)} for the sum '{record.name}', the "
                f"graph gives {list(reader.shapes[record.name])}",
            )
    output = reader.preds[last][0]
    if "shape" in graph.nodes[last].params:
        reader.agrees(last, "shape", reader.shapes[output])
    layers = tuple(reader.layers[name] for name in order)
    network = Network(first, reader.shapes[first], layers, output, semantics.contract, last)
    _late_as_said(network, late)
    return network


def _late_as_said(network: Network, late: set[Edge]) -> None:
    for layer in network.layers:
        for synapse in layer.synapses:
            edge = (synapse.source, layer.name)
            if network.late(layer, synapse) != (edge in late):
                raise RequestError(
                    "E_CONTRACT",
                    f"the contract's back edges and the graph disagree about {edge[0]!r} -> "
                    f"{edge[1]!r}",
                )
