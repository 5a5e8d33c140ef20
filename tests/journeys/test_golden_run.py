"""A trained run in the tests: every runtime but torch is checked in seconds, without torch.

The planted faults of an artefact stand here too: refused by its hash as it is, found and named
when the manifest was renewed.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snnpipe import commands, runs
from snnpipe.errors import RequestError
from snnpipe.files import MANIFEST, write_manifest

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
    labelled = commands.test_set(where, run / "inputs.npy", run / "labels.npy", None, None)
    return commands.verify_run(where, list(names), labelled, None, lambda *_: lambda _: None)


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
    with pytest.raises(RequestError, match="exported from another network"):
        verified(run, "loihi")


def test_an_edited_integer_weight_is_refused(run: Path) -> None:
    file = run / "artefacts" / "lava" / "network.nir"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(RequestError) as caught:
        verified(run, "loihi")
    assert caught.value.code == "E_HASH"


def test_exporting_the_bare_file_gives_the_same_payload(run: Path, tmp_path: Path) -> None:
    from snnpipe.export.write import write_targets
    from snnpipe.network.nir_file import read_network

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
