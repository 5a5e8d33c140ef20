"""Files that snnpipe writes for other frameworks give our outputs in those frameworks.

Compared with recordings of their importers in ``tests/golden/foreign``; and anew where
SNNPIPE_FOREIGN_A and SNNPIPE_FOREIGN_B name a python (see `reader_networks.ENVIRONMENTS`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign.reader_networks import ENVIRONMENTS, cases, inputs, python_of, read_by, write
from snnpipe.network.graph import graph_hash
from snnpipe.network.graph_file import read_graph
from snnpipe.network.nir_file import read_network
from snnpipe.network.simulate import simulate

GOLDEN = Path(__file__).parent.parent / "golden" / "foreign" / "readers.npz"
CASES = cases()


def ours(name: str) -> np.ndarray:
    """The outputs (T, B, K) of the network itself, not of the file."""
    network, _, _ = CASES[name]
    found: np.ndarray = simulate(network, inputs(network), network.contract.steps).outputs
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readers")
    write(folder)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_recorded_readers_give_our_outputs_and_so_does_the_file(name: str, files: Path) -> None:
    path = files / name / "network.nir"
    expected = ours(name)
    assert 0 < np.count_nonzero(expected) < expected.size
    back = read_network(path)
    assert (simulate(back, inputs(back), back.contract.steps).outputs == expected).all()
    with np.load(GOLDEN) as recording:
        assert str(recording[f"{name}:graph"]) == graph_hash(read_graph(path)), "record it anew"
        readers = CASES[name][2]
        assert {key for key in recording if key.startswith(f"{name}:")} == {
            f"{name}:{what}" for what in ("graph", *readers)
        }
        for reader in readers:
            assert (recording[f"{name}:{reader}"] == expected).all()


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["snntorch", "spikingjelly", "sinabs"])
def test_readers_give_our_outputs_today(framework: str, files: Path) -> None:
    if python_of(framework) is None:
        pytest.skip(f"{ENVIRONMENTS[framework]} names no python with {framework}")
    found = read_by(framework, files)
    assert set(found) == {name for name, (_, _, readers) in CASES.items() if framework in readers}
    for name, outputs in found.items():
        assert (outputs == ours(name)).all(), name
