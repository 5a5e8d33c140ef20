"""A NIR file to a raw graph: exact keys per node, known types, values that can be right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, nearest
from .graph import RawGraph, fresh, legal_name
from .hdf5 import Limits, NirFileError, Tree, read_tree
from .loops import Edge
from .node_fields import Params
from .node_types import REFUSED, TYPES, Node, NodeType
from .sums import Preds, eliminate

_ILLEGAL = re.compile(r"[^A-Za-z0-9_.-]")
VERSIONS = ("0.", "1.0")
"""NIR versions whose files are known."""


def read_graph(path: Path, limits: Limits | None = None) -> RawGraph:
    """Read a NIR file; every node is checked by itself, edges by their ends.

    Raises NirFileError, a RequestError, with E_FILE (no such file), E_FORMAT, E_LINK, E_LIMIT,
    E_TYPE, E_PARAM, E_NAME, E_DTYPE, E_SHAPE, E_VALUE, E_EDGES or E_UNSUPPORTED.
    """
    limits = limits or Limits()
    return _Parse(path, limits).graph(read_tree(path, limits))


class _Parse:
    """A tree of values to a graph. A node inside a graph is called ``graph/node`` on the way: no
    name in a file holds a slash."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self.notes: list[str] = []
        self.absent: dict[str, list[str]] = {}
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.ports: dict[str, Edge] = {}
        """Of a graph inside the graph: its Input and its Output."""

    def error(self, code: str, place: str, text: str) -> NirFileError:
        """An error at a place of this file."""
        return NirFileError(code, f"{self.path}: {place} {text}")

    def graph(self, tree: Tree) -> RawGraph:
        """The whole file."""
        self._version(tree.get("version"))
        node = tree.get("node")
        if not isinstance(node, dict):
            raise self.error("E_TYPE", "/node", "is missing; expected a group of type NIRGraph")
        self._keys(tree, "/", {"node"}, {"version"})
        kind = self._type(node, "/node", ["NIRGraph"])
        if kind != "NIRGraph":
            raise self.error("E_TYPE", "/node/type", f"is {kind!r}; expected NIRGraph")
        levels = [("", node, "/node")]
        for level in levels:
            levels += self._level(*level)
        metadata = self._metadata(node.get("metadata", {}), "/node/metadata")
        for text, names in self.absent.items():
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            self.notes.append(f"{text}: {', '.join(names[:5])}{more}")
        called, preds = self._names(), self._flat()
        edges = ((called[source], called[name]) for name in preds for source in preds[name])
        nodes = {called[name]: self.nodes[name] for name in preds}
        return RawGraph(nodes, tuple(edges), metadata, notes=tuple(self.notes))

    def _level(self, prefix: str, graph: Tree, place: str) -> list[tuple[str, Tree, str]]:
        """Take in one graph's own nodes and edges; gives the graphs inside it."""
        if "edges" not in graph:
            raise self.error("E_EDGES", f"{place}/edges", "is missing; expected pairs of names")
        self._keys(graph, place, {"type", "nodes", "edges"}, {"metadata"})
        group = graph["nodes"]
        if not isinstance(group, dict) or not group:
            raise self.error("E_PARAM", f"{place}/nodes", "holds no nodes")
        types: dict[str, str] = {}
        inner = []
        for name, content in group.items():
            where = f"{place}/nodes/{name}"
            if not isinstance(content, dict):
                raise self.error("E_PARAM", where, "is a data set; expected a group")
            types[name] = self._type(content, where, TYPES)
            if types[name] == "NIRGraph":
                inner.append((f"{prefix}{name}/", content, where))
            else:
                self.nodes[prefix + name] = self._node(types[name], content, where)
        edges = self._edges(graph["edges"], types, f"{place}/edges", nested=prefix != "")
        self.edges += [(prefix + source, prefix + target) for source, target in edges]
        if prefix:
            self._pass_over(graph, place)
            self.ports[prefix[:-1]] = self._ports(prefix, types, edges, place)
        return inner

    def _ports(
        self, prefix: str, types: Mapping[str, str], edges: Iterable[Edge], place: str
    ) -> Edge:
        """The Input and the Output of a graph inside a graph."""
        found = []
        for kind, end in (("Input", 1), ("Output", 0)):
            names = [name for name in types if types[name] == kind]
            if len(names) != 1:
                raise self.error(
                    "E_UNSUPPORTED",
                    place,
                    f"has {len(names)} {kind} nodes; graphs inside a graph are read with one",
                )
            if any(edge[end] == names[0] for edge in edges):
                raise self.error(
                    "E_EDGES", f"{place}/edges", "enter its own Input or leave its own Output"
                )
            found.append(prefix + names[0])
        return found[0], found[1]

    def _flat(self) -> Preds:
        """What feeds each node, with the ports between the levels taken out."""
        preds: Preds = {name: [] for name in self.nodes}
        for source, target in self.edges:
            into, out = self.ports.get(target, (target,))[0], self.ports.get(source, (source,))[-1]
            preds[into].append(out)
        inner = dict.fromkeys((port for ports in self.ports.values() for port in ports), ())
        used = {source for sources in preds.values() for source in sources}
        for port in inner:
            if not preds[port] or port not in used:
                text = f"cannot be laid flat: '{port}' is fed by nothing or feeds nothing"
                raise self.error("E_EDGES", "/node", text)
        try:
            return eliminate(preds, inner)[0]
        except RequestError as error:
            raise self.error(error.code, "/node", f"cannot be laid flat: {error.message}") from None

    def _names(self) -> dict[str, str]:
        """Names that can be written; what had to be changed is noted."""
        names: dict[str, str] = {}
        taken = set(self.nodes)
        for name in self.nodes:
            dotted = name.replace("/", ".")
            legal = dotted
            if not legal_name(dotted):
                legal = _ILLEGAL.sub("_", dotted)[:90].strip(".") or "_"
            if legal != name:
                legal = fresh(legal, taken)
            if legal != dotted:
                self.notes.append(f"node {name[:100]!r} is called '{legal}' here")
            names[name] = legal
            taken.add(legal)
        return names

    def _version(self, version: Any) -> None:
        if not isinstance(version, str):
            self.notes.append("names no NIR version")
        elif not version.startswith(VERSIONS):
            self.notes.append(f"was written by NIR {version[:20]!r}, unknown here")

    def _keys(self, group: Tree, place: str, required: set[str], optional: set[str]) -> None:
        known = required | optional
        for key in group:
            if key not in known:
                raise self.error(
                    "E_PARAM",
                    place,
                    f"holds '{key}', which does not belong there"
                    f"{nearest(key, known)}; expected {', '.join(sorted(known))}",
                )
        for key in sorted(required):
            if key not in group:
                raise self.error("E_PARAM", place, f"lacks '{key}'")

    def _type(self, node: Tree, place: str, known: Iterable[str]) -> str:
        kind = node.get("type")
        if not isinstance(kind, str):
            found = "is missing" if kind is None else "is not a text"
            raise self.error("E_TYPE", f"{place}/type", f"{found}; expected {', '.join(known)}")
        return kind[:100]

    def _node(self, kind: str, content: Tree, place: str) -> Node:
        if kind in REFUSED:
            raise self.error("E_UNSUPPORTED", place, f"is a {kind}; {REFUSED[kind]}")
        if kind not in TYPES:
            raise self.error(
                "E_TYPE",
                f"{place}/type",
                f"is {kind!r}{nearest(kind, TYPES)}; expected {', '.join(TYPES)}",
            )
        row = TYPES[kind]
        required = {"type", *(key for key in row.fields if key not in row.optional)}
        self._keys(content, place, required, {"metadata", *row.optional})
        self._pass_over(content, place)
        return Node(kind, self._params(content, place, row))

    def _params(self, content: Tree, place: str, row: NodeType) -> Params:
        params: dict[str, Any] = {}
        for key, parse in row.fields.items():
            if key not in content:
                continue
            try:
                params[key] = parse(content[key])
            except RequestError as error:
                raise self.error(error.code, f"{place}/{key}", error.message) from None
            self._converted(content[key], params[key], f"{place}/{key}")
        for key, default in row.optional.items():
            if key not in params and default is not None:
                params[key] = default(params)
                text = f"no {key} in the file, taken as {params[key].flat[0]:g}"
                self.absent.setdefault(text, []).append(place.rpartition("/")[2])
        try:
            return row.settle(params)
        except RequestError as error:
            raise self.error(error.code, place, f"does not fit together: {error.message}") from None

    def _converted(self, raw: Any, params: NDArray[Any], place: str) -> None:
        """Note what will not run with the numbers as they are stored."""
        if not isinstance(raw, np.ndarray) or params.dtype.kind != "f":
            return
        if raw.dtype not in (np.dtype("<f4"), np.dtype("<f8")):
            self.notes.append(f"{place} holds {raw.dtype}, taken as {params.dtype}")
        elif place.endswith(("/weight", "/bias", "/scale")):
            off = int((params.astype("<f4") != params).sum())
            if off:
                self.notes.append(f"{place} holds float64, {off} numbers of it rounded to float32")

    def _edges(
        self, raw: Any, types: Mapping[str, str], place: str, nested: bool
    ) -> tuple[Edge, ...]:
        if not isinstance(raw, np.ndarray) or not raw.size:
            raise self.error("E_EDGES", place, "holds no edges; expected pairs of names")
        if raw.dtype.kind != "O" or raw.ndim != 2 or raw.shape[1] != 2:
            kind = "texts" if raw.dtype.kind == "O" else str(raw.dtype)
            raise self.error(
                "E_EDGES", place, f"holds {kind} of shape {list(raw.shape)}; expected names [E, 2]"
            )
        if len(raw) > self.limits.edges:
            raise self.error(
                "E_LIMIT", place, f"holds {len(raw)} edges; expected {self.limits.edges} at most"
            )
        pairs = [(str(source), str(target)) for source, target in raw]
        if nested:
            pairs = self._mended(pairs, types, place)
        edges: dict[Edge, None] = {}
        for source, target in pairs:
            for end in (source, target):
                if end not in types:
                    raise self.error(
                        "E_EDGES",
                        place,
                        f"holds {source[:100]!r} -> {target[:100]!r}, but {end[:100]!r} is no node"
                        f"{nearest(end, types)}",
                    )
            if (source, target) in edges:
                raise self.error("E_EDGES", place, f"holds '{source}' -> '{target}' twice")
            edges[source, target] = None
        return tuple(edges)

    def _mended(self, pairs: list[Edge], types: Mapping[str, str], place: str) -> list[Edge]:
        """Edges of a graph inside a graph that call its only neuron by a name no node has."""
        used = {end for pair in pairs for end in pair}
        unknown = used - types.keys()
        neurons = [name for name, kind in types.items() if kind in TYPES and TYPES[kind].neuron]
        if len(unknown) != 1 or len(neurons) != 1 or neurons[0] in used:
            return pairs
        (wrong,), (right,) = unknown, neurons
        self.notes.append(f"{place} says {wrong[:100]!r} for the only neurons, '{right}'; taken so")
        return [(right if a == wrong else a, right if b == wrong else b) for a, b in pairs]

    def _pass_over(self, content: Tree, place: str) -> None:
        """Metadata of a part are held against their limit and not kept."""
        if "metadata" in content:
            self._metadata(content["metadata"], f"{place}/metadata")
            self.notes.append(f"the metadata of {place} is passed over")

    def _metadata(self, raw: Any, place: str) -> Tree:
        """A group of texts and numbers, not above its limit."""
        if not isinstance(raw, dict):
            raise self.error("E_PARAM", place, "is a data set; expected a group")
        size = 0
        clean: Tree = {}
        stack: list[tuple[Tree, Tree]] = [(raw, clean)]
        while stack:
            group, into = stack.pop()
            for key, value in group.items():
                if isinstance(value, dict):
                    into[key] = {}
                    stack.append((value, into[key]))
                    continue
                size += len(value.encode()) if isinstance(value, str) else value.nbytes
                single = isinstance(value, np.ndarray) and value.ndim == 0
                into[key] = value.item() if single else value
        if size > self.limits.metadata_bytes:
            raise self.error(
                "E_LIMIT",
                place,
                f"holds {size} bytes; expected {self.limits.metadata_bytes} at most",
            )
        return clean
