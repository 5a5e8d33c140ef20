"""A trained run in the tests: every runtime but torch is checked in seconds, without torch.

The planted faults of an artefact stand here too: refused by its hash as it is, found and named
when the manifest was renewed.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snnpipe import commands, inputs, runs
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.export.write import write_targets
from snnpipe.files import MANIFEST, write_manifest
from snnpipe.network.nir_file import read_network, write_network
from snnpipe.network.trace import Witness

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
LARGEST = 300_000
needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed"
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with zipfile.ZipFile(GOLDEN / "run.zip") as packed:
        packed.extractall(tmp_path / "golden")
    return tmp_path / "golden"


def verified(run: Path, *names: str) -> dict[str, Any]:
    where = runs.place(run)
    network = commands.truth(where, inputs.Reading())
    files = (run / "inputs.npy", run / "labels.npy")
    labelled = inputs.test_set(where, network, files, None, None, inputs.Random())
    return commands.verify_run(where, network, list(names), labelled)


def arrow(document: dict[str, Any], target: str) -> dict[str, Any]:
    (found,) = [a for a in document["chain"] if a["to"] == target]
    return dict(found)


def without_place(document: dict[str, Any]) -> dict[str, Any]:
    """Without what depends on the machine and on where the run lies."""
    plain = json.loads(json.dumps(document))
    return {k: v for k, v in plain.items() if k not in {"facts", "snnpipe"}}


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in GOLDEN.iterdir()) <= LARGEST


@needs_onnx
def test_the_report_is_the_golden_one(run: Path) -> None:
    document = verified(run, "onnx", "event", "loihi")
    assert document["verdict"] == "PASSED"
    golden = json.loads((GOLDEN / "report.json").read_text())
    found = without_place(document)
    golden.pop("facts")
    golden.pop("snnpipe")
    assert found["chain"] == golden["chain"]
    assert found["by_steps"] == golden["by_steps"]
    assert found == golden


def test_event_and_loihi_need_neither_torch_nor_onnx(run: Path) -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime'): sys.modules[name] = None\n"
        "from snnpipe.cli import cli\n"
        "cli.main(sys.argv[1:], prog_name='snnpipe')\n"
    )
    named = ["--inputs", run / "inputs.npy", "--labels", run / "labels.npy", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", script, "verify", run, "--on", "event,loihi", *named],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["verdict"] == "PASSED"
    golden = json.loads((GOLDEN / "report.json").read_text())
    assert arrow(document, "event") == arrow(golden, "event")
    assert arrow(document, "loihi") == arrow(golden, "loihi")


def edit_onnx(run: Path, change: Any) -> None:
    import onnx
    from onnx import numpy_helper

    file = run / "artefacts" / "onnx" / "network.onnx"
    model = onnx.load(str(file))
    (weight,) = [i for i in model.graph.initializer if i.name == "conv2.weight"]
    values = np.array(numpy_helper.to_array(weight))
    weight.CopyFrom(numpy_helper.from_array(change(values), weight.name))
    onnx.save(model, str(file))


def one_weight(values: np.ndarray) -> np.ndarray:
    values[1, 2, 0, 1] += np.float32(2**-10)
    return values


def transposed(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.transpose(0, 1, 3, 2))


def renew_manifest(folder: Path) -> None:
    facts = json.loads((folder / MANIFEST).read_text())
    facts.pop("files")
    write_manifest(folder, facts)


@needs_onnx
@pytest.mark.parametrize("change", [one_weight, transposed])
def test_an_edited_artefact_is_refused_by_its_hash(run: Path, change: Any) -> None:
    edit_onnx(run, change)
    with pytest.raises(RequestError, match=r"network\.onnx: its content has sha256") as caught:
        verified(run, "onnx")
    assert caught.value.code == "E_HASH"
    assert caught.value.exit_code == 2


@needs_onnx
@pytest.mark.parametrize("change", [one_weight, transposed])
def test_with_the_manifest_renewed_it_fails_at_its_layer(run: Path, change: Any) -> None:
    edit_onnx(run, change)
    renew_manifest(run / "artefacts" / "onnx")
    document = verified(run, "onnx", "event")
    assert document["verdict"] == "FAILED"
    failed = arrow(document, "onnx")
    assert failed["verdict"] == "FAILED"
    assert failed["differences"]["first"]["layer"] == "lif2"
    assert failed["differences"]["first"]["membrane"] is not None
    assert arrow(document, "event")["verdict"] == "PASSED"


def test_an_artefact_of_another_network_is_stale(run: Path) -> None:
    folder = run / "artefacts" / "lava"
    facts = json.loads((folder / MANIFEST).read_text())
    facts["graph_sha256"] = "0" * 64
    (folder / MANIFEST).write_text(json.dumps(facts))
    with pytest.raises(RequestError, match="was not exported from"):
        verified(run, "loihi")


def test_a_manifest_that_lists_nothing_is_refused(run: Path) -> None:
    path = run / "artefacts" / "lava" / MANIFEST
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "files": {}}))
    with pytest.raises(RequestError, match=r"lists other files.*network\.nir"):
        verified(run, "loihi")


def test_an_artefact_under_another_contract_is_stale(run: Path) -> None:
    network = read_network(run / "network.nir")
    contract = replace(network.contract, compare="ge")
    write_network(network.with_contract(contract), run / "network.nir")
    with pytest.raises(RequestError, match="export it again"):
        verified(run, "loihi")


def test_a_network_that_is_not_the_folded_one_fails(run: Path) -> None:
    network = read_network(run / "network.nir")
    contract = replace(network.contract, reset="subtract")
    write_network(network.with_contract(contract), run / "network.nir")
    shutil.rmtree(run / "artefacts")
    document = verified(run, "event")
    assert document["verdict"] == "FAILED"
    assert "not the folded one" in arrow(document, "snapped")["sentence"]
    assert arrow(document, "event")["verdict"] == "PASSED"


@pytest.mark.parametrize("name", ["witness.npz", "folded.nir"])
def test_without_its_witness_a_run_is_not_passed(run: Path, name: str) -> None:
    (run / name).unlink()
    document = verified(run, "event")
    assert document["verdict"] == "COULD_NOT_RUN"
    assert name in arrow(document, "folded")["sentence"]


def test_a_witness_with_nan_outputs_fails(run: Path) -> None:
    witness = Witness.load(run / "witness.npz")
    replace(witness, outputs=witness.outputs * np.float32("nan")).save(run / "witness.npz")
    document = verified(run, "event")
    assert arrow(document, "folded")["verdict"] == "FAILED"


def test_other_peoples_files_are_not_deleted(run: Path) -> None:
    folder = run / "network-artefacts" / "nir"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(CouldNotRunError, match="holds other files"):
        write_targets(read_network(run / "network.nir"), ["nir"], run / "network-artefacts")
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_labels_the_network_does_not_know_are_refused(run: Path) -> None:
    np.save(run / "labels.npy", np.load(run / "labels.npy") + 100)
    with pytest.raises(RequestError, match="knows 0 to 9"):
        verified(run, "event")


def test_an_integer_file_alone_is_verified_on_what_runs_it(run: Path) -> None:
    named = ["--inputs", run / "inputs.npy", "--labels", run / "labels.npy", "--json"]
    file = run / "artefacts" / "lava" / "network.nir"
    done = subprocess.run(
        [sys.executable, "-m", "snnpipe", "verify", file, *named],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    chain = json.loads(done.stdout)["chain"]
    assert [a["to"] for a in chain] == ["event", "loihi"]
    assert {a["strength"] for a in chain} == {"proven"}


def test_an_edited_integer_weight_is_refused(run: Path) -> None:
    file = run / "artefacts" / "lava" / "network.nir"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(RequestError) as caught:
        verified(run, "loihi")
    assert caught.value.code == "E_HASH"


@pytest.mark.parametrize("name", ["run_lava.py", "plan.json", "weights.npz"])
def test_a_script_of_other_making_is_refused_whatever_its_hash(run: Path, name: str) -> None:
    """Its owner would start it on a Lava of his own, and believe the verdict."""
    folder = run / "artefacts" / "lava"
    file = folder / name
    if name == "weights.npz":
        with np.load(file) as stored:
            arrays = dict(stored)
        arrays["connection0.weight"] = -arrays["connection0.weight"]
        np.savez_compressed(file, **arrays)
    else:
        file.write_bytes(file.read_bytes() + b" ")
    renew_manifest(folder)
    with pytest.raises(RequestError, match=name) as caught:
        verified(run, "loihi")
    assert caught.value.code == "E_STALE"


def test_exporting_the_bare_file_gives_the_same_payload(run: Path, tmp_path: Path) -> None:
    names = ["nir", "lava"] + (["onnx"] if importlib.util.find_spec("onnx") else [])
    written = write_targets(read_network(run / "network.nir"), names, tmp_path / "bare")
    for name, folder in written.items():
        kept = run / "artefacts" / name
        for file in kept.iterdir():
            if file.name != MANIFEST:
                assert file.read_bytes() == (folder / file.name).read_bytes(), file
        ours, theirs = (json.loads((f / MANIFEST).read_text()) for f in (folder, kept))
        assert theirs.pop("recipe_sha256")
        assert ours == theirs


WITHOUT = (
    "import sys\n"
    "for name in ('torch', 'onnx', 'onnxruntime'): sys.modules[name] = None\n"
    "from snnpipe.cli import main\n"
    "main()\n"
)


@pytest.mark.parametrize(("on", "code"), [((), 0), (("--on", "torch,event"), 3)])
def test_what_is_missing_matters_only_when_it_was_named(run: Path, on: Any, code: int) -> None:
    named = ["--inputs", run / "inputs.npy", "--labels", run / "labels.npy", "--json", *on]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "verify", run, *named],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    document = json.loads(done.stdout)
    left_out = " ".join(document["facts"]["left_out"])
    if code:
        assert arrow(document, "torch")["verdict"] == "COULD_NOT_RUN"
        assert not left_out
    else:
        assert [a["to"] for a in document["chain"]][-2:] == ["event", "loihi"]
        assert "torch" in left_out
        assert "left out: torch" in done.stderr


@pytest.mark.parametrize(("targets", "code"), [((), 0), (("--target", "nir,lava"), 2)])
def test_a_target_that_cannot_hold_the_network(run: Path, targets: Any, code: int) -> None:
    network = read_network(run / "network.nir")
    contract = replace(network.contract, reset="subtract")
    write_network(network.with_contract(contract), run / "bare.nir")
    done = subprocess.run(
        [sys.executable, "-m", "snnpipe", "export", run / "bare.nir", *targets],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "reset subtract" in done.stderr
    assert not (run / "bare-artefacts" / "lava").exists()
