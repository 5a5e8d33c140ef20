"""A `.net` file of Lava as a user meets it: look at it, run it, verify it, write it again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import corpus
from net_files import f4, neuron, write_net

DRIVEN = ("--steps", "17", "--drive", "mantissas", "--axes", "whc")
SPIKES = {"layer0": 7685, "layer1": 1833, "layer2": 105}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    folder = corpus() / "lava_dl" / "tinynet"
    shutil.copy(folder / "tiny.net", tmp_path)
    return tmp_path / "tiny.net"


def arrays() -> Path:
    return corpus() / "lava_dl" / "tinynet"


def own(path: Path, **changes: Any) -> Path:
    rng = np.random.default_rng(3)
    layers = [{"type": "input", "shape": (6,)},
              {"type": "dense", "shape": (5,), "weight": f4(rng.integers(-9, 25, (5, 6)) * 2),
               "neuron": neuron()},
              {"type": "dense", "shape": (3,), "weight": f4(rng.integers(-9, 25, (3, 5)) * 2),
               **changes}]  # fmt: skip
    return write_net(path, layers)


def test_check_shows_layers_semantics_and_takers(snnpipe: Any, tiny: Path) -> None:
    done = snnpipe("check", tiny)
    assert done.code == 0, done.err
    assert "3 layers, 1,668 neurons" in done.out.splitlines()[0]
    assert "from layer0: layer1.weight (Conv 3 to 24, 5x5, stride 2x2)" in done.out
    assert "slayer     0.001 s  1 - d/4096  1           v >= threshold" in done.out
    found = snnpipe("check", tiny, "--json").json
    assert (found["read_as"], found["notes"], found["arithmetic"]) == ("lava", [], "integer")
    assert found["targets"]["netx"] == found["runtimes"]["event"] == ""
    assert "integer" in found["runtimes"]["torch"]


def test_check_says_what_netx_would_run(snnpipe: Any, tmp_path: Path) -> None:
    path = own(tmp_path / "own.net", weight=f4(np.tile([-4, 0, 0, 0, 0], (3, 1))))
    done = snnpipe("check", path)
    assert done.code == 0, done.err
    assert "note: layer 'layer2': netx runs 3 of 15 numbers of weight otherwise" in done.out


@pytest.mark.parametrize("runtime", ["event", "loihi"])
def test_run_gives_the_recorded_spikes(runtime: str, snnpipe: Any, tiny: Path) -> None:
    given = ("--input", arrays() / "input_bias.npy")
    done = snnpipe("run", tiny, "--on", runtime, *DRIVEN, *given, "--json")
    assert done.code == 0, done.err
    assert {row["layer"]: row["spikes"] for row in done.json["layers"]} == SPIKES
    assert done.json["overflows"] == "none"
    assert f"--on {runtime} --steps 17 --drive mantissas" in done.err


def test_verify_judges_what_lava_dl_recorded(snnpipe: Any, tiny: Path) -> None:
    given = ("--inputs", arrays() / "input_bias.npy", "--on", "event")
    trace = ("--trace", arrays() / "layer1.npy", "--trace-layer", "layer1")
    done = snnpipe("verify", tiny, *DRIVEN, *given, *trace, "--json")
    assert done.code == 0, done.err
    event, recording = done.json["chain"]
    assert (event["to"], recording["to"]) == ("event", "recording")
    assert recording["strength"] == "proven"
    assert "late, in steps: 'layer1' 1; axes read as bchwt" in recording["sentence"]
    facts = done.json["facts"]
    assert facts["read with"] == "--semantics lava --steps 17 --drive mantissas"
    assert facts["decisions at the threshold, on which lava and slayer differ"] == (
        "layer0 117, layer1 29"
    )
    assert (facts["remarks"], facts["overflows"]) == ([], "none")
    assert (tiny.parent / "tiny-artefacts" / "report.html").is_file()


def test_verify_names_the_first_wrong_spike(snnpipe: Any, tiny: Path) -> None:
    recorded = np.load(arrays() / "layer1.npy")
    recorded[0, 5, 2, 3, 8] = 1 - recorded[0, 5, 2, 3, 8]
    np.save(tiny.parent / "wrong.npy", recorded)
    given = ("--inputs", arrays() / "input_bias.npy", "--on", "event")
    trace = ("--trace", tiny.parent / "wrong.npy", "--trace-layer", "layer1")
    done = snnpipe("verify", tiny, *DRIVEN, *given, *trace)
    assert done.code == 1
    assert "sample 0, layer 'layer1', step 8, neuron [5, 2, 3]: spike 1 instead of 0" in done.err


def test_the_other_semantics_is_found_wrong(snnpipe: Any, tiny: Path) -> None:
    """What lava-dl recorded fired strictly above the threshold."""
    given = ("--inputs", arrays() / "input_bias.npy", "--on", "event", "--semantics", "slayer")
    trace = ("--trace", arrays() / "input.npy", "--trace-layer", "layer0")
    done = snnpipe("verify", tiny, *DRIVEN, *given, *trace, "--json")
    assert done.code == 1, done.err
    recording = done.json["chain"][-1]
    assert recording["verdict"] == "FAILED"
    assert "membrane 1600, threshold 1600" in recording["sentence"]


def test_what_we_saved_is_a_recording_too(snnpipe: Any, tmp_path: Path) -> None:
    path = own(tmp_path / "own.net")
    random = ("--samples", "4", "--seed", "3")
    done = snnpipe("run", path, *random, "--save", tmp_path / "seen.npz")
    assert done.code == 0, done.err
    done = snnpipe("verify", path, *random, "--trace", tmp_path / "seen.npz", "--json")
    assert done.code == 0, done.err
    sentence = done.json["chain"][-1]["sentence"]
    assert "identical on 4 samples: 180 spike decisions, 108 outputs" in sentence
    assert done.json["sentence"].endswith(f"; 4 samples; recording: {sentence}")
    assert snnpipe("verify", path, "--samples", "2", "--trace", tmp_path / "seen.npz").code == 2


def test_export_writes_what_reads_back(snnpipe: Any, tiny: Path) -> None:
    done = snnpipe("export", tiny, "--target", "netx,nir", *DRIVEN[:4])
    assert done.code == 0, done.err
    artefacts = tiny.parent / "tiny-artefacts"
    given = ("--input", arrays() / "input_bias.npy", "--axes", "whc", "--json")
    done = snnpipe("run", artefacts / "netx", "--drive", "mantissas", *given)
    assert {row["layer"]: row["spikes"] for row in done.json["layers"]} == SPIKES
    done = snnpipe("run", artefacts / "nir", *given)
    assert {row["layer"]: row["spikes"] for row in done.json["layers"]} == SPIKES
    manifest = json.loads((artefacts / "netx" / "manifest.json").read_text())
    assert manifest["layers"] == {"0": "layer0", "1": "layer1", "2": "layer2"}


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "a semantics of NIR": (("--semantics", "norse"), "read under 'lava'"),
    "a point of NIR": (("--dt", "0.1"), "--dt is for .nir files"),
    "mantissas of spikes": (("--drive", "mantissas"), "driven by spikes"),
    "no layers left": (("--layers", "1"), "no neurons"),
}


@pytest.mark.parametrize("row", WRONG)
def test_wrong_requests_are_one_sentence(row: str, snnpipe: Any, tmp_path: Path) -> None:
    options, text = WRONG[row]
    done = snnpipe("run", own(tmp_path / "own.net"), *options)
    assert done.code == 2
    assert text in done.sentence


def test_options_of_net_files_are_not_for_others(snnpipe: Any, tmp_path: Path) -> None:
    path = own(tmp_path / "own.net")
    assert snnpipe("export", path, "--target", "nir").code == 0
    done = snnpipe("run", tmp_path / "own-artefacts" / "nir", "--levels", "3")
    assert (done.code, done.sentence) == (2, "error: --levels is for .net files")
    np.save(tmp_path / "steps.npy", np.zeros((2, 3, 4, 5), np.uint8))
    done = snnpipe("verify", path, "--coding", "direct", "--inputs", tmp_path / "steps.npy")
    assert done.code == 2
    assert "the inputs have shape [2, 3, 4, 5]; expected [B, " in done.sentence
    done = snnpipe("verify", path, "--trace-layer", "layer1")
    assert done.code == 2
    assert "belong to --trace" in done.sentence


def test_layers_that_cannot_be_run_are_named(snnpipe: Any, tmp_path: Path) -> None:
    path = own(tmp_path / "own.net", type="average")
    done = snnpipe("check", path)
    assert done.code == 2
    assert "/layer/2 is a layer of type 'average'" in done.sentence
    assert snnpipe("check", path, "--layers", "2").code == 0
