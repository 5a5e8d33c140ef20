"""Still images as spikes: what is drawn, what is exact, and that everyone sees the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_network
from snnpipe import inputs, plugins
from snnpipe.errors import RequestError
from snnpipe.network.trace import Witness
from snnpipe.runs import Place
from snnpipe.train.checkpoint import load_run
from snnpipe.train.coding import Seen, drawn, latency, seen
from snnpipe.train.dataset import Lazy, read
from snnpipe.train.evaluate import outputs
from snnpipe.train.examples import Batches
from snnpipe.train.frames import scaled
from snnpipe.train.recipe import DataPart
from snnpipe.train.recipe_file import parse_recipe
from snnpipe.train.run import train_run

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 5


def digits(code: str) -> Seen:
    return seen(parse_recipe(f'[data]\nname = "digits"\ncoding = "{code}"\n', "test"))


def fire_time(level: int, full: int, steps: int) -> int | None:
    """By the definition, in whole numbers: floor((full - level) T / full)."""
    return None if level == 0 else (full - level) * steps // full


@pytest.mark.parametrize("steps", [1, 3, 5, 16])
@pytest.mark.parametrize("full", [16, 256])
def test_latency_is_its_definition(steps: int, full: int) -> None:
    levels = np.arange(full + 1)
    intensity = levels.astype(np.float32) / full
    spikes = np.stack([latency(intensity, step, steps) for step in range(steps)])
    for level in levels:
        found = np.flatnonzero(spikes[:, level]).tolist()
        time = fire_time(int(level), full, steps)
        assert found == ([] if time is None else [time])
    with_torch = [latency(torch.from_numpy(intensity), step, steps) for step in range(steps)]
    assert np.array_equal(torch.stack(with_torch).numpy(), spikes)


def test_no_intensity_however_small_is_lost() -> None:
    """1 - 1e-9 is 1 in float32: still one spike, in the last step."""
    tiny = np.float32([1e-9, 2**-24, 1.0])
    spikes = np.stack([latency(tiny, step, 4) for step in range(4)])
    assert spikes.sum(0).tolist() == [1, 1, 1]
    assert spikes[3].tolist() == [True, True, False]


def test_what_the_network_sees() -> None:
    direct, rate = digits("direct"), digits("rate")
    facts = [(s.name, s.shape, s.classes, s.levels, s.scale, s.coding) for s in (direct, rate)]
    assert facts == [
        ("digits", (1, 8, 8), 10, 16, 1 / 16, "direct"),
        ("digits", (1, 8, 8), 10, 1, 1.0, "events"),
    ]
    with pytest.raises(RequestError, match="'nmnist' holds recordings") as caught:
        seen(parse_recipe('[data]\nname = "nmnist"\ncoding = "latency"\n', "test"))
    assert caught.value.code == "E_RECIPE"


def test_direct_is_the_data_set_itself() -> None:
    stored, labels = digits("direct").load(None, "test", STEPS)
    source, expected = plugins.load("data", "digits").load(None, "test", STEPS)
    assert np.array_equal(stored, source)
    assert np.array_equal(labels, expected)


def test_rate_coded_test_images() -> None:
    spikes, labels = digits("rate").load(None, "test", 64)
    levels, expected = plugins.load("data", "digits").load(None, "test", 64)
    assert (spikes.shape, spikes.dtype) == ((450, 64, 1, 8, 8), np.uint8)
    assert np.array_equal(labels, expected)
    shares = spikes.mean(1)
    assert not shares[levels == 0].any()
    assert (shares[levels == 16] == 1).all()
    for level in (1, 8, 15):
        share = shares[levels == level].mean()
        count = 64 * int((levels == level).sum())
        p = level / 16
        assert abs(share - p) < 4 * (p * (1 - p) / count) ** 0.5
    again, _ = digits("rate").load(None, "test", 64)
    assert np.array_equal(spikes, again)
    assert not np.array_equal(spikes[0], spikes[:1, ::-1][0])


GOLDEN = [
    [0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1],
    [0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1],
    [0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1],
]


def test_rate_codes_are_the_same_for_ever() -> None:
    """As first drawn: another numpy must draw them again, for every image on its own."""
    levels = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    found = drawn(levels, 16, 3, 7)
    assert found.reshape(3, 16).tolist() == GOLDEN
    assert not np.array_equal(found, drawn(levels, 16, 3, 8))
    stored = np.repeat(levels[None], 9, 0)
    coded = digits("rate").coded(stored, 3)
    assert np.array_equal(coded[7], found)
    assert np.array_equal(coded[:4], digits("rate").coded(stored[:4], 3))
    assert digits("latency").coded(stored[:0], 3).shape == (0, 3, 1, 4, 4)


def test_latency_coded_test_images() -> None:
    spikes, _ = digits("latency").load(None, "test", STEPS)
    levels, _ = plugins.load("data", "digits").load(None, "test", STEPS)
    assert np.array_equal(spikes.sum(1), levels > 0)
    first = spikes.argmax(1)
    for level in range(1, 17):
        assert set(first[levels == level].tolist()) <= {fire_time(level, 16, STEPS)}


def test_images_that_are_read_when_asked_for_are_coded_then() -> None:
    levels, _ = plugins.load("data", "digits").load(None, "test", STEPS)
    asked: list[int] = []

    def item(row: int) -> np.ndarray:
        asked.append(row)
        return levels[row]

    coded = digits("rate").coded(Lazy(np.arange(450), item)[np.arange(40, 50)], STEPS)
    assert isinstance(coded, Lazy)
    assert asked == []
    found = read(coded[3:5])
    assert asked == [43, 44]
    assert np.array_equal(found, digits("rate").coded(levels[40:50], STEPS)[3:5])


@pytest.mark.parametrize("code", ["rate", "latency"])
def test_batches_are_coded_as_test_images_are(code: str) -> None:
    """Latency: the same spikes. Rate: fresh ones in each epoch, with the same chances."""
    levels = torch.arange(17, dtype=torch.uint8).view(17, 1, 1, 1).repeat(1, 1, 4, 60)
    part = DataPart("digits", coding=code)
    batches = Batches(levels, torch.arange(17), 1 / 16, part, 17, 3, 17, steps=16)
    assert batches.seen_scale == 1.0
    epochs = [next(iter(batches.epoch(number))) for number in (1, 2, 1)]
    for batch in epochs:
        assert batch.frames.shape == (16, 17, 1, 4, 60)
        assert set(batch.frames.unique().tolist()) == {0.0, 1.0}
        p = batch.labels / 16
        if code == "latency":
            coded = digits("latency").coded(levels.numpy()[batch.labels], 16)
            assert np.array_equal(batch.frames.transpose(0, 1).numpy(), coded)
        else:
            error = (batch.frames.mean((0, 2, 3, 4)) - p).abs()
            assert (error <= 4 * (p * (1 - p) / (16 * 240)).sqrt()).all()
    assert torch.equal(epochs[0].frames, epochs[2].frames)
    order = [batch.labels.argsort() for batch in epochs]
    same = torch.equal(epochs[0].frames[:, order[0]], epochs[1].frames[:, order[1]])
    assert same == (code == "latency")


RUN = """
[data]
name = "digits"
validation = 0.1
coding = "{}"
flip = true
[model]
channels = [4]
strides = [2]
[train]
steps = 6
epochs = 2
limit = 300
[witness]
samples = 5
"""


def verified_on(run: Path, samples: int | None) -> inputs.TestSet:
    place = Place(run / "network.nir", run, is_run=True)
    toy = toy_network.network()
    coded = replace(toy.contract, input_coding="events", steps=6)
    network = replace(toy, input_shape=(1, 8, 8), contract=coded)
    return inputs.test_set(place, network, (None, None), None, samples, inputs.Random())


@pytest.mark.parametrize("code", ["rate", "latency"])
def test_a_run_and_its_verifier_see_the_same(code: str, tmp_path: Path) -> None:
    recipe = parse_recipe(RUN.format(code), "test")
    facts = train_run(recipe, None, tmp_path / "run")
    assert facts["epochs"][0]["validation_accuracy"] is not None
    kept = Witness.load(tmp_path / "run" / "witness.npz")
    assert kept.inputs.shape == (5, 6, 1, 8, 8)
    model, _ = load_run(tmp_path / "run")
    again = outputs(model, scaled(torch.from_numpy(kept.inputs), 1.0), 6)
    assert np.array_equal(again.numpy(), kept.outputs)
    found = verified_on(tmp_path / "run", 5)
    assert np.array_equal(found.x, kept.inputs)
    assert found.labels is not None
    assert found.labels.tolist() == kept.labels.tolist()
    whole = verified_on(tmp_path / "run", None)
    assert len(whole.x) == facts["images"]["test"] == 450
    frames = scaled(torch.from_numpy(whole.x), 1.0)
    right = outputs(model, frames, 6).double().sum(0).argmax(1).numpy() == whole.labels
    assert int(right.sum()) == facts["test"]["last"]["correct"]
