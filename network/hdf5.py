"""Read a NIR file with suspicion: an explicit walk over the HDF5, then exact keys per node.

NIR's own reader follows links to other files and allocates whatever a file asks for. This one
opens hard links only, reads no external or virtual storage, and looks at every size before it
reads; a file it cannot accept ends in one `NirFileError`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import RequestError, nearest
from .graph import Edge, RawGraph, legal_name
from .node_types import REFUSED, TYPES, Node, NodeType, Value

MIB = 2**20
SMALL = MIB
"""Data sets up to this size may be stored as tightly as they like."""
GZIP_RATIO = 2000
"""gzip reaches 1032 to 1; a data set that claims more was never written."""
FILTERS = {h5py.h5z.FILTER_DEFLATE: "gzip", h5py.h5z.FILTER_SHUFFLE: "shuffle"}
VERSIONS = ("0.", "1.0")

Tree = dict[str, Any]
"""A group as read: name to numbers (0-d for one), text, or another tree."""


@dataclass(frozen=True)
class Limits:
    """What a file may ask for."""

    dataset_bytes: int = 512 * MIB
    total_bytes: int = 2048 * MIB
    depth: int = 16
    nodes: int = 10_000
    edges: int = 100_000
    name_bytes: int = 200
    metadata_bytes: int = MIB


class NirFileError(RequestError):
    """A NIR file that cannot be accepted; the message names the file and the place in it."""


@contextmanager
def _reading(path: Path, place: str) -> Iterator[None]:
    """HDF5's own complaints about a damaged file; only calls into h5py stand inside.

    h5py raises OSError, RuntimeError and KeyError for what the library reports, ValueError and
    TypeError for headers that make no sense to numpy, and MemoryError when it gets no memory.
    """
    try:
        yield
    except MemoryError as error:
        raise NirFileError(
            "E_LIMIT", f"{path}: {place} does not fit into this machine's memory"
        ) from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = str(error).replace("\n", " ")[:200]
        raise NirFileError(
            "E_FORMAT", f"{path}: {place} is not readable as HDF5 ({reason})"
        ) from error


class _Walk:
    """One pass over a file's objects, with everything counted."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self.file_bytes = path.stat().st_size
        self.visited: set[int] = set()
        self.size = 0
        self.stored = 0

    def error(self, code: str, place: str, text: str) -> NirFileError:
        """An error at a place of this file."""
        return NirFileError(code, f"{self.path}: {place} {text}")

    def tree(self, file: h5py.File) -> Tree:
        """Everything in the file."""
        root: Tree = {}
        self._visit(file, "/")
        stack: list[tuple[Any, str, int, Tree]] = [(file, "", 1, root)]
        while stack:
            group, place, depth, into = stack.pop()
            if depth > self.limits.depth:
                raise self.error(
                    "E_LIMIT", place, f"lies {depth} groups deep; expected {self.limits.depth}"
                )
            for name in self._names(group, place or "/"):
                here = f"{place}/{name}"
                item = self._open(group, name, here)
                if isinstance(item, h5py.Group):
                    into[name] = {}
                    stack.append((item, here, depth + 1, into[name]))
                elif isinstance(item, h5py.Dataset):
                    into[name] = self._read(item, here)
                else:
                    raise self.error("E_FORMAT", here, "is neither a group nor a data set")
        return root

    def _names(self, group: Any, place: str) -> list[str]:
        with _reading(self.path, place):
            count = len(group)
        if count > self.limits.nodes:
            raise self.error(
                "E_LIMIT", place, f"holds {count} objects; expected {self.limits.nodes} at most"
            )
        with _reading(self.path, place):
            names = list(group)
        for name in names:
            size = len(name.encode("utf-8", "surrogateescape"))
            if size > self.limits.name_bytes:
                raise self.error(
                    "E_LIMIT",
                    f"{place}",
                    f"holds a name of {size} bytes; expected {self.limits.name_bytes} at most",
                )
            if not name.isprintable() or "/" in name:
                raise self.error(
                    "E_NAME", place, f"holds the name {name!r}, which is not printable"
                )
        return names

    def _open(self, group: Any, name: str, place: str) -> Any:
        with _reading(self.path, place):
            link = group.get(name, getlink=True)
        if type(link) is not h5py.HardLink:
            kind = type(link).__name__
            raise self.error("E_LINK", place, f"is a {kind}; expected data in the file itself")
        with _reading(self.path, place):
            item = group[name]
        self._visit(item, place)
        return item

    def _visit(self, item: Any, place: str) -> None:
        with _reading(self.path, place):
            address = h5py.h5o.get_info(item.id).addr
        if address in self.visited:
            raise self.error("E_LINK", place, "is reached twice; expected every object once")
        self.visited.add(address)

    def _read(self, item: Any, place: str) -> Value:
        with _reading(self.path, place):
            elsewhere = item.is_virtual or item.external
            shape, plist = item.shape, item.id.get_create_plist()
            filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        if elsewhere:
            raise self.error("E_LINK", place, "is stored outside the file; expected data inside")
        if shape is None:
            raise self.error("E_PARAM", place, "has no content (a null data space)")
        for code in filters:
            if code not in FILTERS:
                raise self.error(
                    "E_FORMAT",
                    place,
                    f"is stored through filter {code}; expected {', '.join(FILTERS.values())}",
                )
        dtype = self._dtype(item, place)
        self._allow(item, place, shape, dtype)
        if dtype.kind == "O":
            return self._strings(item, place, shape)
        with _reading(self.path, place):
            return np.asarray(item[()], dtype.newbyteorder("="))

    def _dtype(self, item: Any, place: str) -> np.dtype[Any]:
        try:
            dtype: np.dtype[Any] = item.dtype
        except (TypeError, ValueError, RuntimeError) as error:
            raise self.error(
                "E_DTYPE", place, f"has a type numpy does not know ({error})"
            ) from None
        text = h5py.check_string_dtype(dtype) if dtype.kind == "O" else None
        if dtype.kind not in "fiub" and (text is None or text.length is not None):
            raise self.error("E_DTYPE", place, f"has dtype {dtype}; expected numbers or texts")
        return dtype

    def _allow(self, item: Any, place: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Every size is looked at before anything is allocated."""
        with _reading(self.path, place):
            stored = item.id.get_storage_size()
            chunks = item.chunks
        size = math.prod(shape) * dtype.itemsize
        chunk = math.prod(chunks) * dtype.itemsize if chunks else 0
        self.size += size
        self.stored += stored
        limit = self.limits.dataset_bytes
        if size > limit:
            raise self.error("E_LIMIT", place, f"holds {size} bytes; expected {limit} at most")
        if chunk > max(size, SMALL):
            raise self.error(
                "E_LIMIT", place, f"is cut into chunks of {chunk} bytes, more than it holds"
            )
        if self.size > self.limits.total_bytes:
            raise self.error(
                "E_LIMIT",
                place,
                f"brings the file's content to {self.size} bytes; expected "
                f"{self.limits.total_bytes} at most",
            )
        if (size > SMALL and stored * GZIP_RATIO < size) or (
            self.size > 64 * SMALL and self.stored * GZIP_RATIO < self.size
        ):
            raise self.error(
                "E_LIMIT",
                place,
                f"claims {size} bytes of which {stored} are stored; no compression does that",
            )

    def _strings(self, item: Any, place: str, shape: tuple[int, ...]) -> Value:
        """A text, or an object array of texts, read a few at a time.

        Many elements may share one long text; none is longer than the file, so that is how many
        are taken at once.
        """
        count = math.prod(shape)
        if count > 2 * self.limits.edges:
            raise self.error(
                "E_LIMIT", place, f"holds {count} texts; expected {2 * self.limits.edges} at most"
            )
        if shape == ():
            with _reading(self.path, place):
                raw = item[()]
            return self._text(raw, place, self.limits.metadata_bytes)
        if len(shape) != 2 or shape[1] != 2:
            raise self.error(
                "E_SHAPE", place, f"holds texts of shape {list(shape)}; expected one, or [E, 2]"
            )
        texts = np.empty(shape, object)
        rows = max(1, 32 * MIB // max(self.file_bytes, 1))
        for start in range(0, shape[0], rows):
            with _reading(self.path, place):
                block = item[start : start + rows]
            for at, raw in np.ndenumerate(block):
                text = self._text(raw, place, self.limits.name_bytes)
                texts[start + at[0], at[1]] = text
        return texts

    def _text(self, raw: Any, place: str, limit: int) -> str:
        data = raw.encode("utf-8", "surrogateescape") if isinstance(raw, str) else bytes(raw)
        if len(data) > limit:
            raise self.error(
                "E_LIMIT", place, f"holds a text of {len(data)} bytes; expected {limit} at most"
            )
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error("E_FORMAT", place, "holds a text that is not UTF-8") from error


def read_graph(path: Path, limits: Limits | None = None) -> RawGraph:
    """Read a NIR file; every node is checked by itself, edges by their ends.

    Raises NirFileError, a RequestError, with E_FILE (no such file), E_FORMAT, E_LINK, E_LIMIT,
    E_TYPE, E_PARAM, E_NAME, E_DTYPE, E_SHAPE, E_VALUE, E_EDGES or E_UNSUPPORTED.
    """
    if not path.is_file():
        raise NirFileError("E_FILE", f"{path}: there is no such file")
    limits = limits or Limits()
    with _reading(path, "the file"):
        file = h5py.File(path, "r")
    try:
        tree = _Walk(path, limits).tree(file)
    finally:
        file.close()
    return _Parse(path, limits).graph(tree)


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
        if raw.dtype.kind != "O":
            raise self.error(
                "E_EDGES", place, f"holds {raw.dtype} of shape {list(raw.shape)}; expected names"
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
        size, stack = 0, list(raw.values())
        while stack:
            value = stack.pop()
            if isinstance(value, dict):
                stack.extend(value.values())
            else:
                size += len(value.encode()) if isinstance(value, str) else value.nbytes
        if size > self.limits.metadata_bytes:
            raise self.error(
                "E_LIMIT",
                place,
                f"holds {size} bytes; expected {self.limits.metadata_bytes} at most",
            )
        return raw
