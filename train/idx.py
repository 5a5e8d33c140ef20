"""The idx format of the MNIST family, plain or gzipped, and the data sets kept in it.

Big-endian: two zero bytes, the element type (8: uint8), the number of dimensions, one uint32 per
dimension, then the values, last index fastest.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CouldNotRunError, RequestError
from ..network.contract import InputCoding
from .dataset import Examples, Split
from .fetch import Remote, fetch, find

_MOST_PACKED = 1032
"""Deflate never packs better than this (zlib's technical details)."""


def read_idx(path: Path, item: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read an idx file of uint8 items, gzipped or not, as (N, *item).

    Raises RequestError (E_DATA) for another magic number, another item shape, or a length that is
    not the one its header says; CouldNotRunError (E_DATA) when the file cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            gzipped = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            if not gzipped:
                return _values(stream, path, item)
            with gzip.GzipFile(fileobj=stream) as unzipped:
                return _values(unzipped, path, item)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise RequestError("E_DATA", f"{path}: its gzip data is damaged ({error})") from error
    except OSError as error:
        raise CouldNotRunError("E_DATA", f"cannot read {path}: {error.strerror}") from error


def _values(stream: BufferedIOBase, path: Path, item: tuple[int, ...]) -> NDArray[np.uint8]:
    expected = bytes((0, 0, 8, 1 + len(item)))
    magic = stream.read(4)
    if magic != expected:
        raise RequestError(
            "E_DATA",
            f"{path}: its magic number is 0x{magic.hex()}, expected 0x{expected.hex()} "
            f"(uint8, {1 + len(item)} dimensions)",
        )
    header = stream.read(4 * (1 + len(item)))
    if len(header) < 4 * (1 + len(item)):
        raise RequestError("E_DATA", f"{path}: ends within its header")
    count, *sizes = struct.unpack(f">{1 + len(item)}I", header)
    if tuple(sizes) != item:
        raise RequestError("E_DATA", f"{path}: its items are {tuple(sizes)}, expected {item}")
    length = count * math.prod(item)
    size = path.stat().st_size
    if length > _MOST_PACKED * size:  # before the read, which allocates what it is asked for
        raise RequestError(
            "E_DATA",
            f"{path}: its header promises {length} bytes of data, more than a file of {size} bytes "
            "can hold",
        )
    data = stream.read(length + 1)
    if len(data) != length:
        found = "more" if len(data) > length else f"only {len(data)}"
        raise RequestError(
            "E_DATA", f"{path}: its header promises {length} bytes of data, there are {found}"
        )
    return np.frombuffer(data, np.uint8).reshape(count, *item).copy()  # bytes are read-only


_FILES: Mapping[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class IdxImages:
    """A data set in four idx files: 28x28 grey images and their labels, train and test.

    ``addresses`` are folders on the web that serve the gzipped files; ``sha256`` says what those
    hold, file name (without .gz) to digest. Files of one's own are read whatever their hash.
    """

    name: str
    addresses: tuple[str, ...]
    sha256: Mapping[str, str]
    classes: int = 10
    shape: tuple[int, int, int] = (1, 28, 28)
    levels: int = 255
    scale: float = 1 / 256
    coding: InputCoding = "direct"

    def load(self, folder: Path | None, split: Split, steps: int) -> Examples:  # noqa: ARG002 (the protocol's)
        """Images uint8 (N, 1, 28, 28) and labels int64 (N,); see `dataset.DataSet.load`."""
        names = _FILES[split]
        place = find(
            self.name, folder, names[0], lambda place: _either(place, names[0]) is not None
        )
        if place is None:
            place = fetch(self.name, [self._remote(name) for name in names])
        paths = []
        for name in names:
            path = _either(place, name)
            if path is None:
                raise CouldNotRunError(
                    "E_DATA", f"data set '{self.name}' lacks {name} or {name}.gz in {place}"
                )
            paths.append(path)
        images = read_idx(paths[0], self.shape[1:])
        labels = read_idx(paths[1], ())
        self._check(paths, images, labels)
        return images.reshape(-1, *self.shape), labels.astype(np.int64)

    def _remote(self, name: str) -> Remote:
        file = f"{name}.gz"
        return Remote(file, tuple(f"{a}/{file}" for a in self.addresses), self.sha256[name])

    def _check(
        self, paths: list[Path], images: NDArray[np.uint8], labels: NDArray[np.uint8]
    ) -> None:
        if len(images) != len(labels) or not len(images):
            raise RequestError(
                "E_DATA",
                f"{paths[0]} holds {len(images)} images and {paths[1]} holds {len(labels)} labels; "
                "expected one label for every image, and at least one",
            )
        if labels.max() >= self.classes:
            at = int(labels.argmax())
            raise RequestError(
                "E_DATA",
                f"{paths[1]}: label {at} is {labels[at]}, expected 0 to {self.classes - 1}",
            )


def _either(place: Path, name: str) -> Path | None:
    """The file, plain or gzipped; plain where there are both."""
    return next((p for p in (place / name, place / f"{name}.gz") if p.is_file()), None)
