"""Real NIR files of other people: which are read, what they hold, what they do."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import nir
import numpy as np
import pytest
from corpus import corpus
from snnpipe.network.graph import network_sha256
from snnpipe.network.graph_file import read_graph
from snnpipe.network.hdf5 import NirFileError
from snnpipe.network.layers import Network
from snnpipe.network.nir_file import read_network
from snnpipe.network.simulate import simulate

SCNN = "IF 16x16x16, IF 16x16x16, IF 8x8x8, IF 256, IF 10"
POLITO = "IF 8x17x17, IF 16x9x9, IF 32x5x5, IF 64x3x3, IF 10x1x1, Sum 10"
READ = {
    "braille_noDelay_bias_zero": ((12,), "CubaLIF 38, CubaLIF 7"),
    "braille_noDelay_bias_zero_subgraph": ((12,), "CubaLIF 38, CubaLIF 7"),
    "braille_noDelay_noBias_subtract": ((12,), "CubaLIF 40, CubaLIF 7"),
    "braille_noDelay_noBias_subtract_subgraph": ((12,), "CubaLIF 40, CubaLIF 7"),
    "cnn_sinabs": ((2, 34, 34), SCNN),
    "lif_norse": ((1,), "LIF 1"),
    "lif_rockpool": ((1,), "LIF 1"),
    "old_braille_scalar_params": ((12,), "CubaLIF 38, CubaLIF 7"),
    "old_lif_scalar_params": ((1000,), "LIF 1000"),
    "old_scnn_no_input_shape": ((2, 34, 34), SCNN),
    "polito_1": ((2, 34, 34), POLITO),
    "polito_10": ((2, 34, 34), POLITO),
    "spyx_braille_bias_zero_subgraph": ((12,), "CubaLIF 38, CubaLIF 7"),
    "spyx_scnn_mnist": ((2, 34, 34), SCNN),
    "two_lif_neurons": ((1,), "LIF 1, LIF 1"),
}
REFUSED = {
    "norse_not_a_graph": ("E_EDGES", "/node/edges is missing; expected pairs of names"),
    "old_not_hdf5": ("E_FORMAT", "the file is not readable as HDF5 "),
    "snntorch_missing_type": ("E_TYPE", "/node/type is missing; expected NIRGraph"),
}


def _read(name: str) -> Network:
    return read_network(corpus() / f"{name}.nir", "nir-strict")


def test_every_file_is_in_one_of_the_tables() -> None:
    names = {path.stem for path in corpus().glob("*.nir")}
    assert names == READ.keys() | REFUSED.keys()
    assert (len(READ), len(REFUSED)) == (15, 3)


@pytest.mark.parametrize("name", READ)
def test_files_that_are_read(name: str) -> None:
    shape, layers = READ[name]
    network = _read(name)
    assert network.input_shape == shape
    assert layers == ", ".join(
        f"{type(layer.neuron).__name__} {'x'.join(map(str, layer.shape))}"
        for layer in network.layers
    )


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_refused_in_one_sentence(name: str) -> None:
    code, text = REFUSED[name]
    path = corpus() / f"{name}.nir"
    with pytest.raises(NirFileError) as caught:
        read_network(path, "nir-strict")
    assert caught.value.code == code
    assert caught.value.message.startswith(f"{path}: {text}")
    assert "\n" not in caught.value.message


def test_numbers_are_those_that_nir_reads() -> None:
    """Every parameter of every file that nir opens, its graphs not nested."""
    compared = 0
    for name in READ:
        path = corpus() / f"{name}.nir"
        ours = read_graph(path)
        try:
            theirs = nir.read(path, type_check=False)
        except (ValueError, TypeError):  # nested graphs that it checks; Conv2d without input_shape
            continue
        if any(isinstance(node, nir.NIRGraph) for node in theirs.nodes.values()):
            continue
        assert set(ours.nodes) == set(theirs.nodes)
        assert set(ours.edges) == set(theirs.edges)
        for node, content in ours.nodes.items():
            for key, value in content.params.items():
                if key not in ("shape", "input_type"):
                    found = np.asarray(getattr(theirs.nodes[node], key))
                    assert np.array_equal(value, np.broadcast_to(found, value.shape)), (node, key)
                    compared += 1
    assert compared > 200


NOTES = {
    "braille_noDelay_bias_zero_subgraph": "edges says 'lif' for the only neurons, 'lif1'",
    "lif_rockpool": "the output's shape [1, 1, 1], axes of 1 in front, read as [1]",
    "old_braille_scalar_params": "node 'lif1' has single numbers as parameters, taken for all [38]",
    "old_lif_scalar_params": "taken for all [1000]",
    "old_scnn_no_input_shape": "the pools '4', '7' say stride 1",
    "cnn_sinabs": "no v_reset in the file, taken as 0: 1, 10, 12, 3, 6",
}


@pytest.mark.parametrize("name", NOTES)
def test_what_is_taken_with_tolerance_is_said(name: str, caplog: pytest.LogCaptureFixture) -> None:
    _read(name)
    assert any(NOTES[name] in record.getMessage() for record in caplog.records)


# --- files of one network ---


SAME = [
    ("braille_noDelay_bias_zero", "braille_noDelay_bias_zero_subgraph"),
    ("braille_noDelay_bias_zero", "spyx_braille_bias_zero_subgraph"),
    ("braille_noDelay_noBias_subtract", "braille_noDelay_noBias_subtract_subgraph"),
    ("cnn_sinabs", "spyx_scnn_mnist"),
    ("cnn_sinabs", "old_scnn_no_input_shape"),  # without a batch axis, its pools repaired
]


@pytest.mark.parametrize(("name", "other"), SAME)
def test_flat_and_nested_old_and_new_files_are_one_network(name: str, other: str) -> None:
    one, two = _read(name), _read(other)
    assert network_sha256(one) == network_sha256(two)
    steps, samples = (256, 5) if name.startswith("braille") else (16, 1)
    x = np.random.default_rng(4).random((steps, samples, *one.input_shape)) < 0.2
    strong = x.astype(np.float32) * (1 if name.startswith("braille") else 1e5)  # r = 1: gain dt
    first, second = (simulate(network, strong, steps) for network in (one, two))
    assert first.outputs.tobytes() == second.outputs.tobytes()
    for before, after in zip(one.layers, two.layers, strict=True):
        assert first.spikes[before.name].tobytes() == second.spikes[after.name].tobytes()
    assert first.fired[one.layers[0].name].sum() > 100


def test_a_recurrent_layer_hears_itself_one_step_late() -> None:
    for name in READ:
        if name.startswith("braille") or name.startswith("spyx_braille"):
            hidden = (network := _read(name)).layers[0]
            late = [s.source for s in hidden.synapses if network.late(hidden, s)]
            assert late == [hidden.name]


def test_other_files_are_other_networks() -> None:
    hashes = {network_sha256(_read(name)) for name in READ}
    assert len(hashes) == len(READ) - len(SAME)


# --- one neuron on eleven platforms ---


def _table() -> ModuleType:
    file = Path(__file__).resolve().parents[2] / "benchmarks" / "lif_traces.py"
    spec = importlib.util.spec_from_file_location("lif_traces", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_neuron_of_the_paper_fires_where_it_should() -> None:
    assert _table().ours(corpus()) == [460, 510, 710, 760]


def test_the_table_of_platforms() -> None:
    equal, late, early = "equal", "equal, 1 step late", "first differs at step 450"
    assert {name: text for name, (text, _) in _table().rows(corpus()).items()} == {
        "exact": equal,
        "lava_cpu_fixed": late,
        "lava_cpu_float": late,
        "lava_loihi_fixed": late,
        "nengo": equal,
        "norse": equal,
        "rockpool": early,
        "sinabs": early,
        "snntorch": equal,
        "spinnaker2": equal,
        "spyx": late,
    }


@pytest.mark.parametrize(
    ("found", "theirs", "text"),
    [
        ([1, 5], [1, 5], "equal"),
        ([1, 5], [2, 6], "equal, 1 step late"),
        ([5, 9], [2, 6], "equal, 3 steps early"),
        ([1, 5], [1, 6], "first differs at step 5"),
        ([1, 5], [1, 5, 9], "first differs at step 9"),
        ([], [3], "first differs at step 3"),
        ([], [], "equal"),
    ],
)
def test_how_two_trains_differ(found: list[int], theirs: list[int], text: str) -> None:
    assert _table().verdict(found, theirs) == text
