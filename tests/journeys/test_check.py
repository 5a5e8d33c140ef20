"""`snnpipe check`: what a file holds, what is open in it, who could take it; on a light machine."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from corpus import corpus
from nir_graphs import chain, feed_forward, graph, lif, port, write
from small_network import small_network
from snnpipe.network.graph import network_sha256
from snnpipe.network.nir_file import read_network, write_network
from snnpipe.network.semantics import PRESETS

HEAVY = {"torch", "onnx", "onnxruntime", "matplotlib", "sklearn"}


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A file without a contract, with one thing to note."""
    node = feed_forward(lif=lif())
    return write(tmp_path / "foreign.nir", node)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    write_network(small_network(), tmp_path / "own.nir")
    return tmp_path / "own.nir"


def test_a_foreign_file_is_shown_with_all_that_is_open(snnpipe: Any, foreign: Path) -> None:
    done = snnpipe("check", foreign, "--json")
    assert done.code == 0, done.err
    found = done.json
    network = read_network(foreign, "snnpipe")
    assert {key: found[key] for key in ("file", "contract", "read_as", "arithmetic", "input",
                                        "output", "neurons")} == {
        "file": str(foreign), "contract": False, "read_as": "snnpipe", "arithmetic": "float32",
        "input": {"name": "input", "shape": [4]}, "output": "out", "neurons": 7,
    }  # fmt: skip
    assert found["network_sha256"] == network_sha256(network)
    assert found["notes"] == ["node 'lif' has single numbers as parameters, taken for all [4]"]
    assert list(found["semantics"]) == list(PRESETS)
    readable = [name for name, row in found["semantics"].items() if not row["cannot read"]]
    assert readable == ["snnpipe", "nir-strict", "snntorch", "snntorch-import", "spikingjelly"]
    assert "tau holds 0.0004 s" in found["semantics"]["norse"]["cannot read"]  # its dt is 1 ms
    assert found["layers"][1] == {
        "layer": "out",
        "neuron": "LIF",
        "shape": [3],
        "fed": [{"from": "lif", "late": False, "operations": ["v (Dense 4 to 3)"]}],
    }
    assert found["targets"]["nir"] == found["targets"]["onnx"] == ""
    assert "float32" in found["targets"]["lava"]
    lava = {"lava", "lava_batched", "lava_standard"}
    assert set(found["runtimes"]) == {"torch", "onnx", "event", "loihi"} | lava
    assert "integer" in found["runtimes"]["loihi"]


def test_the_same_for_a_person(snnpipe: Any, foreign: Path) -> None:
    done = snnpipe("check", foreign)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith(f"{foreign}: 2 layers, 7 neurons, network ")
    assert lines[0].endswith(" under snnpipe")
    assert "note: node 'lif' has single numbers as parameters, taken for all [4]" in lines
    assert "target  nir           yes" in lines
    assert any(line.startswith("  spikingjelly") and "v >= threshold" in line for line in lines)
    assert not any(line.endswith(" ") for line in lines)
    document = snnpipe("check", foreign, "--json")
    assert document.err.splitlines() == lines


def test_a_file_of_ours_speaks_for_itself(snnpipe: Any, own: Path) -> None:
    done = snnpipe("check", own, "--json")
    assert done.code == 0, done.err
    assert done.json["contract"] is True
    assert "semantics" not in done.json
    assert "read_as" not in done.json
    assert done.json["notes"] == []
    assert [layer["layer"] for layer in done.json["layers"]] == ["lif", "if", "readout"]
    assert "contract: in the file (float32 arithmetic)" in snnpipe("check", own).out


def test_loops_are_shown(snnpipe: Any, tmp_path: Path) -> None:
    nodes = {"input": port("Input", 4), "a": lif(4), "b": lif(4), "output": port("Output", 4)}
    pairs = [*chain("input a b output"), ("b", "a"), ("a", "a")]
    done = snnpipe("check", write(tmp_path / "x.nir", graph(nodes, pairs)))
    assert "    from a, one step late: as it is" in done.out
    assert "    from b, one step late: as it is" in done.out
    assert "    from a: as it is" in done.out


def test_one_semantics_with_points_changed(snnpipe: Any, foreign: Path) -> None:
    done = snnpipe("check", foreign, "--json", "--semantics", "nir-strict", "--dt", "2e-4",
                   "--compare", "ge", "--reset", "subtract")  # fmt: skip
    assert done.code == 0, done.err
    (row,) = done.json["semantics"].values()
    assert (row["dt"], row["fires at"], row["reset"]) == (
        "0.0002 s", "v >= threshold", "by subtraction"
    )  # fmt: skip
    other = snnpipe("check", foreign, "--json", "--semantics", "nir-strict")
    assert other.json["network_sha256"] != done.json["network_sha256"]


# --- what cannot be read ---


def test_a_file_that_no_semantics_reads(snnpipe: Any, tmp_path: Path) -> None:
    """Each has a reason of its own; all of them are told."""
    node = feed_forward(lif={**lif(4), "r": np.full(4, 3.0), "v_leak": np.ones(4)})
    node["nodes"]["out"]["tau"] = np.full(3, 1e-5)
    path = write(tmp_path / "x.nir", node)
    done = snnpipe("check", path, "--json")
    assert done.code == 2
    assert done.json["problem"] == "no semantics reads it"
    assert all(row["cannot read"] for row in done.json["semantics"].values())
    text = snnpipe("check", path)
    assert text.code == 2
    assert text.out.splitlines()[0] == f"{path}: no semantics reads it"
    assert text.out.count("cannot read it here: ") == len(PRESETS)


def test_one_reason_for_all_is_told_as_it_is(snnpipe: Any, tmp_path: Path) -> None:
    node = feed_forward(output=port("Output", 9))
    for name in ("lif", "out"):  # fit for every semantics
        old = node["nodes"][name]
        node["nodes"][name] = {**old, "tau": 10 * old["tau"], "r": old["r"] / 4}
    path = write(tmp_path / "x.nir", node)
    done = snnpipe("check", path, "--json")
    assert done.code == 2
    assert done.json["problem"] == "node 'output' (Output): shape is [9], what reaches it has [3]"


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_broken_file_is_one_sentence(flags: Any, snnpipe: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    path.write_bytes(b"no HDF5")
    done = snnpipe("check", path, *flags)
    assert done.code == 2
    assert done.sentence.startswith(f"error: {path}: the file is not readable as HDF5")
    assert done.out == "" if not flags else done.json["error"]["code"] == "E_FORMAT"


def test_what_was_asked_for_and_does_not_fit_is_one_sentence(
    snnpipe: Any, foreign: Path, own: Path, tmp_path: Path
) -> None:
    rows = [
        (own, ("--semantics", "norse"), "leave the semantics out"),
        (foreign, ("--semantics", "norse"), "tau holds 0.0004 s"),
        (foreign, ("--semantics", "sinabs"), "cannot be run here"),
        (foreign, ("--semantics", "nors"), "did you mean 'norse'?"),
        (foreign, ("--dt", "1e-3"), "name one, --semantics"),
        (foreign, ("--semantics", "norse", "--dt", "nan"), "dt is nan"),
        (foreign, ("--limit", "nodes=2"), "2 at most"),
        (foreign, ("--limit", "node=2"), "did you mean 'nodes'?"),
        (tmp_path / "none.nir", (), "there is no such file"),
    ]
    for path, options, text in rows:
        done = snnpipe("check", path, *options)
        assert (done.code, done.out) == (2, "")
        assert text in done.sentence


def test_a_stale_contract_is_told_and_overridden(snnpipe: Any, own: Path) -> None:
    with h5py.File(own, "a") as file:
        weight = file["node/nodes/fc/weight"]
        weight[0, 0] = 9.0
    done = snnpipe("check", own)
    assert done.code == 2
    assert "the graph was edited after the contract was written" in done.sentence
    assert snnpipe("check", own, "--semantics", "snnpipe").code == 0


# --- on a light machine ---


def test_nothing_heavy_is_loaded(foreign: Path) -> None:
    program = (
        "import sys\nfrom snnpipe.cli import main\nsys.argv = ['snnpipe', 'check', sys.argv[1]]\n"
        "try:\n    main()\nfinally:\n"
        f"    print('heavy:', *sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(foreign)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "heavy:"
    assert "target  nir           yes" in done.stdout


def test_it_takes_less_than_a_second(snnpipe: Any) -> None:
    """Processor time; the least of three, for other work evicts caches."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert snnpipe("check", corpus() / "cnn_sinabs.nir", OMP_NUM_THREADS="1").code == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 1.0
