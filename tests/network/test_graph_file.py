"""Broken and odd NIR files: structure, parameters, edges, shapes, values, dtypes."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from nir_edits import (
    CONV,
    LIF,
    TEXT,
    Edit,
    conv_of,
    drop,
    edges,
    edited,
    first,
    put,
    refused,
    rename,
    retype,
)
from small_network import small_network
from snnpipe.network.graph import network_sha256
from snnpipe.network.graph_file import read_graph
from snnpipe.network.nir_file import read_network
from snnpipe.network.node_types import REFUSED, TYPES


def _compound(file: h5py.File) -> None:
    put(f"{LIF}/tau", np.zeros((4, 3, 3), [("a", "f4"), ("b", "f4")]))(file)


def _opaque(file: h5py.File) -> None:
    put(f"{LIF}/tau", np.void(b"\x80\x04cposix\nsystem\n."))(file)


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
    put(f"{LIF}/tau", h5py.Empty("f4"))(file)


def _unreachable(file: h5py.File) -> None:
    file.copy(LIF, "node/nodes/lonely")


def _dead_end(file: h5py.File) -> None:
    file.copy(LIF, "node/nodes/dead")
    edges(lambda edges: edges.append(("conv", "dead")))(file)


def _unfed(file: h5py.File) -> None:
    file.copy(LIF, "node/nodes/lonely")
    edges(lambda edges: edges.append(("lonely", "pool")))(file)


ROWS: dict[str, tuple[Edit, str]] = {
    # types
    "no node": (drop("node"), "E_TYPE"),
    "node is data": (put("node", 3), "E_TYPE"),
    "no graph type": (drop("node/type"), "E_TYPE"),
    "a bare neuron": (retype("node", "LIF"), "E_TYPE"),
    "no node type": (drop(f"{LIF}/type"), "E_TYPE"),
    "unknown type": (retype(LIF, "LIFF"), "E_TYPE"),
    "type of builtins": (retype(LIF, "__builtins__"), "E_TYPE"),
    "type is a number": (put(f"{LIF}/type", 7), "E_TYPE"),
    "type is an array": (put(f"{LIF}/type", ["LIF", "LIF"], dtype=TEXT), "E_TYPE"),
    "known type, not read": (retype(LIF, "I"), "E_UNSUPPORTED"),
    "a graph without edges": (retype(LIF, "NIRGraph"), "E_EDGES"),
    # parameters
    "missing tau": (drop(f"{LIF}/tau"), "E_PARAM"),
    "extra key": (put(f"{LIF}/tua", np.ones(3)), "E_PARAM"),
    "extra key in the graph": (put("node/type_check", False), "E_PARAM"),
    "extra key at the root": (put("more", 1), "E_PARAM"),
    "no nodes": (drop("node/nodes"), "E_PARAM"),
    "nodes are data": (put("node/nodes", 1), "E_PARAM"),
    "a node is data": (put(LIF, 1), "E_PARAM"),
    "group for a parameter": (_group_for_data, "E_PARAM"),
    "null data space": (_null, "E_PARAM"),
    "text for tau": (put(f"{LIF}/tau", "fast", dtype=TEXT), "E_PARAM"),
    "padding of another name": (put(f"{CONV}/padding", "full", dtype=TEXT), "E_PARAM"),
    "padding same with a stride": (put(f"{CONV}/padding", "same", dtype=TEXT), "E_UNSUPPORTED"),
    "metadata is data": (put("node/metadata", 3), "E_PARAM"),
    "node metadata is data": (put(f"{LIF}/metadata", 3), "E_PARAM"),
    "a slash in a name": (lambda f: f.move(LIF, "node/nodes/a/b"), "E_TYPE"),
    "a name that does not print": (rename("lif", "a\nb"), "E_NAME"),
    # edges
    "no edges": (drop("node/edges"), "E_EDGES"),
    "edges empty": (put("node/edges", np.zeros((0, 2))), "E_EDGES"),
    "edges of numbers": (put("node/edges", np.zeros((3, 2), int)), "E_EDGES"),
    "edges of three": (put("node/edges", [["conv"] * 3], dtype=TEXT), "E_EDGES"),
    "edges flat": (put("node/edges", ["conv", "lif"], dtype=TEXT), "E_EDGES"),
    "edges are one text": (put("node/edges", "conv", dtype=TEXT), "E_EDGES"),
    "edges are a group": (lambda f: (drop("node/edges")(f), f.create_group("node/edges")),
                          "E_EDGES"),
    "dangling source": (edges(lambda e: e.append(("conf", "lif"))), "E_EDGES"),
    "dangling target": (edges(lambda e: e.append(("lif", "nowhere"))), "E_EDGES"),
    "duplicate edge": (edges(lambda e: e.append(e[0])), "E_EDGES"),
    "unreachable node": (_unreachable, "E_EDGES"),
    "dead end": (_dead_end, "E_EDGES"),
    "fed by nothing": (_unfed, "E_EDGES"),
    "a line break in the edges": (edges(lambda e: e.append(("lif", "a\nb"))), "E_EDGES"),
    "edge into the input": (edges(lambda e: e.append(("lif", "input"))), "E_EDGES"),
    "edge out of the output": (edges(lambda e: e.append(("output", "lif"))), "E_EDGES"),
    "two inputs": (lambda f: (f.copy("node/nodes/input", "node/nodes/in2"),
                              edges(lambda e: e.append(("in2", "conv")))(f)), "E_UNSUPPORTED"),
    # shapes
    "bias too short": (put(f"{CONV}/bias", np.zeros(3, "f4")), "E_SHAPE"),
    "weight of rank 3": (put(f"{CONV}/weight", np.zeros((4, 1, 3), "f4")), "E_SHAPE"),
    "empty weight": (put(f"{CONV}/weight", np.zeros((0, 1, 3, 2), "f4")), "E_SHAPE"),
    "tau of another shape": (put(f"{LIF}/tau", np.ones(36)), "E_SHAPE"),
    "input too large for a conv": (put("node/nodes/input/shape", [3, 6, 5]), "E_SHAPE"),
    "input shape negative": (put("node/nodes/input/shape", [2, -4, 5]), "E_SHAPE"),
    "input shape huge": (put("node/nodes/input/shape", [2, 2**62]), "E_SHAPE"),
    "input shape of 2^64": (put("node/nodes/input/shape", np.array([2**64 - 1], "u8")), "E_VALUE"),
    "input shape empty": (put("node/nodes/input/shape", np.zeros(0, int)), "E_SHAPE"),
    "output of another shape": (put("node/nodes/output/shape", [4]), "E_SHAPE"),
    "conv input_shape wrong": (put(f"{CONV}/input_shape", [6, 6]), "E_SHAPE"),
    "flatten input_type wrong": (put("node/nodes/flat/input_type", [2, 8]), "E_SHAPE"),
    "flatten beyond the axes": (put("node/nodes/flat/start_dim", 5), "E_SHAPE"),
    "three strides": (put(f"{CONV}/stride", [1, 1, 1]), "E_SHAPE"),
    "groups that do not divide": (put(f"{CONV}/groups", 3), "E_SHAPE"),
    # values
    "NaN weight": (first(f"{CONV}/weight", np.nan), "E_VALUE"),
    "infinite weight": (first(f"{CONV}/weight", np.inf), "E_VALUE"),
    "weight beyond float32": (put(f"{CONV}/weight", np.full((4, 1, 3, 2), 1e300)), "E_VALUE"),
    "tau zero": (first(f"{LIF}/tau", 0.0), "E_VALUE"),
    "tau negative": (first(f"{LIF}/tau", -1.0), "E_VALUE"),
    "tau infinite": (first(f"{LIF}/tau", np.inf), "E_VALUE"),
    "threshold negative": (first(f"{LIF}/v_threshold", -1.0), "E_VALUE"),
    "stride zero": (put(f"{CONV}/stride", [0, 1]), "E_VALUE"),
    "padding negative": (put(f"{CONV}/padding", [-1, 0]), "E_VALUE"),
    "groups zero": (put(f"{CONV}/groups", 0), "E_VALUE"),
    # dtypes
    "complex": (put(f"{CONV}/weight", np.ones((4, 1, 3, 2), complex)), "E_DTYPE"),
    "fixed-length texts": (put(f"{LIF}/tau", np.full((4, 3, 3), b"1", "S4")), "E_DTYPE"),
    "texts": (put(f"{LIF}/tau", ["1", "2"], dtype=TEXT), "E_DTYPE"),
    "compound": (_compound, "E_DTYPE"),
    "opaque pickle": (_opaque, "E_DTYPE"),
    "reference": (_reference, "E_DTYPE"),
    "ragged": (_vlen, "E_DTYPE"),
    "stride of floats": (put(f"{CONV}/stride", [1.0, 1.0]), "E_DTYPE"),
}  # fmt: skip


def test_the_file_under_all_edits_is_good(good: bytes, tmp_path: Path) -> None:
    network = read_network(edited(good, lambda file: None, tmp_path / "x.nir"), "nir-strict")
    assert [layer.name for layer in network.layers] == ["lif", "if", "readout"]


@pytest.mark.parametrize("row", ROWS)
def test_broken_files_are_refused(row: str, good: bytes, tmp_path: Path) -> None:
    edit, code = ROWS[row]
    refused(edited(good, edit, tmp_path / "x.nir"), code)


def test_a_message_names_place_value_and_expectation(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    edit = put(f"{LIF}/tau", np.full((4, 3, 3), -0.5))
    assert refused(edited(good, edit, path), "E_VALUE") == (
        f"{path}: /node/nodes/lif/tau holds -0.5; expected numbers above 0"
    )
    message = refused(edited(good, retype(LIF, "LIFF"), path), "E_TYPE")
    assert "/node/nodes/lif/type is 'LIFF'; did you mean 'LIF'?" in message


def test_tau_below_dt_has_no_euler_decay(good: bytes, tmp_path: Path) -> None:
    edit = put(f"{LIF}/tau", np.full((4, 3, 3), 0.9e-4))
    message = refused(edited(good, edit, tmp_path / "x.nir"), "E_VALUE")
    assert "9e-05 s" in message
    assert "decay" in message


def test_every_known_type_is_named_where_one_is_unknown(good: bytes, tmp_path: Path) -> None:
    message = refused(edited(good, retype(LIF, "Sigmoid"), tmp_path / "x.nir"), "E_TYPE")
    assert all(f" {kind}" in message for kind in TYPES)
    for kind, reason in REFUSED.items():
        edit = retype(LIF, kind)
        assert reason in refused(edited(good, edit, tmp_path / "x.nir"), "E_UNSUPPORTED")


WEIGHT = small_network().layers[0].synapses[0].operations[0].weight

ACCEPTED: dict[str, tuple[Edit, str]] = {
    "no version": (drop("version"), "names no NIR version"),
    "version 99.0": (put("version", "99.0", dtype=TEXT), "was written by NIR '99.0', unknown here"),
    "missing v_reset": (drop(f"{LIF}/v_reset"), "no v_reset in the file, taken as 0: lif"),
    "no input_shape": (drop(f"{CONV}/input_shape"), ""),
    "node metadata": (
        lambda f: f.create_group(f"{LIF}/metadata"), "the metadata of /node/nodes/lif is passed"
    ),
    "a dead self-loop": (edges(lambda e: e.append(("lif", "lif"))), ""),
    "groups as an array": (put(f"{CONV}/groups", [2]), ""),
    "shuffled and zipped": (
        put(f"{CONV}/bias", np.arange(4, dtype="f4"), compression="gzip", shuffle=True), ""
    ),
    "weights of float64": (
        put(f"{CONV}/weight", WEIGHT.astype("f8") + 1e-12),
        "holds float64, 24 numbers of it rounded to float32",
    ),
    "weights of float64 that fit": (put(f"{CONV}/weight", WEIGHT.astype("f8")), ""),
}  # fmt: skip


@pytest.mark.parametrize("row", ACCEPTED)
def test_odd_files_are_read_and_noted(row: str, good: bytes, tmp_path: Path) -> None:
    edit, note = ACCEPTED[row]
    path = edited(good, edit, tmp_path / "x.nir")
    notes = read_graph(path).notes
    assert len(notes) == (note != "")
    assert all(note in found for found in notes)
    conv = conv_of(path)
    assert (conv.groups, conv.weight.dtype) == (2, np.float32)
    assert np.array_equal(conv.weight, WEIGHT) or row == "weights of float64"


@pytest.mark.parametrize("dtype", ["<f2", "|i1", ">f4", ">f8", "<i2", "<u4", "|b1"])
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_other_dtypes_are_converted_and_noted(
    part: str, dtype: str, good: bytes, tmp_path: Path
) -> None:
    values = np.arange(WEIGHT.size if part == "weight" else 4).astype(dtype)
    edit = put(f"{CONV}/{part}", values.reshape(WEIGHT.shape if part == "weight" else (4,)))
    path = edited(good, edit, tmp_path / "x.nir")
    (note,) = read_graph(path).notes
    assert f"/node/nodes/conv/{part} holds {np.dtype(dtype)}, taken as float" in note
    found = getattr(conv_of(path), part)
    assert found.dtype == np.float32
    assert np.array_equal(found.ravel(), values.astype(np.float32))


def test_short_forms_of_pairs(good: bytes, tmp_path: Path) -> None:
    path = edited(good, put(f"{CONV}/stride", 3), tmp_path / "x.nir")
    assert read_graph(path).nodes["conv"].params["stride"].tolist() == [3, 3]
    path = edited(good, put(f"{CONV}/padding", "valid", dtype=TEXT), tmp_path / "x.nir")
    assert read_graph(path).nodes["conv"].params["padding"].tolist() == [0, 0]


def test_a_self_loop_carries_the_last_step(good: bytes, tmp_path: Path) -> None:
    path = edited(good, edges(lambda e: e.append(("lif", "lif"))), tmp_path / "x.nir")
    network = read_network(path, "nir-strict")
    lif = network.layer("lif")
    assert [(s.source, network.late(lif, s)) for s in lif.synapses] == [
        ("input", False), ("lif", True)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("a b", "a_b"),
        ("größe", "gr__e"),
        ("漢字", "__"),
        ("...", "_"),
        ("n" * 150, "n" * 90),
        ("con v", "con_v"),
        ("pool?", "pool_"),
    ],
)
def test_odd_names_are_escaped_and_noted(
    name: str, called: str, good: bytes, tmp_path: Path
) -> None:
    path = edited(good, rename("lif", name), tmp_path / "x.nir")
    assert read_graph(path).notes == (f"node {name[:100]!r} is called '{called}' here",)
    network = read_network(path, "nir-strict")
    assert network.layers[0].name == called
    assert network_sha256(network) == network_sha256(small_network())


def test_escaped_names_keep_apart(good: bytes, tmp_path: Path) -> None:
    def edit(file: h5py.File) -> None:
        rename("lif", "a b")(file)
        rename("if", "a?b")(file)
        rename("pool", "a_b")(file)

    path = edited(good, edit, tmp_path / "x.nir")
    network = read_network(path, "nir-strict")
    assert [layer.name for layer in network.layers] == ["a_b_2", "a_b_3", "readout"]
    assert [op.name for op in network.layers[1].synapses[0].operations] == ["a_b"]
    assert network_sha256(network) == network_sha256(small_network())


def test_a_name_that_is_fine_is_never_changed(good: bytes, tmp_path: Path) -> None:
    path = edited(good, rename("lif", "A-b_c.1"), tmp_path / "x.nir")
    assert read_graph(path).notes == ()
    assert read_network(path, "nir-strict").layers[0].name == "A-b_c.1"
