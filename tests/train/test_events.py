"""Recordings, (B, T, C, H, W) as stored, on their way through training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import event, put_recordings
from snnpipe import plugins
from snnpipe.errors import RequestError
from snnpipe.network.trace import Witness
from snnpipe.train.checkpoint import load_run
from snnpipe.train.evaluate import outputs, score
from snnpipe.train.examples import Batches, hold_out
from snnpipe.train.frames import scaled
from snnpipe.train.recipe import DataPart
from snnpipe.train.recipe_file import parse_recipe
from snnpipe.train.run import train_run
from torch import nn

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = """
[data]
name = "nmnist"
validation = 0.25
[model]
name = "recurrent"
channels = [3]
strides = [4]
hidden = [11]
[rule]
name = "bptt"
[train]
steps = 5
epochs = 2
batch = 8
[witness]
samples = 6
"""


def recordings(count: int = 6, steps: int = 4) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 16, (count, steps, 2, 3, 5)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Made recordings: digit d has events in column 3 d, earlier or later."""
    rng = np.random.default_rng(1)
    members = {}
    for split, count in (("Train", 40), ("Test", 9)):
        for number in range(count):
            digit = number % 3
            times = np.sort(rng.integers(0, 330_000, 200))
            rows = [event(3 * digit, int(t) % 34, bool(t % 2), int(t)) for t in times]
            members[f"{split}/{digit}/{number + 1:05}.bin"] = b"".join(rows)
    put_recordings(tmp_path, members)
    return tmp_path


def test_time_moves_in_front() -> None:
    stored = torch.from_numpy(recordings())
    frames = scaled(stored, 0.5)
    assert (frames.shape, frames.dtype) == ((4, 6, 2, 3, 5), torch.float32)
    assert torch.equal(frames[3, 1], stored[1, 3] / 2)
    assert torch.equal(scaled(stored[:, 0], 0.25), stored[:, 0] / 4)


@pytest.mark.parametrize("flip", [True, False])
def test_batches_of_recordings(flip: bool) -> None:
    """Whole recordings in a new order; a mirrored one is mirrored at every step."""
    stored = recordings()
    settings = DataPart("made", flip=flip)
    images, labels = torch.from_numpy(stored), torch.arange(6)
    batches = Batches(images, labels, 1.0, settings, batch=3, seed=3, classes=6)
    mirrored = {}
    for batch in batches.epoch(1):
        frames, labels = batch.frames, batch.labels
        assert frames.shape == (4, 3, 2, 3, 5)
        for column, label in enumerate(labels.tolist()):
            found = frames[:, column].numpy()
            mirrored[label] = np.array_equal(found, stored[label, ..., ::-1])
            assert mirrored[label] or np.array_equal(found, stored[label])
    assert sorted(mirrored) == list(range(6))
    assert len(set(mirrored.values())) == 1 + flip


def test_held_out_recordings_are_whole() -> None:
    stored = recordings(8)
    kept, held = hold_out((stored, np.arange(8) % 2), 0.25, 0)
    assert (kept[0].shape[1:], len(held[0])) == (stored.shape[1:], 2)
    found = {part.tobytes() for part in (*kept[0], *held[0])}
    assert found == {part.tobytes() for part in stored}


def test_the_score_is_over_recordings() -> None:
    stored = recordings(7)
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 4)).eval()
    mean = torch.from_numpy(stored).float().mean(1)
    labels = model(mean).argmax(1)
    found = score(model, torch.from_numpy(stored), labels, 1.0, 4, batch=3)
    assert (found.correct, found.n) == (7, 7)
    with pytest.raises(RequestError, match="T = 3 in front"):
        score(model, torch.from_numpy(stored), labels, 1.0, 3)


def test_a_run_on_recordings(folder: Path, tmp_path: Path) -> None:
    facts = train_run(parse_recipe(RECIPE, "test"), folder, tmp_path / "run")
    assert facts["images"] == {"train": 30, "validation": 10, "test": 9}
    assert facts["epochs"][1]["loss"] < facts["epochs"][0]["loss"]
    seen = Witness.load(tmp_path / "run" / "witness.npz")
    test, labels = plugins.load("data", "nmnist").load(folder, "test", 5)
    assert seen.inputs.shape == (6, 5, 2, 34, 34)
    assert np.array_equal(seen.inputs, test[:6])
    assert seen.labels.tolist() == labels[:6].tolist() == [0, 1, 2, 0, 1, 2]
    assert list(seen.spikes) == ["lif1", "rec2.neurons"]
    model, _ = load_run(tmp_path / "run")
    again = outputs(model, scaled(torch.from_numpy(test[:6]), 1.0), 5)
    assert np.array_equal(again.numpy(), seen.outputs)


def test_the_rate_rule_is_refused_before_a_run_is_left(folder: Path, tmp_path: Path) -> None:
    recipe = parse_recipe(RECIPE, "test", ["rule.name=rate"])
    with pytest.raises(RequestError) as caught:
        train_run(recipe, folder, tmp_path / "run")
    assert caught.value.code == "E_RULE"
    assert not (tmp_path / "run").exists()
