"""Networks as NIR files: round trips, the contract, the semantics, and nir as the other opinion."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from integer_networks import integer_networks
from random_networks import frames, networks
from small_network import small_network
from snnpipe import plugins
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.network.contract import Contract, Grid
from snnpipe.network.graph import graph_sha256, network_sha256, to_graph
from snnpipe.network.graph_file import read_graph
from snnpipe.network.grid import snap
from snnpipe.network.hdf5 import NirFileError
from snnpipe.network.layers import Conv, Dense, Flatten, Layer, Network, Synapse
from snnpipe.network.neurons import LIF, Sum, parameters
from snnpipe.network.nir_file import read_network, write_network
from snnpipe.network.simulate import simulate

KEY = "node/metadata/snnpipe_contract"
TEXT = h5py.string_dtype()


def _values(layer: Layer) -> dict[str, bytes]:
    """Every parameter of a layer's neurons at full shape, bit for bit."""
    own = parameters(layer.neuron)
    return {name: np.broadcast_to(own[name], layer.shape).tobytes() for name in own}


def _same(one: Network, other: Network) -> None:
    """Two networks are one in all that can be asked."""
    assert other.contract == one.contract
    assert graph_sha256(other) == graph_sha256(one)
    assert network_sha256(other) == network_sha256(one)
    assert [layer.name for layer in other.layers] == [layer.name for layer in one.layers]
    for old, new in zip(one.layers, other.layers, strict=True):
        assert type(new.neuron) is type(old.neuron)
        assert _values(new) == _values(old)
        for before, after in zip(old.synapses, new.synapses, strict=True):
            assert after.source == before.source
            assert [op.name for op in after.operations] == [op.name for op in before.operations]
            assert other.late(new, after) == one.late(old, before)
    x = frames(one, 3, 1)
    first, second = (simulate(n, x, one.contract.steps) for n in (one, other))
    assert first.outputs.tobytes() == second.outputs.tobytes()
    assert {k: v.tolist() for k, v in first.spikes.items()} == {
        k: v.tolist() for k, v in second.spikes.items()
    }


def _round_trips(path: Path, drawn: st.SearchStrategy[Network], count: int) -> None:
    @given(drawn)
    @settings(max_examples=count, derandomize=True, deadline=None, database=None)
    def go(network: Network) -> None:
        write_network(network, path)
        _same(network, read_network(path))

    go()


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    _round_trips(tmp_path / "x.nir", st.one_of(networks(graded=True), integer_networks()), 30)


@pytest.mark.slow
def test_round_trip_of_many_networks(tmp_path: Path) -> None:
    _round_trips(tmp_path / "x.nir", networks(graded=True, max_layers=6), 500)


def test_a_grid_contract_comes_back(tmp_path: Path) -> None:
    network = snap(_input_scaled(small_network()))
    assert isinstance(network.contract.arithmetic, Grid)
    write_network(network, tmp_path / "x.nir")
    assert read_network(tmp_path / "x.nir").contract == network.contract


def _input_scaled(network: Network) -> Network:
    return network.with_contract(Contract(4, input_scale=1 / 256, input_levels=255, producer="a b"))


def test_equal_networks_give_equal_bytes_at_any_time(tmp_path: Path) -> None:
    first, second = tmp_path / "a.nir", tmp_path / "b.nir"
    write_network(small_network(), first)
    time.sleep(1.1)  # HDF5 counts time in seconds
    write_network(small_network(), second)
    assert first.read_bytes() == second.read_bytes()


def test_metadata_holds_the_contract_and_plain_mirrors(tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    network = small_network()
    write_network(network, path)
    metadata = read_graph(path).metadata
    assert set(metadata) == {"snnpipe_contract", "dt", "reset"}
    assert metadata["dt"] == 1e-4
    assert isinstance(metadata["dt"], float)
    assert metadata["reset"] == "value"
    text = json.loads(metadata["snnpipe_contract"])
    assert text["graph_sha256"] == graph_sha256(network)
    assert text["sums"] == [{"from": ["fc"], "name": "readout", "shape": [3], "to": ["output"]}]
    assert set(text["decay"]) == {"lif"}
    assert text["decay"]["lif"].startswith("sha256:")
    assert text == {
        **network.contract.to_dict(),
        **{key: text[key] for key in ("graph_sha256", "sums", "decay", "back_edges")},
    }


def test_one_decay_for_all_is_written_as_itself(tmp_path: Path) -> None:
    network = small_network()
    lif = LIF(np.array(0.2, np.float32), np.array(1.0, np.float32))
    first = replace(network.layers[0], neuron=lif)
    write_network(replace(network, layers=(first, *network.layers[1:])), tmp_path / "x.nir")
    text = json.loads(read_graph(tmp_path / "x.nir").metadata["snnpipe_contract"])
    assert float.fromhex(text["decay"]["lif"]) == float(np.float32(0.2))


# --- nir as the other opinion ---


@given(networks())
@settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_nir_reads_the_same_graph(tmp_path: Path, network: Network) -> None:
    path = tmp_path / "x.nir"
    write_network(network, path)
    graph, theirs = to_graph(network), nir.read(path, type_check=False)
    assert sorted(theirs.edges) == sorted(graph.edges)
    assert {name: type(node).__name__ for name, node in theirs.nodes.items()} == {
        name: node.type for name, node in graph.nodes.items()
    }
    for name, node in graph.nodes.items():
        for key, value in node.params.items():
            if node.type in ("Input", "Output"):
                ports = {**theirs.nodes[name].input_type, **theirs.nodes[name].output_type}
                found = ports["input" if node.type == "Input" else "output"]
            elif key == "input_type":
                found = theirs.nodes[name].input_type["input"]
            else:
                found = getattr(theirs.nodes[name], key)
            if node.type == "Conv1d" and np.ndim(found) == 0:  # nir holds its one axis as a number
                found = np.reshape(found, value.shape)
            assert np.array_equal(found, value), (name, key)
            assert np.asarray(found).dtype == value.dtype, (name, key)


def test_nir_finds_its_types_consistent(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    conv = Conv("conv", rng.normal(size=(4, 2, 3, 3)).astype(np.float32), None, (2, 2), (1, 1))
    dense = Dense("fc", rng.normal(size=(3, 64)).astype(np.float32), np.ones(3, np.float32))
    lif = LIF(np.array(0.25, np.float32), np.array(1.0, np.float32))
    network = Network(
        "input",
        (2, 8, 8),
        (
            Layer("one", lif, (4, 4, 4), (Synapse("input", (conv,)),)),
            Layer("two", lif, (3,), (Synapse("one", (Flatten("flat"), dense)),)),
        ),
        "two",
        Contract(4),
    )
    write_network(network, tmp_path / "x.nir")
    graph = nir.read(tmp_path / "x.nir", type_check=True)
    assert set(graph.nodes) == {"input", "conv", "one", "flat", "fc", "two", "output"}


# --- files without a contract, or with one that does not fit ---


def _changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite the contract's JSON."""
    with h5py.File(path, "a") as file:
        data = json.loads(file[KEY][()])
        data = change(data) or data
        del file[KEY]
        text = data if isinstance(data, str) else json.dumps(data)
        file.create_dataset(KEY, data=text, dtype=TEXT)


def _bare(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file[KEY]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_network(small_network(), tmp_path / "x.nir")
    return tmp_path / "x.nir"


def _refused(path: Path, code: str, semantics: str | None = None) -> str:
    with pytest.raises(NirFileError) as caught:
        read_network(path, semantics)
    assert caught.value.code == code
    assert caught.value.exit_code == 2
    assert caught.value.message.startswith(f"{path}: ")
    assert "\n" not in caught.value.message
    return caught.value.message


def test_without_contract_a_semantics_must_be_named(path: Path) -> None:
    _bare(path)
    message = _refused(path, "E_NO_CONTRACT")
    for word in ("dt", "T", "decay", "gain", "comparison", "reset", "snnpipe", "nir-strict"):
        assert word in message
    assert "sinabs" not in message  # nothing runs it
    network = read_network(path, "nir-strict")
    assert network.contract == Contract(steps=1, input_coding="events")
    assert graph_sha256(network) == graph_sha256(small_network())
    assert [layer.name for layer in network.layers] == ["lif", "if", "readout"]


def test_an_unknown_semantics_is_named_with_its_neighbour(path: Path) -> None:
    with pytest.raises(RequestError, match=r"did you mean 'nir-strict'\?") as caught:
        read_network(path, "nir-strikt")
    assert caught.value.code == "E_SEMANTICS"


def test_a_good_contract_is_not_overridden(path: Path) -> None:
    assert "leave the semantics out" in _refused(path, "E_SEMANTICS", "nir-strict")


def test_an_edited_graph_needs_a_semantics(path: Path) -> None:
    with h5py.File(path, "a") as file:
        values = file["node/nodes/fc/weight"][()]
        values[0, 0] += 1
        file["node/nodes/fc/weight"][...] = values
    assert "edited after the contract" in _refused(path, "E_CONTRACT")
    network = read_network(path, "snnpipe")
    (_, dense) = network.layer("readout").synapses[0].operations
    assert isinstance(dense, Dense)
    assert np.array_equal(dense.weight, values)


def test_a_renamed_node_or_a_moved_edge_is_an_edit(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.move("node/nodes/fc", "node/nodes/fc1")
        edges = [[x.decode().replace("fc", "fc1") for x in e] for e in file["node/edges"][()]]
        del file["node/edges"]
        file.create_dataset("node/edges", data=edges, dtype=TEXT)
    _refused(path, "E_CONTRACT")


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "not JSON": lambda data: "{",
    "not an object": lambda data: "[1]",
    "nested without end": lambda data: "[" * 100_000,
    "nested deep": lambda data: {**data, "dt": [[[[[[[[1]]]]]]]]},
    "NaN": lambda data: json.dumps({**data, "dt": float("nan")}),
    "no hash": lambda data: {k: v for k, v in data.items() if k != "graph_sha256"},
    "no sums": lambda data: {k: v for k, v in data.items() if k != "sums"},
    "no back edges": lambda data: {k: v for k, v in data.items() if k != "back_edges"},
    "no decay": lambda data: {k: v for k, v in data.items() if k != "decay"},
    "unknown field": lambda data: {**data, "more": 1},
    "unknown field of two lines": lambda data: {**data, "more\nor less": 1},
    "lacking field": lambda data: {k: v for k, v in data.items() if k != "compare"},
    "unknown version": lambda data: {**data, "contract": 2},
    "unknown compare": lambda data: {**data, "compare": "gte"},
    "sum without a name": lambda data: {**data, "sums": [{"from": [], "to": [], "shape": []}]},
    "sum of an edge that is not there": lambda data: {
        **data, "sums": [{"name": "s", "from": ["lif"], "to": ["output"], "shape": [3]}]
    },
    "sum of another shape": lambda data: {**data, "sums": [{**data["sums"][0], "shape": [4]}]},
    "sum under a name of two lines": lambda data: {
        **data, "sums": [{**data["sums"][0], "name": "read\nout"}]
    },
    "sum under a name that is a number and none": lambda data: {
        **data, "sums": [{**data["sums"][0], "name": "²"}]
    },
    "sum under a surrogate": lambda data: {
        **data, "sums": [{**data["sums"][0], "name": "\ud800"}]
    },
    "back edge that is no edge": lambda data: {**data, "back_edges": [["readout", "lif"]]},
    "back edges that are no pairs": lambda data: {**data, "back_edges": [["lif"]]},
    "back edges that are one text": lambda data: {**data, "back_edges": "lif"},
    "decay of a layer of two lines": lambda data: {**data, "decay": {"a\nb": "0x1p-2"}},
    "decay of a layer that is none": lambda data: {**data, "decay": {"x": "0x1p-2"}},
    "decay of another hash": lambda data: {**data, "decay": {"lif": "sha256:00"}},
    "another decay": lambda data: {**data, "decay": {"lif": "0x1p-3"}},
    "decay is no number": lambda data: {**data, "decay": {"lif": "fast"}},
    "decay is infinite": lambda data: {**data, "decay": {"lif": "inf"}},
    "decay overflows": lambda data: {**data, "decay": {"lif": "0x1p9999"}},
    "decay is a number": lambda data: {**data, "decay": {"lif": 0.25}},
}  # fmt: skip


@pytest.mark.parametrize("row", CHANGES)
def test_contracts_that_do_not_fit_are_refused(row: str, path: Path) -> None:
    _changed(path, CHANGES[row])
    _refused(path, "E_CONTRACT")


@pytest.mark.parametrize("depth", [400, 900, 950, 975, 990, 1000, 5000, 50_000])
def test_no_depth_of_a_contract_is_a_bug(depth: int, path: Path) -> None:
    deep = "[" * depth + "]" * depth
    _changed(path, lambda data: json.dumps({**data, "dt": 0}).replace('"dt": 0', f'"dt": {deep}'))
    _refused(path, "E_CONTRACT")


def test_another_dt_does_not_fit_the_time_constants(path: Path) -> None:
    _changed(path, lambda data: {**data, "dt": 2e-4})
    with pytest.raises(RequestError) as caught:
        read_network(path)
    assert caught.value.code in ("E_UNSUPPORTED", "E_VALUE")


def test_a_contract_that_is_no_text_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file[KEY]
        file[KEY] = 3
    _refused(path, "E_CONTRACT")


# --- writing ---


def test_what_check_refuses_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    write_network(small_network(), path)
    before = path.read_bytes()
    network = small_network()
    broken = replace(network, output="nowhere")
    with pytest.raises(RequestError, match="'nowhere'"):
        write_network(broken, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.nir"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CouldNotRunError) as caught:
        write_network(small_network(), tmp_path / "file" / "x.nir")
    assert caught.value.code == "E_WRITE"


def test_metadata_beyond_the_readers_limit_is_not_written(tmp_path: Path) -> None:
    contract = replace(small_network().contract, producer="x" * 2**21)
    with pytest.raises(RequestError) as caught:
        write_network(small_network().with_contract(contract), tmp_path / "x.nir")
    assert caught.value.code == "E_LIMIT"
    assert caught.value.message.startswith(
        f"{tmp_path / 'x.nir'}: /node/metadata/snnpipe_contract is"
    )
    assert not list(tmp_path.iterdir())


def test_the_target_writes_the_certificate_of_a_grid(tmp_path: Path) -> None:
    target = plugins.load("targets", "nir")
    network = snap(_input_scaled(small_network()))
    options = {name: values[0] for name, values in target.options.items()}
    facts = target.write(network, tmp_path, options)
    assert facts == {}
    rows = json.loads(read_graph(tmp_path / "network.nir").metadata["snnpipe_certificate"])
    assert [row["layer"] for row in rows] == ["lif", "if", "readout"]
    assert not any(row["problem"] for row in rows)
    assert read_graph(tmp_path / "network.nir").notes == ()
    float_folder = tmp_path / "float"
    float_folder.mkdir()
    target.write(small_network(), float_folder, options)
    assert "snnpipe_certificate" not in read_graph(float_folder / "network.nir").metadata


def test_a_readout_of_one_sum_keeps_its_own_name(tmp_path: Path) -> None:
    network = small_network()
    named = replace(
        network, layers=(*network.layers[:2], replace(network.layers[2], name="score")),
        output="score", output_port="class",
    )  # fmt: skip
    write_network(named, tmp_path / "x.nir")
    back = read_network(tmp_path / "x.nir")
    assert (back.output, back.output_port) == ("score", "class")
    assert isinstance(back.layer("score").neuron, Sum)
