"""A training that is killed, stopped or broken off goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from snnpipe.errors import RequestError
from snnpipe.runs import unfinished
from snnpipe.train import fit as loop
from snnpipe.train import run as running
from snnpipe.train.progress import Progress
from snnpipe.train.recipe_file import parse_recipe, to_toml
from snnpipe.train.run import train_run
from snnpipe.train.stopping import asked_to_stop
from snnpipe.training import Asked, train

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = """
[data]
name = "digits"
validation = 0.1
crop = 1
[model]
channels = [6, 8]
strides = [2, 1]
hidden = [20]
dropout = 0.2
[train]
steps = 3
epochs = 3
batch = 32
limit = 300
average = 0.8
clip = 1.0
accumulate = 2
draw_steps = true
optimizer = "OPTIMIZER"
lr = 0.02
[loss]
max_synops = 4000
"""
UPDATES = 8  # of an epoch: 271 images in batches of 32
CHILD = """
import os, signal, sys, torch
from pathlib import Path
from snnpipe.train.progress import Progress
from snnpipe.train.recipe_file import parse_recipe
from snnpipe.train.run import train_run

torch.set_num_threads(1)
text, out, left, every = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])

def show(self, text):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

Progress.show = show
train_run(parse_recipe(text, "child"), None, out, every=every)
"""
KEPT = ("model.safetensors", "witness.npz", "recipe.toml")


def _recipe(optimizer="adamw", **changes):
    text = RECIPE.replace("OPTIMIZER", optimizer)
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return parse_recipe(text, "test")


def _killed(text: str, out: Path, updates: int, every: float) -> None:
    """Train in a process of its own that is killed, as by kill -9, after so many updates."""
    arguments = [sys.executable, "-c", CHILD, text, str(out), str(updates), str(every)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(arguments, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL


class KilledError(Exception):
    """What no cleaning up follows: as a kill, but in this process."""


def _broken_off(out: Path, updates: int, every: float, optimizer: str = "adamw") -> None:
    """As `_killed`; only what is written from time to time remains."""
    left = [updates]

    def show(*_) -> None:
        left[0] -= 1
        if not left[0]:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "show", show)
        with pytest.raises(KilledError):
            train_run(_recipe(optimizer), None, out, every=every)


def _facts(out: Path) -> dict:
    facts = json.loads((out / "history.json").read_text())
    facts.pop("seconds")
    for epoch in facts["epochs"]:
        assert epoch.pop("seconds") > 0
        assert epoch.pop("waited") >= 0
        assert 0 < epoch.pop("per_second") < epoch.pop("ready_per_second")
    return facts


def _position(out: Path) -> tuple[int, int]:
    """Finished epochs and updates of the next in a run's state."""
    with safe_open(out / "state.safetensors", "pt") as file:
        kept = json.loads(file.metadata()["snnpipe"])
    return len(kept["epochs"]), kept["tally"]["updates"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Optimiser to the run of a training that nothing disturbed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    runs = {}
    for name in ("adamw", "sgd"):
        runs[name] = tmp_path_factory.mktemp("straight") / name
        train_run(_recipe(name), None, runs[name])
    torch.set_num_threads(threads)
    return runs


@pytest.mark.parametrize(
    ("optimizer", "break_off", "updates", "every", "position"),
    [
        # A state after every update: the fifth is lost.
        ("adamw", "killed", UPDATES + 5, 0.0, (1, 4)),
        # Only after epochs: five updates are lost.
        ("sgd", "broken off", 2 * UPDATES + 5, 1e9, (2, 0)),
    ],
)
def test_what_broke_off_goes_on_bit_for_bit(
    straight, tmp_path, optimizer, break_off, updates, every, position
):
    out, recipe = tmp_path / "run", _recipe(optimizer)
    if break_off == "killed":
        _killed(RECIPE.replace("OPTIMIZER", optimizer), out, updates, every)
    else:
        _broken_off(out, updates, every, optimizer)
    assert unfinished(out)
    assert {path.name for path in out.iterdir() if path.name[0] != "."} == {
        "recipe.toml",
        "state.safetensors",
    }
    assert _position(out) == position
    torch.manual_seed(99)  # the state brings its own
    train_run(recipe, None, out, resume=True)
    assert not unfinished(out)
    for name in KEPT:
        assert (out / name).read_bytes() == (straight[optimizer] / name).read_bytes(), name
    assert _facts(out) == _facts(straight[optimizer])


@pytest.mark.parametrize("part", ["model", "optimizer", "average", "random", "price", "tally"])
def test_every_part_of_the_state_counts(straight, tmp_path, part):
    """The counter-check: with one part of the state off, the run is another."""
    out = tmp_path / "run"
    _broken_off(out, UPDATES + 5, 0.0)
    path = out / "state.safetensors"
    with safe_open(path, "pt") as file:
        document = json.loads(file.metadata()["snnpipe"])
    tensors = load_file(path)
    if part == "tally":
        document["tally"]["updates"] -= 1
    elif part == "price":
        document["price"]["price"] += 1.0
    else:
        for name, value in tensors.items():
            if name.startswith(f"{part}/"):
                spoilt = value * 1.01 if value.is_floating_point() else value
                tensors[name] = (
                    torch.Generator().manual_seed(5).get_state() if part == "random" else spoilt
                )
    save_file(tensors, path, {"snnpipe": json.dumps(document)})
    train_run(_recipe(), None, out, resume=True)
    kept = (straight["adamw"] / "model.safetensors").read_bytes()
    assert (out / "model.safetensors").read_bytes() != kept


def _drop(*path):
    def change(document, _tensors):
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return change


def _put(name, value):
    return lambda _document, tensors: tensors.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_drop("best"), "lacks 'best'"),
        (_drop("tally", "shown"), "lacks 'tally/shown'"),
        (_drop("epochs", 0, "loss"), "lacks 'epochs/0/loss'"),
        (_drop("optimizer", "param_groups", 0, "lr"), "lacks 'optimizer/param_groups/0/lr'"),
        (_drop("optimizer", "param_groups", 1), "lacks 'optimizer/param_groups/1'"),
        (_drop("optimizer", "state", "0", "exp_avg"), "lacks 'optimizer/state/0/exp_avg'"),
        (_drop("best_state", "fc.bias"), r"lacks 'best_state/fc\.bias'"),
        (_drop("random", "cpu"), "lacks 'random/cpu'"),
        (lambda document, _: document.update(best="x"), "'best' is a text, expected a number"),
        (lambda document, _: document.update(more=1), "holds 'more', unknown"),
        (lambda document, _: document.update(recipe=[1]), "not a training state"),
        (lambda _, tensors: tensors.pop("average/values/fc.bias"),
         r"'average/values/fc\.bias' is nothing, expected torch\.float32 \[10\]"),
        (_put("model/fc.bias", torch.zeros(11)),
         r"'model/fc\.bias' is torch\.float32 \[11\], expected torch\.float32 \[10\]"),
        (_put("average/values/fc.bias", torch.zeros(1)), r"float32 \[1\], expected"),
        (_put("optimizer/state/0/exp_avg", torch.zeros(6)),
         r"'optimizer/state/0/exp_avg' is torch\.float32 \[6\], expected .*\[6, 1, 3, 3\]"),
        (_put("best_state/fc.bias", torch.zeros(10).double()), r"is torch\.float64 \[10\]"),
        (_put("random/cpu", torch.zeros(7, dtype=torch.uint8)),
         r"'random/cpu' is torch\.uint8 \[7\], expected"),
    ],
)  # fmt: skip
def test_a_state_with_other_content_is_refused_by_name(begun, tmp_path, change, words):
    out = tmp_path / "run"
    shutil.copytree(begun, out)
    path = out / "state.safetensors"
    with safe_open(path, "pt") as file:
        document = json.loads(file.metadata()["snnpipe"])
    tensors = load_file(path)
    change(document, tensors)
    save_file(tensors, path, {"snnpipe": json.dumps(document)})
    before = path.read_bytes()
    with pytest.raises(RequestError, match=f"{path}: .*{words}") as caught:
        train_run(_recipe(), None, out, resume=True)
    assert caught.value.code == "E_RESUME"
    assert path.read_bytes() == before


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run that broke off in its second epoch."""
    out = tmp_path_factory.mktemp("begun") / "run"
    _broken_off(out, UPDATES + 2, 0.0)
    return out


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with asked_to_stop() as asked:
            os.kill(os.getpid(), signal.SIGINT)
        assert asked.by is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_that_comes_back_leaves_no_finished_run(tmp_path, monkeypatch):
    noted = []
    before = signal.signal(signal.SIGTERM, lambda number, _: noted.append(number))
    monkeypatch.setattr(Progress, "show", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        with pytest.raises(KeyboardInterrupt):
            train_run(_recipe(), None, tmp_path / "run")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert noted
    assert not (tmp_path / "run" / "history.json").exists()
    assert (tmp_path / "run" / "state.safetensors").is_file()


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_asked_to_stop_it_finishes_the_update_and_keeps_its_state(
    straight, tmp_path, monkeypatch, number, raised
):
    seen = []

    def show(self, text):
        seen.append(text)
        if len(seen) == UPDATES + 3:
            os.kill(os.getpid(), number)

    def leave(*_):
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, leave)
    # A shell starts its background jobs deaf to Ctrl-C.
    at_first = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(Progress, "show", show)
    try:
        with pytest.raises(raised):
            train_run(_recipe(), None, tmp_path / "run")
        assert signal.getsignal(signal.SIGTERM) is leave
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, at_first)
    assert _position(tmp_path / "run") == (1, 4)  # one more update, in which it was noticed
    train_run(_recipe(), None, tmp_path / "run", resume=True)
    for name in KEPT:
        assert (tmp_path / "run" / name).read_bytes() == (straight["adamw"] / name).read_bytes()


def test_another_recipe_is_refused_by_its_first_field(tmp_path):
    out = tmp_path / "run"
    _broken_off(out, UPDATES + 1, 1e9)
    before = (out / "state.safetensors").read_bytes()
    other = _recipe(channels=("[6, 8]", "[6, 9]"), lr=("0.02", "0.01"))
    with pytest.raises(
        RequestError, match=r"model\.channels was \[6, 8\].*says \[6, 9\]"
    ) as caught:
        train_run(other, None, out, resume=True)
    assert caught.value.code == "E_RESUME"
    with pytest.raises(RequestError, match="not finished: go on with --resume") as caught:
        train_run(_recipe(), None, out)
    assert caught.value.code == "E_RUN"
    assert (out / "state.safetensors").read_bytes() == before
    (out / "state.safetensors").write_bytes(before[: len(before) // 2])
    with pytest.raises(RequestError, match="not a training state"):
        train_run(_recipe(), None, out, resume=True)
    (out / "state.safetensors").write_bytes(before)
    with safe_open(out / "state.safetensors", "pt") as file:
        kept = json.loads(file.metadata()["snnpipe"])
    kept["version"] = "0.0.1"
    save_file({}, out / "state.safetensors", {"snnpipe": json.dumps(kept)})
    with pytest.raises(RequestError, match=r"written by snnpipe 0\.0\.1"):
        train_run(_recipe(), None, out, resume=True)


def test_only_an_unfinished_training_goes_on(straight, tmp_path):
    for folder in (straight["adamw"], tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RequestError, match="no unfinished training") as caught:
            train_run(_recipe(), None, folder, resume=True)
        assert caught.value.code == "E_RUN"


def test_a_run_that_broke_off_before_its_first_state_starts_anew(straight, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.toml").write_bytes((straight["sgd"] / "recipe.toml").read_bytes())
    train_run(_recipe("sgd"), None, out, resume=True)
    assert (out / "model.safetensors").read_bytes() == (
        straight["sgd"] / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("has_state", [False, True])
def test_it_is_said_when_nothing_of_a_training_was_kept(tmp_path, monkeypatch, capsys, has_state):
    (tmp_path / "recipe.toml").write_text(to_toml(_recipe()))
    if has_state:
        (tmp_path / "state.safetensors").touch()

    def stopped(*_):
        raise KilledError

    monkeypatch.setattr(running, "train_run", stopped)
    with pytest.raises(KilledError):
        train(
            Asked(
                recipe=None, overrides=[], max_synops=None, data_folder=None, out=None,
                resume=tmp_path, seeds=None, rules=None, preflight=False, as_json=False,
            )
        )  # fmt: skip
    assert ("it starts from epoch 1" in capsys.readouterr().err) is not has_state


def test_the_recipe_lies_there_before_the_first_state(monkeypatch, tmp_path):
    def killed(*_):
        raise KilledError

    monkeypatch.setattr(running, "save_state", killed)
    with pytest.raises(KilledError):
        train_run(_recipe(), None, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").glob("*.toml")] == ["recipe.toml"]
    assert unfinished(tmp_path / "run")


def test_a_state_is_kept_in_the_middle_of_a_long_epoch(monkeypatch, tmp_path):
    """Not after every update, but when so many seconds have gone since the last."""
    clock, kept = [0.0], []
    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(
        running,
        "save_state",
        lambda state, *_: kept.append((len(state.epochs), state.tally.updates)),
    )
    monkeypatch.setattr(Progress, "show", lambda *_: clock.__setitem__(0, clock[0] + 1.0))
    with pytest.raises(FileNotFoundError):  # there is no state to take away at the end
        train_run(_recipe(epochs=("epochs = 3", "epochs = 1")), None, tmp_path / "run", every=3.0)
    assert kept == [(0, 4), (0, 7), (1, 0)]
