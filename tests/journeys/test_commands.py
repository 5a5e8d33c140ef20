"""From recipe to verdict as a user goes, and what a mistake on the way is answered with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "recipes" / "digits.toml"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "runs" / "digits", tmp_path / "runs" / "digits"))


def arrow(document: Any, target: str) -> Any:
    (found,) = [a for a in document["chain"] if a["to"] == target]
    return found


def test_the_whole_path_ends_with_a_verdict_and_a_report(snnpipe: Any, trained: Path) -> None:
    done = snnpipe("verify", "--samples", "120", "--json", cwd=trained)
    assert done.code == 0, done.err
    document = done.json
    assert document["verdict"] == "PASSED"
    chain = [(a["from"], a["to"], a["strength"]) for a in document["chain"]]
    assert chain == [
        ("trained", "folded", "measured"),
        ("folded", "snapped", "not claimed"),
        ("snapped", "integer", "not claimed"),
        ("snapped", "torch", "proven"),
        ("snapped", "onnx", "proven"),
        ("snapped", "event", "proven"),
        ("integer", "loihi", "proven"),
    ]
    assert document["samples"] == 120
    assert [row["steps"] for row in document["by_steps"]] == [1, 2, 3, 4] * 2
    page = (trained / "runs" / "digits" / "report.html").read_text()
    assert "PASSED" in page
    assert json.loads((trained / "runs" / "digits" / "report.json").read_text()) == document


def test_every_command_names_the_next(snnpipe: Any, trained: Path) -> None:
    exported = snnpipe("export", cwd=trained)
    assert "next: snnpipe verify" in exported.err
    assert exported.out == ""
    ran = snnpipe("run", "--on", "event", cwd=trained)
    assert "seed 0" in ran.err
    assert "next: snnpipe verify" in ran.err


def test_run_saves_what_it_did(snnpipe: Any, run: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 17, (3, 1, 8, 8))
    np.save(tmp_path / "x.npy", x)
    outputs = {}
    for name in ("torch", "onnx", "event", "loihi"):
        done = snnpipe("run", run, "--on", name, "--input", tmp_path / "x.npy", "--steps", "6",
                       "--save", tmp_path / f"{name}.npz", "--json")  # fmt: skip
        assert done.code == 0, done.err
        assert done.json["steps"] == 6
        outputs[name] = np.load(tmp_path / f"{name}.npz")
    assert (outputs["torch"]["outputs"] == outputs["event"]["outputs"]).all()
    assert (outputs["onnx"]["spikes.lif2"] == outputs["event"]["spikes.lif2"]).all()
    assert outputs["loihi"]["outputs"].dtype == np.int32


@pytest.mark.parametrize("fault", ["normalisation", "bias"])
def test_a_fault_in_lift_fails_at_its_arrow_and_layer(
    run: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    from dataclasses import replace

    from snnpipe import commands, inputs, runs
    from snnpipe.export import lift
    from snnpipe.network.layers import Conv

    right = lift.fold

    def forgotten(synapses: Any, gain: Any, shift: Any) -> Any:
        return synapses if feeds_second(synapses) else right(synapses, gain, shift)

    def dropped(synapses: Any, gain: Any, shift: Any) -> Any:
        found = right(synapses, gain, shift)
        if not feeds_second(synapses):
            return found
        (synapse,) = found
        return (replace(synapse, operations=(replace(synapse.operations[0], bias=None),)),)

    def feeds_second(synapses: Any) -> bool:
        operations = synapses[0].operations
        return bool(isinstance(operations[-1], Conv) and operations[-1].name == "conv2")

    where = runs.place(run)
    network = commands.truth(where, inputs.Reading())
    labelled = inputs.test_set(where, network, (None, None), None, 16, inputs.Random())
    clean = commands.verify_run(where, network, ["torch"], labelled)
    assert arrow(clean, "folded")["verdict"] == "PASSED"
    monkeypatch.setattr(lift, "fold", forgotten if fault == "normalisation" else dropped)
    commands.lift_run(where)
    shutil.rmtree(run / "artefacts")
    network = commands.truth(where, inputs.Reading())
    found = commands.verify_run(where, network, ["torch"], labelled)
    assert found["verdict"] == "FAILED"
    failed = arrow(found, "folded")
    assert failed["verdict"] == "FAILED"
    assert "layer 'lif2'" in failed["sentence"]
    wrong = {layer["layer"]: layer["wrong"] for layer in failed["replay"]}
    assert wrong["lif2"] > 0
    assert not any(count for layer, count in wrong.items() if layer != "lif2")
    assert arrow(found, "torch")["verdict"] == "PASSED"


def test_a_failed_verdict_exits_1(snnpipe: Any, run: Path) -> None:
    from snnpipe.network.trace import Witness

    witness = Witness.load(run / "witness.npz")
    spikes = {**witness.spikes, "lif2": ~witness.spikes["lif2"]}
    Witness(witness.inputs, witness.labels, witness.indices, witness.outputs, spikes).save(
        run / "witness.npz"
    )
    done = snnpipe("verify", run, "--on", "event", "--samples", "8")
    assert done.code == 1
    assert "FAILED" in done.err
    assert "layer 'lif2'" in done.err


MISTAKES = [
    (("train", DIGITS, "--set", "train.lerning_rate=1"), 2, "lerning_rate"),
    (("train", DIGITS, "--set", "train.epochs=many"), 2, "train.epochs"),
    (("train", DIGITS, "--set", "train.epochs=true"), 2, "train.epochs"),
    (("train", DIGITS, "--set", "data.name=digts"), 2, "did you mean 'digits'"),
    (("train", "nowhere.toml"), 2, "nowhere.toml"),
    (("export", "nowhere"), 2, "nowhere"),
    (("export",), 2, "there is no run"),
    (("verify", "--on", "evnt"), 2, "did you mean 'event'"),
    (("run", "--on", "brian"), 2, "brian"),
    (("run", ROOT / "README.md", "--on", "event"), 2, "README.md"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES)
def test_a_mistake_is_one_sentence(
    snnpipe: Any, tmp_path: Path, arguments: Any, code: int, words: str
) -> None:
    done = snnpipe(*arguments, cwd=tmp_path)
    assert done.code == code, done.err
    assert words in done.sentence
    assert done.out == ""


@pytest.mark.parametrize("arguments", [("trian",), ("train",), ("verify", "--sample", "3")])
def test_an_error_of_the_command_line_exits_2(snnpipe: Any, arguments: Any) -> None:
    done = snnpipe(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert done.out == ""


def test_debug_keeps_the_exit_code(snnpipe: Any, tmp_path: Path) -> None:
    done = snnpipe("export", "--debug", "--json", cwd=tmp_path)
    assert done.code == 2
    assert "Traceback" in done.err
    assert done.json["error"]["code"] == "E_RUN"


@pytest.mark.parametrize("arguments", [("list", "foo"), ("run", "--samples", "0"), ("trian",)])
def test_usage_errors_are_json_too(snnpipe: Any, arguments: Any) -> None:
    done = snnpipe(*arguments, "--json")
    assert done.code == 2
    assert done.json["error"]["code"] == "E_USAGE"


def test_a_closed_pipe_is_no_verdict() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "snnpipe", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141


def test_two_trainings_get_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from snnpipe import runs

    monkeypatch.chdir(tmp_path)
    assert [runs.new_run("digits").name for _ in range(3)] == ["digits", "digits-2", "digits-3"]


def test_json_errors_are_json(snnpipe: Any, tmp_path: Path) -> None:
    done = snnpipe("export", "--json", cwd=tmp_path)
    assert done.code == 2
    assert done.json["error"]["code"] == "E_RUN"


def test_a_missing_data_set_exits_3(snnpipe: Any, tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "fashion_mnist.toml"
    done = snnpipe("train", recipe, "--data", tmp_path, cwd=tmp_path)
    assert done.code == 3, done.err
    assert "fashion_mnist" in done.sentence


def test_a_file_where_the_run_should_be_exits_3(snnpipe: Any, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    done = snnpipe("train", DIGITS, "--out", "taken", cwd=tmp_path)
    assert done.code == 3, done.err
    assert "taken" in done.sentence
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_file_where_artefacts_should_be_exits_3(snnpipe: Any, run: Path) -> None:
    (run / "network-artefacts").write_text("mine")
    done = snnpipe("export", run / "network.nir", "--target", "nir")
    assert done.code == 3, done.err
    assert (run / "network-artefacts").read_text() == "mine"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_a_truncated_network_exits_2(snnpipe: Any, run: Path, share: float) -> None:
    content = (run / "network.nir").read_bytes()
    (run / "network.nir").write_bytes(content[: int(len(content) * share)])
    for command in ("run", "verify"):
        done = snnpipe(command, run, "--on", "event")
        assert done.code == 2, done.err
        assert "network.nir" in done.sentence


def test_a_network_file_that_is_none_exits_2(snnpipe: Any, tmp_path: Path) -> None:
    (tmp_path / "x.nir").write_text("this is no network")
    done = snnpipe("run", tmp_path / "x.nir", "--on", "event")
    assert done.code == 2
    assert "x.nir" in done.sentence


def test_a_full_disk_leaves_what_was_there(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from snnpipe import files
    from snnpipe.errors import CouldNotRunError
    from snnpipe.export.write import write_targets
    from snnpipe.network.nir_file import read_network

    network = read_network(run / "network.nir")
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(files, "_sync", full)
    with pytest.raises(CouldNotRunError, match="No space left"):
        write_targets(network, ["nir", "lava"], run / "artefacts")
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


SLOW_EXPORT = """
import sys, time
from pathlib import Path
from snnpipe.export import write
from snnpipe.network.nir_file import read_network
real = write.write_manifest
def slow(folder, facts):
    print("writing", flush=True)
    time.sleep(60)
write.write_manifest = slow
write.write_targets(read_network(Path(sys.argv[1])), ["nir"], Path(sys.argv[2]))
"""


def test_a_killed_export_leaves_no_half_written_artefact(run: Path) -> None:
    shutil.rmtree(run / "artefacts")
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_EXPORT, run / "network.nir", run / "artefacts"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    time.sleep(0.1)
    assert not (run / "artefacts" / "nir").exists()
    assert [p.name for p in (run / "artefacts").iterdir() if not p.name.startswith(".")] == []


def test_a_terminated_training_goes_on(snnpipe: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    short = ("--set", "train.limit=200", "--set", "model.channels=[4,4,4]")
    process = subprocess.Popen(
        [sys.executable, "-m", "snnpipe", "train", DIGITS, *short, "--set", "train.epochs=30"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    run = tmp_path / "runs" / "digits"
    for _ in range(300):
        if (run / "state.safetensors").exists():
            break
        time.sleep(0.1)
    process.terminate()
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert f"go on with: snnpipe train --resume {Path('runs/digits')}" in told
    for command in ("export", "verify", "run"):
        done = snnpipe(command, "--json", cwd=tmp_path)
        assert done.code == 2
        assert done.json["error"]["code"] == "E_UNFINISHED"
        assert "snnpipe train --resume runs/digits" in done.sentence
    done = snnpipe("train", DIGITS, *short, "--resume", "runs/digits", cwd=tmp_path)
    assert done.code == 2
    assert "train.epochs was 30 in this training, the recipe says" in done.sentence
    done = snnpipe("train", "--resume", "runs/digits", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert [epoch["epoch"] for epoch in done.json["epochs"]] == list(range(1, 31))
    assert not (run / "state.safetensors").exists()
    done = snnpipe("train", "--resume", "runs/digits", cwd=tmp_path)
    assert (done.code, "no unfinished training" in done.sentence) == (2, True)


def test_seeds_and_rules_from_the_command_line(snnpipe: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    short = (
        "--set",
        "train.limit=100",
        "--set",
        "train.epochs=1",
        "--set",
        "model.channels=[4,4,4]",
    )
    asked = ("train", DIGITS, *short, "--seeds", "2", "--rules", "rate,bptt", "--out", "both")
    done = snnpipe(*asked, "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.json["seeds"] == [0, 1]
    assert list(done.json["variants"]) == ["rate", "bptt"]
    assert "rate - bptt: " in done.err
    assert "90 % interval" in done.err
    assert (tmp_path / "both" / "bptt" / "seed-1" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "name a recipe"),
        ((DIGITS, "--rules", "rate,bptt"), "add --seeds"),
        ((DIGITS, "--seeds", "2", "--rules", "rat"), "did you mean 'rate'"),
        ((DIGITS, "--resume", "x", "--out", "y"), "leave out --out"),
        (("--resume", "nowhere"), "no unfinished training"),
        ((DIGITS, "--max-synops", "0"), "--max-synops"),
        ((DIGITS, "--seeds", "1"), "--seeds"),
    ],
)
def test_options_of_train_that_do_not_fit(
    snnpipe: Any, tmp_path: Path, options: Any, words: str
) -> None:
    pytest.importorskip("torch", reason="training needs the extra 'train'")
    done = snnpipe("train", *options, cwd=tmp_path)
    assert done.code == 2
    assert words in done.sentence


def test_list_shows_every_kind(snnpipe: Any) -> None:
    done = snnpipe("list")
    assert done.code == 0
    for name in ("event", "loihi", "onnx", "lava", "rate", "bptt", "convnet", "digits", "loihi1"):
        assert f"\n  {name} " in done.out, name
    assert set(snnpipe("list", "rules", "--json").json) == {"rules"}


@pytest.mark.slow
def test_fashion_mnist_one_epoch_of_1000_images(snnpipe: Any, tmp_path: Path) -> None:
    folder = Path(os.environ.get("SNNPIPE_DATA", "")) / "fashion_mnist"
    if not folder.is_dir():
        pytest.skip("SNNPIPE_DATA does not hold fashion_mnist")
    recipe = ROOT / "recipes" / "fashion_mnist.toml"
    done = snnpipe("train", recipe, "--set", "train.epochs=1", "--set", "train.limit=1000",
                   cwd=tmp_path)  # fmt: skip
    assert done.code == 0, done.err
    assert snnpipe("export", cwd=tmp_path).code == 0
    done = snnpipe("verify", "--samples", "300", "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    document = done.json
    assert document["verdict"] == "PASSED"
    for name in ("torch", "onnx", "event", "loihi"):
        layers = arrow(document, name)["differences"]["layers"]
        assert all(layer["changed"] == 0 for layer in layers)
        assert sum(layer["spikes"] for layer in layers) > 10_000
