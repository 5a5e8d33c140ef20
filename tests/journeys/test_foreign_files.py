"""A network file of somebody else, from `check` to a proven report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

T = "12"
READ = ("--semantics", "nir-strict", "--steps", T)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A recurrent network as NIR's own writer leaves it, off every grid, without a contract."""
    rng = np.random.default_rng(5)

    def lif(n: int) -> nir.CubaLIF:
        whole = np.ones(n)
        return nir.CubaLIF(
            tau_syn=3e-4 * whole,
            tau_mem=7e-4 * whole,
            r=7.3 * whole,
            v_leak=0.05 * whole,
            v_threshold=0.9 * whole,
            w_in=2.9 * whole,
        )

    def affine(out: int, n: int, size: float) -> nir.Affine:
        return nir.Affine(rng.normal(0, size, (out, n)), rng.normal(0, 0.05, out))

    nodes = {
        "input": nir.Input(np.array([12])),
        "fc1": affine(30, 12, 0.8),
        "lif1": lif(30),
        "w_rec": affine(30, 30, 0.3),
        "fc2": affine(7, 30, 0.6),
        "lif2": lif(7),
        "output": nir.Output(np.array([7])),
    }
    edges = [
        ("input", "fc1"), ("fc1", "lif1"), ("lif1", "w_rec"), ("w_rec", "lif1"),
        ("lif1", "fc2"), ("fc2", "lif2"), ("lif2", "output"),
    ]  # fmt: skip
    path = tmp_path / "theirs.nir"
    nir.write(path, nir.NIRGraph(nodes, edges, type_check=False))
    return path


def test_check_shows_what_is_open(snnpipe: Any, foreign: Path) -> None:
    done = snnpipe("check", foreign)
    assert done.code == 0, done.err
    for text in ("from lif1, one step late: w_rec (Dense 30 to 30)", "nir-strict", "sinabs"):
        assert text in done.out
    found = snnpipe("check", foreign, "--json").json
    assert found["runtimes"]["event"] == ""
    assert "several spikes" in found["semantics"]["sinabs"]["cannot read"]


def test_without_a_semantics_the_table_comes_before_the_error(snnpipe: Any, foreign: Path) -> None:
    done = snnpipe("run", foreign)
    assert done.code == 2
    lines = done.err.splitlines()
    assert lines[-1].startswith("error: ")
    assert "name a semantics" in lines[-1]
    assert any("spikingjelly" in line and "v >= threshold" in line for line in lines[:-1])


def test_every_runtime_is_proven_by_replay(snnpipe: Any, foreign: Path) -> None:
    exported = snnpipe("export", foreign, *READ, "--target", "nir,onnx")
    assert exported.code == 0, exported.err
    assert f"next: snnpipe verify {foreign} --semantics nir-strict --steps {T}" in exported.err
    done = snnpipe(
        "verify", foreign, *READ, "--on", "torch,onnx,event", "--samples", "20", "--json"
    )
    assert done.code == 0, done.err
    chain = done.json["chain"]
    assert [arrow["strength"] for arrow in chain] == ["certified by replay"] * 3
    for arrow in chain:
        assert [layer["wrong"] for layer in arrow["replay"]] == [0, 0]
        assert arrow["accuracy"] is None
        assert sum(layer["spikes"] for layer in arrow["replay"]) > 500
    page = (foreign.with_name("theirs-artefacts") / "report.html").read_text()
    assert f"read with --semantics nir-strict --steps {T}" in page


def test_our_file_of_it_needs_no_semantics(snnpipe: Any, foreign: Path) -> None:
    exported = snnpipe("export", foreign, *READ, "--target", "nir")
    assert exported.code == 0, exported.err
    ours = foreign.with_name("theirs-artefacts") / "nir" / "network.nir"
    both = [snnpipe("run", *where, "--json") for where in ((foreign, *READ), (ours,))]
    assert [done.code for done in both] == [0, 0], both[1].err
    first, second = (done.json["layers"] for done in both)
    assert first == second
    assert sum(layer["spikes"] for layer in first) > 100


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--dt", "1e-3"), "--dt changes a point of a semantics"),
        (("--semantics", "nir-strict"), "does not say how long to run: --steps T"),
        (("--semantics", "sinabs", "--steps", "3"), "several spikes"),
        (("--limit", "bytes=3"), "expected NAME=NUMBER"),
        (("--limit", "dataset_bytes=99"), "expected 99 at most"),
    ],
)
def test_a_mistake_is_one_sentence(
    snnpipe: Any, foreign: Path, options: tuple[str, ...], text: str
) -> None:
    done = snnpipe("run", foreign, *options)
    assert done.code == 2
    assert text in done.sentence


def test_a_run_exported_off_the_grid_is_proven_by_replay(
    snnpipe: Any, trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained / "runs" / "digits", tmp_path / "digits"))
    assert snnpipe("export", run).code == 0
    assert (run / "artefacts" / "lava").is_dir()
    exported = snnpipe("export", run, "--no-grid")
    assert exported.code == 0, exported.err
    assert "lava: left out" in exported.err
    assert not (run / "artefacts" / "lava").exists()
    done = snnpipe("verify", run, "--samples", "60", "--on", "torch,onnx,event", "--json")
    assert done.code == 0, done.err
    chain = {arrow["to"]: arrow for arrow in done.json["chain"]}
    assert "not snapped to a grid" in chain["network"]["sentence"]
    for name in ("torch", "onnx", "event"):
        assert chain[name]["strength"] == "certified by replay"
        assert not any(layer["wrong"] for layer in chain[name]["replay"])
