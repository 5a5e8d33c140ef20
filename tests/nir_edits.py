"""Edits of a good NIR file, and what its reader must then say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from snnpipe.errors import RequestError
from snnpipe.network.hdf5 import NirFileError
from snnpipe.network.nir_file import read_network

Edit = Callable[[h5py.File], Any]
LIF, CONV = "node/nodes/lif", "node/nodes/conv"
CONTRACT = "node/metadata/snnpipe_contract"
TEXT = h5py.string_dtype()


def put(place: str, value: Any, **options: Any) -> Edit:
    """Replace (or add) a data set."""

    def edit(file: h5py.File) -> None:
        if place in file:
            del file[place]
        file.create_dataset(place, data=value, **options)

    return edit


def drop(place: str) -> Edit:
    """Delete what is there."""

    def edit(file: h5py.File) -> None:
        del file[place]

    return edit


def edges(change: Callable[[list[tuple[str, str]]], Any]) -> Edit:
    """Change the list of edges, in place or for the list that ``change`` returns."""

    def edit(file: h5py.File) -> None:
        pairs = [(a.decode(), b.decode()) for a, b in file["node/edges"][()]]
        pairs = change(pairs) or pairs
        put("node/edges", pairs, dtype=TEXT)(file)

    return edit


def first(place: str, value: float) -> Edit:
    """Overwrite the first element."""

    def edit(file: h5py.File) -> None:
        values = file[place][()]
        values.flat[0] = value
        put(place, values)(file)

    return edit


def retype(place: str, kind: str) -> Edit:
    """Give a node another type."""
    return put(f"{place}/type", kind, dtype=TEXT)


def rename(old: str, new: str) -> Edit:
    """Give a node another name, in the edges too."""

    def edit(file: h5py.File) -> None:
        file.move(f"node/nodes/{old}", f"node/nodes/{new}")
        edges(lambda pairs: [tuple(new if e == old else e for e in pair) for pair in pairs])(file)

    return edit


def edited(good: bytes, edit: Edit, path: Path) -> Path:
    """The good file without its contract, for structure must be refused by itself, edited."""
    path.write_bytes(good)
    with h5py.File(path, "a") as file:
        del file[CONTRACT]
        edit(file)
    return path


def refused(path: Path, code: str, semantics: str | None = "nir-strict") -> str:
    """The message with which a file is refused: one sentence that begins with the file."""
    with pytest.raises(RequestError) as caught:
        read_network(path, semantics)
    assert caught.value.code == code, caught.value.message
    assert isinstance(caught.value, NirFileError)
    message: str = caught.value.message
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 600
    return message


def conv_of(path: Path) -> Any:
    """The convolution of the small network, as its file is read."""
    return read_network(path, "nir-strict").layer("lif").synapses[0].operations[0]


def same_arrays(one: Any, other: Any) -> bool:
    """Equal in dtype and in every bit."""
    return one.dtype == other.dtype and np.array_equal(one, other)
