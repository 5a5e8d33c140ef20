"""A NIR file to a raw graph: exact keys per node, known types, values that can be right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RequestError, nearest
from .graph import Edge, RawGraph, legal_name
from .hdf5 import Limits, NirFileError, Tree, read_tree
from .node_types import REFUSED, TYPES, Node, NodeType

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
    """A tree of values to a graph."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self.notes: list[str] = []

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
        kind = self._type(node, "/node")
        if kind != "NIRGraph":
            raise self.error("E_TYPE", "/node/type", f"is {kind!r}; expected 'NIRGraph'")
        if "edges" not in node:
            raise self.error("E_EDGES", "/node/edges", "is missing; expected pairs of names")
        self._keys(node, "/node", {"type", "nodes", "edges"}, {"metadata"})
        nodes = self._nodes(node["nodes"])
        edges = self._edges(node["edges"], nodes)
        metadata = self._metadata(node.get("metadata", {}), "/node/metadata")
        return RawGraph(nodes, edges, metadata, notes=tuple(self.notes))

    def _version(self, version: Any) -> None:
        if not isinstance(version, str):
            self.notes.append(f"{self.path}: names no NIR version")
        elif not version.startswith(VERSIONS):
            self.notes.append(f"{self.path}: was written by NIR {version[:20]!r}, unknown here")

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

    def _type(self, node: Tree, place: str) -> str:
        kind = node.get("type")
        if not isinstance(kind, str):
            found = "is missing" if kind is None else "is not a text"
            raise self.error(
                "E_TYPE", f"{place}/type", f"{found}; expected one of {', '.join(TYPES)}"
            )
        return kind[:100]

    def _nodes(self, group: Any) -> dict[str, Node]:
        if not isinstance(group, dict) or not group:
            raise self.error("E_PARAM", "/node/nodes", "holds no nodes")
        nodes = {}
        for name, content in group.items():
            place = f"/node/nodes/{name}"
            if not legal_name(name):
                raise self.error(
                    "E_NAME",
                    place,
                    "has a name this release does not take; expected 1 to 100 letters, digits, "
                    "'_', '.' or '-'",
                )
            if not isinstance(content, dict):
                raise self.error("E_PARAM", place, "is a data set; expected a group")
            nodes[name] = self._node(content, place)
        return nodes

    def _node(self, content: Tree, place: str) -> Node:
        kind = self._type(content, place)
        if kind in REFUSED:
            raise self.error("E_UNSUPPORTED", place, f"is a {kind}; {REFUSED[kind]}")
        if kind not in TYPES:
            raise self.error(
                "E_TYPE",
                f"{place}/type",
                f"is {kind!r}{nearest(kind, TYPES)}; expected one of {', '.join(TYPES)}",
            )
        row = TYPES[kind]
        required = {"type", *(key for key in row.fields if key not in row.optional)}
        self._keys(content, place, required, {"metadata", *row.optional})
        if "metadata" in content:
            self._metadata(content["metadata"], f"{place}/metadata")
            self.notes.append(f"{self.path}: the metadata of {place} is passed over")
        return Node(kind, self._params(content, place, row))

    def _params(self, content: Tree, place: str, row: NodeType) -> dict[str, Any]:
        params: dict[str, Any] = {}
        for key, parse in row.fields.items():
            if key not in content:
                continue
            try:
                params[key] = parse(content[key])
            except RequestError as error:
                raise self.error(error.code, f"{place}/{key}", error.message) from None
        for key, default in row.optional.items():
            if key not in params and default is not None:
                params[key] = default(params)
                self.notes.append(f"{self.path}: {place} lacks {key}, taken as 0")
        try:
            row.consistent(params)
        except RequestError as error:
            raise self.error(error.code, place, f"does not fit together: {error.message}") from None
        return params

    def _edges(self, raw: Any, nodes: Mapping[str, Node]) -> tuple[Edge, ...]:
        place = "/node/edges"
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
        edges: dict[Edge, None] = {}
        for source, target in raw:
            for end in (source, target):
                if end not in nodes:
                    raise self.error(
                        "E_EDGES",
                        place,
                        f"holds '{source}' -> '{target}', but '{end}' is no node"
                        f"{nearest(end, nodes)}",
                    )
            if (source, target) in edges:
                raise self.error("E_EDGES", place, f"holds '{source}' -> '{target}' twice")
            edges[source, target] = None
        return tuple(edges)

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
