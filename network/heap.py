"""Texts of an HDF5 file, taken from its global heap by hand.

The HDF5 library follows a damaged heap without end (seen with 2.0.0 and a few flipped bits), and
hands out texts of any length. The heap is simple (HDF5 File Format Specification, III.E): an
element of a data set of texts is a length, the address of a collection and an index in it; a
collection is a list of numbered objects.
"""

from __future__ import annotations

import struct
from pathlib import Path

_REFERENCE = struct.Struct("<IQI")
_COLLECTION = struct.Struct("<4sB3xQ")
_OBJECT = struct.Struct("<HHIQ")


class HeapError(Exception):
    """The heap, or a reference into it, makes no sense; or (E_LIMIT) a text is too long."""

    def __init__(self, text: str, code: str = "E_FORMAT") -> None:
        super().__init__(text)
        self.code = code


class Heap:
    """The global heap of one file; collections are read once, ``most`` bytes of them at most."""

    def __init__(self, path: Path, most: int) -> None:
        self.path, self.most = path, most
        self.size = path.stat().st_size
        self.collections: dict[int, dict[int, bytes]] = {}

    def texts(self, offset: int, count: int, longest: int) -> list[bytes]:
        """``count`` texts whose references lie at a file offset.

        Raises HeapError, also for a text of more than ``longest`` bytes.
        """
        raw = self._bytes(offset, count * _REFERENCE.size)
        return [
            self._text(length, address, index, longest)
            for length, address, index in _REFERENCE.iter_unpack(raw)
        ]

    def _bytes(self, offset: int, count: int) -> bytes:
        if not 0 <= offset <= offset + count <= self.size:
            raise HeapError("it points behind the end of the file")
        with self.path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(count)

    def _text(self, length: int, address: int, index: int, longest: int) -> bytes:
        if length > longest:
            raise HeapError(
                f"it holds a text of {length} bytes; expected {longest} at most", "E_LIMIT"
            )
        if not length:
            return b""
        if address not in self.collections:
            self.collections[address] = self._collection(address)
        found = self.collections[address].get(index)
        if found is None or len(found) < length:
            raise HeapError(f"its text {index} is not in the heap")
        return found[:length]

    def _collection(self, address: int) -> dict[int, bytes]:
        signature, version, size = _COLLECTION.unpack(self._bytes(address, _COLLECTION.size))
        if signature != b"GCOL" or version != 1:
            raise HeapError("it points to no heap")
        self.most -= size
        if self.most < 0:
            raise HeapError(f"its heap claims {size} bytes, too many", "E_LIMIT")
        content = self._bytes(address, size)
        objects = {}
        at = _COLLECTION.size
        while at + _OBJECT.size <= size:
            index, _, _, length = _OBJECT.unpack_from(content, at)
            if index == 0:  # free space, up to the end
                break
            start = at + _OBJECT.size
            if length > size - start:
                raise HeapError(f"its text {index} leaves the heap")
            objects[index] = content[start : start + length]
            at = start + -(-length // 8) * 8
        return objects
