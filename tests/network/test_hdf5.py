"""Hostile and broken NIR files: each ends in one RequestError with its code, nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from small_network import small_network
from snnpipe.errors import RequestError
from snnpipe.network.graph_file import read_graph
from snnpipe.network.hdf5 import Limits, NirFileError
from snnpipe.network.nir_file import read_network, write_network

Edit = Callable[[h5py.File], Any]
LIF, CONV = "node/nodes/lif", "node/nodes/conv"
TEXT = h5py.string_dtype()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "good.nir"
    write_network(small_network(), path)
    return path.read_bytes()


def _put(place: str, value: Any, **options: Any) -> Edit:
    """Replace (or add) a data set."""

    def edit(file: h5py.File) -> None:
        if place in file:
            del file[place]
        file.create_dataset(place, data=value, **options)

    return edit


def _drop(place: str) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[place]

    return edit


def _edges(change: Callable[[list[tuple[str, str]]], Any]) -> Edit:
    def edit(file: h5py.File) -> None:
        edges = [(a.decode(), b.decode()) for a, b in file["node/edges"][()]]
        edges = change(edges) or edges
        del file["node/edges"]
        file.create_dataset("node/edges", data=edges, dtype=TEXT)

    return edit


def _first(place: str, value: float) -> Edit:
    """Overwrite the first element."""

    def edit(file: h5py.File) -> None:
        values = file[place][()]
        values.flat[0] = value
        _put(place, values)(file)

    return edit


def _compound(file: h5py.File) -> None:
    _put(f"{LIF}/tau", np.zeros((4, 3, 3), [("a", "f4"), ("b", "f4")]))(file)


def _opaque(file: h5py.File) -> None:
    _put(f"{LIF}/tau", np.void(b"\x80\x04cposix\nsystem\n."))(file)


def _reference(file: h5py.File) -> None:
    del file[f"{LIF}/tau"]
    file.create_dataset(f"{LIF}/tau", data=file["node"].ref, dtype=h5py.ref_dtype)


def _vlen(file: h5py.File) -> None:
    del file[f"{LIF}/tau"]
    file.create_dataset(f"{LIF}/tau", (3,), dtype=h5py.vlen_dtype(np.float32))


def _group_for_data(file: h5py.File) -> None:
    del file[f"{LIF}/tau"]
    file.create_group(f"{LIF}/tau")


def _null(file: h5py.File) -> None:
    _put(f"{LIF}/tau", h5py.Empty("f4"))(file)


def _self_loop(edges: list[tuple[str, str]]) -> None:
    edges.append(("lif", "lif"))


def _unreachable(file: h5py.File) -> None:
    file.copy(LIF, "node/nodes/lonely")


def _dead_end(file: h5py.File) -> None:
    file.copy(LIF, "node/nodes/dead")
    _edges(lambda edges: edges.append(("conv", "dead")))(file)


def _unfed(file: h5py.File) -> None:
    file.copy(LIF, "node/nodes/lonely")
    _edges(lambda edges: edges.append(("lonely", "pool")))(file)


def _no_input(file: h5py.File) -> None:
    del file["node/nodes/input"]
    _edges(lambda edges: [e for e in edges if "input" not in e])(file)


def _retype(place: str, kind: str) -> Edit:
    return _put(f"{place}/type", kind, dtype=TEXT)


ROWS: dict[str, tuple[Edit, str]] = {
    # types
    "no node": (_drop("node"), "E_TYPE"),
    "node is data": (_put("node", 3), "E_TYPE"),
    "no graph type": (_drop("node/type"), "E_TYPE"),
    "a bare neuron": (_retype("node", "LIF"), "E_TYPE"),
    "no node type": (_drop(f"{LIF}/type"), "E_TYPE"),
    "unknown type": (_retype(LIF, "LIFF"), "E_TYPE"),
    "type of builtins": (_retype(LIF, "__builtins__"), "E_TYPE"),
    "type is a number": (_put(f"{LIF}/type", 7), "E_TYPE"),
    "type is an array": (_put(f"{LIF}/type", ["LIF", "LIF"], dtype=TEXT), "E_TYPE"),
    "known type, not read": (_retype(LIF, "CubaLIF"), "E_UNSUPPORTED"),
    "nested graph": (_retype(LIF, "NIRGraph"), "E_UNSUPPORTED"),
    # parameters
    "missing tau": (_drop(f"{LIF}/tau"), "E_PARAM"),
    "extra key": (_put(f"{LIF}/tua", np.ones(3)), "E_PARAM"),
    "extra key in the graph": (_put("node/type_check", False), "E_PARAM"),
    "extra key at the root": (_put("more", 1), "E_PARAM"),
    "no nodes": (_drop("node/nodes"), "E_PARAM"),
    "nodes are data": (_put("node/nodes", 1), "E_PARAM"),
    "a node is data": (_put(LIF, 1), "E_PARAM"),
    "group for a parameter": (_group_for_data, "E_PARAM"),
    "null data space": (_null, "E_PARAM"),
    "text for tau": (_put(f"{LIF}/tau", "fast", dtype=TEXT), "E_PARAM"),
    "padding same": (_put(f"{CONV}/padding", "same", dtype=TEXT), "E_PARAM"),
    "metadata is data": (_put("node/metadata", 3), "E_PARAM"),
    "node metadata is data": (_put(f"{LIF}/metadata", 3), "E_PARAM"),
    "illegal name": (lambda f: f.move(LIF, "node/nodes/a b"), "E_NAME"),
    # edges
    "no edges": (_drop("node/edges"), "E_EDGES"),
    "edges empty": (_put("node/edges", np.zeros((0, 2))), "E_EDGES"),
    "edges of numbers": (_put("node/edges", np.zeros((3, 2), int)), "E_EDGES"),
    "edges of three": (_put("node/edges", [["conv"] * 3], dtype=TEXT), "E_EDGES"),
    "edges flat": (_put("node/edges", ["conv", "lif"], dtype=TEXT), "E_EDGES"),
    "edges are one text": (_put("node/edges", "conv", dtype=TEXT), "E_EDGES"),
    "edges are a group": (lambda f: (_drop("node/edges")(f), f.create_group("node/edges")),
                          "E_EDGES"),
    "dangling source": (_edges(lambda e: e.append(("conf", "lif"))), "E_EDGES"),
    "dangling target": (_edges(lambda e: e.append(("lif", "nowhere"))), "E_EDGES"),
    "duplicate edge": (_edges(lambda e: e.append(e[0])), "E_EDGES"),
    "unreachable node": (_unreachable, "E_EDGES"),
    "dead end": (_dead_end, "E_EDGES"),
    "fed by nothing": (_unfed, "E_EDGES"),
    "no input": (_no_input, "E_EDGES"),
    "edge into the input": (_edges(lambda e: e.append(("lif", "input"))), "E_CYCLE"),
    "self-loop": (_edges(_self_loop), "E_CYCLE"),
    "algebraic cycle": (_edges(lambda e: e.append(("flat", "pool"))), "E_CYCLE"),
    "two inputs": (lambda f: (f.copy("node/nodes/input", "node/nodes/in2"),
                              _edges(lambda e: e.append(("in2", "conv")))(f)), "E_UNSUPPORTED"),
    # shapes
    "bias too short": (_put(f"{CONV}/bias", np.zeros(3, "f4")), "E_SHAPE"),
    "weight of rank 3": (_put(f"{CONV}/weight", np.zeros((4, 1, 3), "f4")), "E_SHAPE"),
    "empty weight": (_put(f"{CONV}/weight", np.zeros((0, 1, 3, 2), "f4")), "E_SHAPE"),
    "tau of another shape": (_put(f"{LIF}/tau", np.ones(36)), "E_SHAPE"),
    "input too large for a conv": (_put("node/nodes/input/shape", [3, 6, 5]), "E_SHAPE"),
    "input shape negative": (_put("node/nodes/input/shape", [2, -4, 5]), "E_SHAPE"),
    "input shape huge": (_put("node/nodes/input/shape", [2, 2**62]), "E_SHAPE"),
    "input shape of 2^64": (_put("node/nodes/input/shape", np.array([2**64 - 1], "u8")), "E_VALUE"),
    "input shape empty": (_put("node/nodes/input/shape", np.zeros(0, int)), "E_SHAPE"),
    "output of another shape": (_put("node/nodes/output/shape", [4]), "E_SHAPE"),
    "conv input_shape wrong": (_put(f"{CONV}/input_shape", [6, 6]), "E_SHAPE"),
    "flatten input_type wrong": (_put("node/nodes/flat/input_type", [2, 8]), "E_SHAPE"),
    "flatten beyond the axes": (_put("node/nodes/flat/start_dim", 5), "E_SHAPE"),
    "three strides": (_put(f"{CONV}/stride", [1, 1, 1]), "E_SHAPE"),
    "groups that do not divide": (_put(f"{CONV}/groups", 3), "E_SHAPE"),
    # values
    "NaN weight": (_first(f"{CONV}/weight", np.nan), "E_VALUE"),
    "infinite weight": (_first(f"{CONV}/weight", np.inf), "E_VALUE"),
    "weight beyond float32": (_put(f"{CONV}/weight", np.full((4, 1, 3, 2), 1e300)), "E_VALUE"),
    "tau zero": (_first(f"{LIF}/tau", 0.0), "E_VALUE"),
    "tau negative": (_first(f"{LIF}/tau", -1.0), "E_VALUE"),
    "tau infinite": (_first(f"{LIF}/tau", np.inf), "E_VALUE"),
    "threshold negative": (_first(f"{LIF}/v_threshold", -1.0), "E_VALUE"),
    "stride zero": (_put(f"{CONV}/stride", [0, 1]), "E_VALUE"),
    "padding negative": (_put(f"{CONV}/padding", [-1, 0]), "E_VALUE"),
    "groups zero": (_put(f"{CONV}/groups", 0), "E_VALUE"),
    # dtypes
    "complex": (_put(f"{CONV}/weight", np.ones((4, 1, 3, 2), complex)), "E_DTYPE"),
    "fixed-length texts": (_put(f"{LIF}/tau", np.full((4, 3, 3), b"1", "S4")), "E_DTYPE"),
    "texts": (_put(f"{LIF}/tau", ["1", "2"], dtype=TEXT), "E_DTYPE"),
    "compound": (_compound, "E_DTYPE"),
    "opaque pickle": (_opaque, "E_DTYPE"),
    "reference": (_reference, "E_DTYPE"),
    "ragged": (_vlen, "E_DTYPE"),
    "stride of floats": (_put(f"{CONV}/stride", [1.0, 1.0]), "E_DTYPE"),
}  # fmt: skip


def _edited(good: bytes, edit: Edit, path: Path) -> Path:
    path.write_bytes(good)
    with h5py.File(path, "a") as file:
        if "snnpipe_contract" in file["node/metadata"]:  # structure must be refused by itself
            del file["node/metadata/snnpipe_contract"]
        edit(file)
    return path


def _refused(path: Path, code: str, semantics: str | None = "nir-strict") -> str:
    with pytest.raises(RequestError) as caught:
        read_network(path, semantics)
    assert caught.value.code == code, caught.value.message
    assert isinstance(caught.value, NirFileError)
    assert caught.value.message.startswith(f"{path}: ")
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 600
    return caught.value.message


def test_the_file_under_all_edits_is_good(good: bytes, tmp_path: Path) -> None:
    network = read_network(_edited(good, lambda file: None, tmp_path / "x.nir"), "nir-strict")
    assert [layer.name for layer in network.layers] == ["lif", "if", "readout"]


@pytest.mark.parametrize("row", ROWS)
def test_broken_files_are_refused(row: str, good: bytes, tmp_path: Path) -> None:
    edit, code = ROWS[row]
    _refused(_edited(good, edit, tmp_path / "x.nir"), code)


def test_a_message_names_place_value_and_expectation(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    edit = _put(f"{LIF}/tau", np.full((4, 3, 3), -0.5))
    assert _refused(_edited(good, edit, path), "E_VALUE") == (
        f"{path}: /node/nodes/lif/tau holds -0.5; expected numbers above 0"
    )
    message = _refused(_edited(good, _retype(LIF, "LIFF"), path), "E_TYPE")
    assert "/node/nodes/lif/type is 'LIFF'; did you mean 'LIF'?" in message


def test_tau_below_dt_has_no_euler_decay(good: bytes, tmp_path: Path) -> None:
    edit = _put(f"{LIF}/tau", np.full((4, 3, 3), 0.9e-4))
    message = _refused(_edited(good, edit, tmp_path / "x.nir"), "E_VALUE")
    assert "9e-05 s" in message
    assert "decay" in message


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (_put(f"{LIF}/r", np.ones((4, 3, 3))), "gain"),
        (_put("node/nodes/if/r", np.ones((4, 2, 2))), "gain"),
        (_put(f"{LIF}/v_leak", np.full((4, 3, 3), 0.5)), "v_leak"),
    ],
)
def test_meanings_not_read_yet_are_named(
    edit: Edit, named: str, good: bytes, tmp_path: Path
) -> None:
    assert named in _refused(_edited(good, edit, tmp_path / "x.nir"), "E_UNSUPPORTED")


ACCEPTED: dict[str, tuple[Edit, str]] = {
    "no version": (_drop("version"), "names no NIR version"),
    "version 99.0": (_put("version", "99.0", dtype=TEXT), "99.0"),
    "missing v_reset": (_drop(f"{LIF}/v_reset"), "lacks v_reset"),
    "no input_shape": (_drop(f"{CONV}/input_shape"), ""),
    "node metadata": (lambda f: f.create_group(f"{LIF}/metadata"), "passed over"),
    "float16 bias": (_put(f"{CONV}/bias", np.array([0, 1, 2, 3], "f2")), ""),
    "int8 bias": (_put(f"{CONV}/bias", np.array([0, 1, 2, 3], "i1")), ""),
    "big-endian bias": (_put(f"{CONV}/bias", np.array([0, 1, 2, 3], ">f4")), ""),
    "groups as an array": (_put(f"{CONV}/groups", [2]), ""),
    "shuffled and zipped": (
        _put(f"{CONV}/bias", np.arange(4, dtype="f4"), compression="gzip", shuffle=True), ""
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ACCEPTED)
def test_odd_files_are_read_and_noted(row: str, good: bytes, tmp_path: Path) -> None:
    edit, note = ACCEPTED[row]
    path = _edited(good, edit, tmp_path / "x.nir")
    graph = read_graph(path)
    assert any(note in found for found in graph.notes) or not note
    network = read_network(path, "nir-strict")
    conv = network.layer("lif").synapses[0].operations[0]
    if "bias" in row:
        assert conv.bias.dtype == np.float32
        assert conv.bias.tolist() == [0, 1, 2, 3]
    assert conv.groups == 2


def test_short_forms_of_pairs(good: bytes, tmp_path: Path) -> None:
    path = _edited(good, _put(f"{CONV}/stride", 3), tmp_path / "x.nir")
    assert read_graph(path).nodes["conv"].params["stride"].tolist() == [3, 3]
    path = _edited(good, _put(f"{CONV}/padding", "valid", dtype=TEXT), tmp_path / "x.nir")
    assert read_graph(path).nodes["conv"].params["padding"].tolist() == [0, 0]


# --- links, storage, sizes ---


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
    _put(f"{CONV}/bias", np.arange(4, dtype="f4"), compression="lzf")(file)


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
        _put("node/metadata/text", "x" * 2000, dtype=TEXT), "E_LIMIT", Limits(metadata_bytes=1500)
    ),
    "too much in all": (lambda f: None, "E_LIMIT", Limits(total_bytes=500)),
    "too large a data set": (lambda f: None, "E_LIMIT", Limits(dataset_bytes=90)),
    "a long name in the edges": (
        _edges(lambda e: e.append(("n" * 201, "lif"))), "E_LIMIT", Limits()
    ),
    "unknown filter": (_strange_filter, "E_FORMAT", Limits()),
    "named type": (
        lambda f: f.__setitem__("node/nodes/t", np.dtype("f4")), "E_FORMAT", Limits()
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", HOSTILE)
def test_hostile_files_are_refused(row: str, good: bytes, tmp_path: Path) -> None:
    edit, code, limits = HOSTILE[row]
    path = _edited(good, edit, tmp_path / "x.nir")
    with pytest.raises(NirFileError) as caught:
        read_graph(path, limits)
    assert caught.value.code == code, caught.value.message


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_bombs_are_refused_before_memory_is_taken(good: bytes, tmp_path: Path) -> None:
    """A child reads them and reports its peak memory: below 400 MiB with all its libraries."""
    rows = ["2^40 elements", "1 GiB of fill values", "100 MiB of fill values",
            "a thousand times 1 MiB", "a chunk of 512 MiB"]  # fmt: skip
    paths = [
        str(_edited(good, HOSTILE[row][0], tmp_path / f"{index}.nir"))
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
    edit = _put("node/edges", edges, dtype=TEXT, compression="gzip")
    _refused(_edited(good, edit, tmp_path / "x.nir"), "E_FORMAT")


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
    _refused(path, "E_FORMAT")


def test_a_name_that_is_not_utf8_is_refused(good: bytes, tmp_path: Path) -> None:
    def rename(file: h5py.File) -> None:
        group = file["node/nodes"].id
        group.links.move(b"flat", group, b"fl\xff")

    _refused(_edited(good, rename, tmp_path / "x.nir"), "E_NAME")


# --- damage ---


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in _refused(tmp_path / "none.nir", "E_FILE")
    assert "no such file" in _refused(tmp_path, "E_FILE")


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n"])
def test_not_hdf5(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    path.write_bytes(content)
    _refused(path, "E_FORMAT")


@pytest.mark.parametrize("percent", [10, 35, 60, 85, 99])
def test_truncated(percent: int, good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    path.write_bytes(good[: len(good) * percent // 100])
    _refused(path, "E_FORMAT")


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
        _first(f"{CONV}/weight", 0.5)(file)
    assert "edited after the contract" in _refused(path, "E_CONTRACT", None)


# --- real files ---


def _corpus() -> Path:
    data = os.environ.get("SNNPIPE_DATA")
    folder = Path(data).parent / "nir_corpus" if data else None
    if folder is None or not folder.is_dir():
        pytest.skip("the corpus of real NIR files is not here (SNNPIPE_DATA)")
    return folder


def test_real_files_are_read_or_refused_with_a_reason() -> None:
    outcomes = {}
    for path in sorted(_corpus().glob("*.nir")):
        try:
            read_network(path, "nir-strict")
            outcomes[path.name] = ("read", "")
        except NirFileError as error:
            outcomes[path.name] = (error.code, error.message.removeprefix(str(path)))
    codes = {name: code for name, (code, _) in outcomes.items()}
    assert all(text.startswith(": ") for code, text in outcomes.values() if code != "read")
    assert len(codes) >= 17
    assert codes["old_not_hdf5.nir"] == "E_FORMAT"
    assert codes["norse_not_a_graph.nir"] == "E_EDGES"
    assert codes["snntorch_missing_type.nir"] == "E_TYPE"


def test_real_files_have_the_numbers_that_nir_reads() -> None:
    compared = 0
    for path in sorted(_corpus().glob("*.nir")):
        try:
            ours = read_graph(path)
        except NirFileError:
            continue
        theirs = nir.read(path, type_check=False)
        assert set(ours.nodes) == set(theirs.nodes)
        assert set(ours.edges) == set(theirs.edges)
        for name, node in ours.nodes.items():
            for key, value in node.params.items():
                if key not in ("shape", "input_type"):
                    assert np.array_equal(value, getattr(theirs.nodes[name], key)), (name, key)
                    compared += 1
    assert compared > 50
