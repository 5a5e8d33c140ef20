"""Read an HDF5 file with suspicion: an explicit walk that looks before it reads.

NIR's own reader follows links to other files and allocates whatever a file asks for. This one
opens hard links only, reads no external or virtual storage, and holds every size against a limit
first; a file it cannot accept ends in one `NirFileError`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import RequestError
from .heap import Heap, HeapError
from .node_fields import MAX_EDGES, Value

MIB = 2**20
SMALL = MIB
"""Data sets up to this size may be stored as tightly as they like."""
GZIP_RATIO = 2000
"""gzip reaches 1032 to 1; a data set that claims more was never written."""
FILTERS = {h5py.h5z.FILTER_DEFLATE: "gzip", h5py.h5z.FILTER_SHUFFLE: "shuffle"}

Tree = dict[str, Any]
"""A group as read: name to numbers (0-d for one), text, or another tree."""


@dataclass(frozen=True)
class Limits:
    """What a file may ask for."""

    dataset_bytes: int = 512 * MIB
    total_bytes: int = 2048 * MIB
    depth: int = 16
    nodes: int = 10_000
    edges: int = MAX_EDGES
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
        self.heap = Heap(path, 64 * MIB)
        self.visited: set[int] = set()
        self.size = 0
        self.stored = 0

    def error(self, code: str, place: str, text: str) -> NirFileError:
        """An error at a place of this file."""
        return NirFileError(code, f"{self.path}: {place} {text}")

    def tree(self, file: h5py.File) -> Tree:
        """Everything in the file."""
        with _reading(self.path, "the file"):
            plist = file.id.get_create_plist()
            plain = plist.get_sizes() == (8, 8) and plist.get_userblock() == 0
        if not plain:
            raise self.error("E_FORMAT", "/", "has a form that nobody writes (address sizes)")
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
            names: list[Any] = list(group)
        for name in names:
            if not isinstance(name, str):  # h5py hands out bytes that are not UTF-8 as they are
                raise self.error("E_NAME", place, f"holds the name {name[:40]!r}, not UTF-8")
            size = len(name.encode("utf-8", "surrogateescape"))
            if size > self.limits.name_bytes:
                raise self.error(
                    "E_LIMIT",
                    place,
                    f"holds a name of {size} bytes; expected {self.limits.name_bytes} at most",
                )
            if not name.isprintable() or "/" in name:
                raise self.error("E_NAME", place, f"holds the name {name!r}; expected plain text")
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
        if dtype.kind in "OS":
            self._count(place, shape)
        if dtype.kind == "O":
            return self._strings(item, place, shape)
        with _reading(self.path, place):
            values = np.asarray(item[()], dtype)
        return self._texts(values.ravel().tolist(), place, shape) if dtype.kind == "S" else values

    def _dtype(self, item: Any, place: str) -> np.dtype[Any]:
        try:
            dtype: np.dtype[Any] = item.dtype
        except (TypeError, ValueError, RuntimeError) as error:
            raise self.error(
                "E_DTYPE", place, f"has a type numpy does not know ({error})"
            ) from None
        text = h5py.check_string_dtype(dtype) if dtype.kind == "O" else None
        fixed = dtype.kind == "S" and dtype.itemsize <= self.limits.name_bytes
        if dtype.kind not in "fiub" and not fixed and (text is None or text.length is not None):
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

    def _count(self, place: str, shape: tuple[int, ...]) -> None:
        count, most = math.prod(shape), 2 * self.limits.edges
        if count > most:
            raise self.error("E_LIMIT", place, f"holds {count} texts; expected {most} at most")

    def _strings(self, item: Any, place: str, shape: tuple[int, ...]) -> Value:
        """Texts of any length: references into the heap."""
        count = math.prod(shape)
        if not count:
            return np.empty(shape, object)
        with _reading(self.path, place):
            offset = item.id.get_offset()
            whole = item.id.get_storage_size() == 16 * count
        if offset is None or not whole:
            raise self.error("E_FORMAT", place, "holds texts in pieces; expected them in one row")
        longest = self.limits.name_bytes if shape else self.limits.metadata_bytes
        try:
            raw = self.heap.texts(offset, count, longest)
        except HeapError as error:
            raise self.error(error.code, place, f"is refused: {error}") from error
        return self._texts(raw, place, shape)

    def _texts(self, raw: list[bytes], place: str, shape: tuple[int, ...]) -> Value:
        """A text, or an object array of texts."""
        try:
            texts = [data.decode("utf-8") for data in raw]
        except UnicodeDecodeError as error:
            raise self.error("E_FORMAT", place, "holds a text that is not UTF-8") from error
        if not shape:
            return texts[0]
        array = np.empty(len(texts), object)
        array[:] = texts
        return array.reshape(shape)


def read_tree(path: Path, limits: Limits | None = None) -> Tree:
    """Everything in an HDF5 file, read into memory, numbers as they are stored.

    Raises NirFileError: E_FILE (no such file), E_FORMAT, E_LINK, E_LIMIT, E_NAME, E_DTYPE,
    E_PARAM.
    """
    if not path.is_file():
        raise NirFileError("E_FILE", f"{path}: there is no such file")
    with _reading(path, "the file"):
        file = h5py.File(path, "r")
    try:
        return _Walk(path, limits or Limits()).tree(file)
    finally:
        file.close()
