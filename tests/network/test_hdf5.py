"""Hostile and damaged HDF5 files: each ends in one RequestError with its code, nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from nir_edits import CONV, LIF, TEXT, Edit, edges, edited, first, put, refused
from snnpipe.errors import RequestError
from snnpipe.network.graph_file import read_graph
from snnpipe.network.hdf5 import Limits, NirFileError
from snnpipe.network.nir_file import read_network


def _soft_cycle(file: h5py.File) -> None:
    file["node/nodes/again"] = h5py.SoftLink("/node")


def _hard_cycle(file: h5py.File) -> None:
    file["node/nodes/again"] = file["node"]


def _to_root(file: h5py.File) -> None:
    file["node/nodes/again"] = file["/"]


def _same_data(file: h5py.File) -> None:
    del file[f"{LIF}/r"]
    file[f"{LIF}/r"] = file[f"{LIF}/tau"]


def _external_link(file: h5py.File) -> None:
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as secret:
        secret["tau"] = np.ones((4, 3, 3))
    del file[f"{LIF}/tau"]
    file[f"{LIF}/tau"] = h5py.ExternalLink(str(other), "tau")


def _external_storage(file: h5py.File) -> None:
    raw = Path(file.filename).with_name("secret.bin")
    raw.write_bytes(np.ones((4, 3, 3)).tobytes())
    del file[f"{LIF}/tau"]
    file.create_dataset(f"{LIF}/tau", (4, 3, 3), "f8", external=[(str(raw), 0, 288)])


def _virtual(file: h5py.File) -> None:
    other = Path(file.filename).with_name("other.h5")
    with h5py.File(other, "w") as secret:
        secret["tau"] = np.ones((4, 3, 3))
    layout = h5py.VirtualLayout((4, 3, 3), "f8")
    layout[...] = h5py.VirtualSource(str(other), "tau", (4, 3, 3))
    del file[f"{LIF}/tau"]
    file.create_virtual_dataset(f"{LIF}/tau", layout)


def _sparse(shape: tuple[int, ...], dtype: str = "f4") -> Edit:
    """A data set that claims ``shape`` and stores nothing."""

    def edit(file: h5py.File) -> None:
        del file[f"{CONV}/weight"]
        chunks = tuple(min(n, 256) for n in shape)
        file.create_dataset(f"{CONV}/weight", shape, dtype, chunks=chunks)

    return edit


def _many_sparse(file: h5py.File) -> None:
    """A thousand data sets, each just small enough to store nothing."""
    for index in range(1000):
        group = file.create_group(f"node/nodes/fc{index}")
        group.create_dataset("weight", (2**18,), "f4", chunks=(2**16,))


def _wide_chunk(file: h5py.File) -> None:
    """Two elements in a chunk of 512 MiB: zeros, zipped to half a megabyte."""
    del file[f"{CONV}/bias"]
    file.create_dataset(f"{CONV}/bias", (4,), "f4", maxshape=(None,), chunks=(2**27,))


def _deep(file: h5py.File) -> None:
    group = file[LIF]
    for _ in range(3000):
        group = group.create_group("a")


def _long_name(file: h5py.File) -> None:
    file.move(LIF, "node/nodes/" + "n" * 201)


def _many_nodes(file: h5py.File) -> None:
    for index in range(60):
        file.create_group(f"node/nodes/n{index}")


def _strange_filter(file: h5py.File) -> None:
    put(f"{CONV}/bias", np.arange(4, dtype="f4"), compression="lzf")(file)


HOSTILE: dict[str, tuple[Edit, str, Limits]] = {
    "soft-link cycle": (_soft_cycle, "E_LINK", Limits()),
    "hard-link cycle": (_hard_cycle, "E_LINK", Limits()),
    "link to the root": (_to_root, "E_LINK", Limits()),
    "one data set twice": (_same_data, "E_LINK", Limits()),
    "dangling soft link": (
        lambda f: f.__setitem__("node/nodes/no", h5py.SoftLink("/none")), "E_LINK", Limits()
    ),
    "external link": (_external_link, "E_LINK", Limits()),
    "external storage": (_external_storage, "E_LINK", Limits()),
    "virtual data set": (_virtual, "E_LINK", Limits()),
    "2^40 elements": (_sparse((2**20, 2**20)), "E_LIMIT", Limits()),
    "1 GiB of fill values": (_sparse((2**14, 2**14)), "E_LIMIT", Limits()),
    "100 MiB of fill values": (_sparse((5000, 5000)), "E_LIMIT", Limits()),
    "a thousand times 1 MiB": (_many_sparse, "E_LIMIT", Limits()),
    "a chunk of 512 MiB": (_wide_chunk, "E_LIMIT", Limits()),
    "3,000 groups deep": (_deep, "E_LIMIT", Limits()),
    "long name": (_long_name, "E_LIMIT", Limits()),
    "too many nodes": (_many_nodes, "E_LIMIT", Limits(nodes=50)),
    "too many edges": (lambda f: None, "E_LIMIT", Limits(edges=3)),
    "too much metadata": (
        put("node/metadata/text", "x" * 2000, dtype=TEXT), "E_LIMIT", Limits(metadata_bytes=1500)
    ),
    "too much in all": (lambda f: None, "E_LIMIT", Limits(total_bytes=500)),
    "too large a data set": (lambda f: None, "E_LIMIT", Limits(dataset_bytes=90)),
    "a long name in the edges": (
        edges(lambda e: e.append(("n" * 201, "lif"))), "E_LIMIT", Limits()
    ),
    "unknown filter": (_strange_filter, "E_FORMAT", Limits()),
    "named type": (
        lambda f: f.__setitem__("node/nodes/t", np.dtype("f4")), "E_FORMAT", Limits()
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", HOSTILE)
def test_hostile_files_are_refused(row: str, good: bytes, tmp_path: Path) -> None:
    edit, code, limits = HOSTILE[row]
    path = edited(good, edit, tmp_path / "x.nir")
    with pytest.raises(NirFileError) as caught:
        read_graph(path, limits)
    assert caught.value.code == code, caught.value.message


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_bombs_are_refused_before_memory_is_taken(good: bytes, tmp_path: Path) -> None:
    """A child reads them and reports its peak memory: below 400 MiB with all its libraries."""
    rows = ["2^40 elements", "1 GiB of fill values", "100 MiB of fill values",
            "a thousand times 1 MiB", "a chunk of 512 MiB"]  # fmt: skip
    paths = [
        str(edited(good, HOSTILE[row][0], tmp_path / f"{index}.nir"))
        for index, row in enumerate(rows)
    ]
    program = (
        "import re, sys\nfrom pathlib import Path\n"
        "from snnpipe.errors import RequestError\n"
        "from snnpipe.network.graph_file import read_graph\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n        read_graph(Path(name))\n"
        "    except RequestError as error:\n        print(error.code)\n"
        # Not ru_maxrss: a child inherits that of the process that forked it.
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *paths],
        capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    *codes, peak = done.stdout.split()
    assert codes == ["E_LIMIT"] * len(rows)
    assert int(peak) < 400


def test_long_texts_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    with h5py.File(path, "w") as file:
        file.create_dataset("node/edges", data=[["a" * 5000, "b"]], dtype=TEXT)
        file.create_dataset("version", data="1.0.8", dtype=TEXT)
    with pytest.raises(NirFileError, match="text of 5000 bytes") as caught:
        read_graph(path)
    assert caught.value.code == "E_LIMIT"


def test_texts_in_pieces_are_refused(good: bytes, tmp_path: Path) -> None:
    edges = [["conv", "lif"]] * 3
    edit = put("node/edges", edges, dtype=TEXT, compression="gzip")
    refused(edited(good, edit, tmp_path / "x.nir"), "E_FORMAT")


HEAP_DAMAGE: dict[str, tuple[int, bytes]] = {
    "no signature": (0, b"LCOG"),
    "another version": (4, b"\x02"),
    "larger than the file": (8, (2**40).to_bytes(8, "little")),
    "larger than any": (8, (2**64 - 1).to_bytes(8, "little")),
    "no room for an object": (8, (16).to_bytes(8, "little")),
    "a first object without end": (24, (2**64 - 16).to_bytes(8, "little")),
    "a first object of another number": (16, b"\x09\x09"),
}


@pytest.mark.parametrize("row", HEAP_DAMAGE)
def test_a_damaged_heap_is_refused_and_ends(row: str, good: bytes, tmp_path: Path) -> None:
    """HDF5 2.0.0 itself follows some of these without end."""
    at, patch = HEAP_DAMAGE[row]
    damaged = bytearray(good)
    start = damaged.index(b"GCOL")
    damaged[start + at : start + at + len(patch)] = patch
    path = tmp_path / "x.nir"
    path.write_bytes(damaged)
    with pytest.raises(NirFileError) as caught:
        read_graph(path)
    assert caught.value.code in ("E_FORMAT", "E_LIMIT")


def test_a_text_that_is_not_utf8_is_refused(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    path.write_bytes(good.replace(b"NIRGraph", b"NIR\xffraph"))
    refused(path, "E_FORMAT")


def test_a_name_that_is_not_utf8_is_refused(good: bytes, tmp_path: Path) -> None:
    def rename(file: h5py.File) -> None:
        group = file["node/nodes"].id
        group.links.move(b"flat", group, b"fl\xff")

    refused(edited(good, rename, tmp_path / "x.nir"), "E_NAME")


# --- damage ---


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.nir", "E_FILE")
    assert "no such file" in refused(tmp_path, "E_FILE")


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n"])
def test_not_hdf5(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    path.write_bytes(content)
    refused(path, "E_FORMAT")


@pytest.mark.parametrize("percent", [10, 35, 60, 85, 99])
def test_truncated(percent: int, good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    path.write_bytes(good[: len(good) * percent // 100])
    refused(path, "E_FORMAT")


def test_bit_flips_end_in_a_request_error_or_a_network(good: bytes, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    path = tmp_path / "x.nir"
    outcomes = []
    for flips in [1] * 60 + [50] * 20:
        damaged = bytearray(good)
        for at in rng.integers(0, len(damaged), flips):
            damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read_network(path)
        except RequestError as error:
            outcomes.append(error.code)
        else:
            outcomes.append("read")
    assert len(outcomes) == 80
    assert outcomes.count("E_FORMAT") > 20


def test_a_changed_number_is_seen_by_the_hash(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    path.write_bytes(good)
    with h5py.File(path, "a") as file:
        first(f"{CONV}/weight", 0.5)(file)
    assert "edited after the contract" in refused(path, "E_CONTRACT", None)
