"""Two processes that train together: the gradients of one, one run, one place that is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes
from safetensors import safe_open
from safetensors.torch import load_file
from snnpipe import plugins
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.train import distributed
from snnpipe.train.checkpoint import load_run
from snnpipe.train.evaluate import score
from snnpipe.train.recipe_file import parse_recipe
from snnpipe.train.run import train_run

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
        reason="this torch has no gloo",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes left."""
    place = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = Path(two_processes.__file__)
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(place)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(two_processes.WORLD)
    ]
    told = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    return place


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("case", two_processes.CASES)
def test_two_processes_learn_what_one_does(folder, case, moving):
    expected = two_processes.learned(case, moving)
    assert len(expected) > 15
    for rank in range(two_processes.WORLD):
        found = load_file(folder / f"gradients-{rank}.safetensors")
        for name, value in expected.items():
            assert value.abs().sum() > 0, name
            torch.testing.assert_close(
                found[f"{case}/{moving}/{name}"], value, rtol=1e-12, atol=1e-13
            )


def test_half_a_batch_teaches_something_else():
    """The counter-check: without the other half, and its statistics, gradients differ."""
    whole, half = (two_processes.learned("rate", False, 0, world) for world in (1, 2))
    for name, value in whole.items():
        if "num_batches" not in name:
            assert not torch.allclose(half[name], value, rtol=1e-3), name


def test_the_first_process_writes_one_run(folder):
    out = folder / "straight"
    names = {"recipe.toml", "history.json", "model.safetensors", "witness.npz"}
    assert {path.name for path in out.iterdir() if path.name != "tensorboard"} == names
    facts = json.loads((out / "history.json").read_text())
    assert facts["machine"].startswith("2 processes, each ")
    assert facts["images"] == {"train": 271, "validation": 29, "test": 450}
    model, recipe = load_run(out)
    data = plugins.load("data", "digits")
    test = [torch.from_numpy(part) for part in data.load(None, "test", 3)]
    found = score(model, *test, data.scale, recipe.train.steps)
    assert facts["test"]["last"] == {
        "accuracy": found.correct / 450,
        "correct": found.correct,
        "n": 450,
    }


def test_one_process_sees_the_same_first_epoch(folder, tmp_path):
    """Up to rounding: dropout aside, which each process draws for its own images."""
    text = two_processes.RECIPE
    one = train_run(parse_recipe(text, "test"), None, tmp_path / "one")
    two = json.loads((folder / "straight" / "history.json").read_text())
    assert two["epochs"][0]["loss"] == pytest.approx(one["epochs"][0]["loss"], rel=0.05)
    assert two["parameters"] == one["parameters"]


def test_all_stop_when_one_is_asked_to_and_go_on_together(folder):
    with safe_open(folder / "state", "pt") as file:
        kept = json.loads(file.metadata()["snnpipe"])
    assert (len(kept["epochs"]), kept["tally"]["updates"]) == (0, 4)
    for name in ("model.safetensors", "witness.npz"):
        straight, stopped = (folder / run / name for run in ("straight", "stopped"))
        assert straight.read_bytes() == stopped.read_bytes()


def test_alone_nothing_is_added():
    assert distributed.place() == distributed.Place(0, 1)
    assert distributed.summed([1.5, 2], torch.device("cpu")) == [1.5, 2]
    model = torch.nn.Linear(2, 1)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    distributed.average_gradients(model)
    assert model.weight.grad.tolist() == [[3.0, 4.0]]


def test_what_a_launcher_says_is_read(monkeypatch):
    assert distributed.launched() == distributed.Place(0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert distributed.launched() == distributed.Place(3, 4)
    assert distributed.local_device(torch.device("cuda")) == torch.device("cuda", 1)
    assert distributed.local_device(torch.device("cuda", 0)) == torch.device("cuda", 0)
    assert distributed.local_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setenv("MASTER_PORT", "nowhere")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with (
        pytest.raises(CouldNotRunError, match="cannot meet by gloo") as missed,
        distributed.joined(torch.device("cpu")),
    ):
        pytest.fail("there is nobody to meet")
    assert missed.value.code == "E_LAUNCH"
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(RequestError, match="RANK is 'first'"):
        distributed.launched()


def test_a_batch_is_cut_evenly():
    distributed.check_shares(12, 3)
    with pytest.raises(
        RequestError, match="holds 10 images, expected a multiple of the 3"
    ) as caught:
        distributed.check_shares(10, 3)
    assert caught.value.code == "E_RECIPE"


@pytest.mark.slow
def test_torchrun_trains(tmp_path):
    recipe = tmp_path / "short.toml"
    recipe.write_text(two_processes.RECIPE)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "snnpipe", "train", str(recipe), "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["machine"].startswith("2 processes")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["short"]
