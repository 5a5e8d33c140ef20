"""The loop, its batches, its optimiser, and that it learns."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from snnpipe import plugins
from snnpipe.errors import RequestError
from snnpipe.train.build import build, rule_of
from snnpipe.train.evaluate import Score, score
from snnpipe.train.examples import Batches, hold_out
from snnpipe.train.fit import fit
from snnpipe.train.optimise import course, optimiser, share_of_rate
from snnpipe.train.progress import Progress
from snnpipe.train.recipe import TrainPart
from snnpipe.train.recipe_file import parse_recipe
from snnpipe.train.rules.rate import Rate
from torch import nn

pytestmark = pytest.mark.usefixtures("one_thread")

DIGITS = """
[data]
name = "digits"
validation = 0.2
[model]
channels = [12, 24]
strides = [1, 2]
hidden = [40]
[loss]
label_smoothing = 0.02
[train]
epochs = 5
"""


def _fit(text, rule=None, progress=None):
    recipe = parse_recipe(text, "test")
    data = plugins.load("data", recipe.data.name)
    kept, held = hold_out(data.load(None, "train", 4), recipe.data.validation, recipe.train.seed)
    torch.manual_seed(recipe.train.seed)
    model = build(recipe)
    images, labels, *validation = (torch.from_numpy(part) for part in (*kept, *held))
    batches = Batches(
        images, labels, data.scale, recipe.train.batch, recipe.data.flip,
        torch.Generator().manual_seed(recipe.train.seed),
    )  # fmt: skip
    fitted = fit(
        recipe, rule or rule_of(recipe), model, batches, tuple(validation), progress or Progress()
    )
    return model, fitted, data, recipe


@pytest.mark.parametrize("rule", ["rate", "bptt"])
def test_it_learns_digits(rule):
    model, fitted, data, recipe = _fit(f'{DIGITS}[rule]\nname = "{rule}"\n')
    test = [torch.from_numpy(part) for part in data.load(None, "test", 4)]
    assert score(model, *test, data.scale, recipe.train.steps).accuracy > 0.95
    assert [epoch.epoch for epoch in fitted.epochs] == [1, 2, 3, 4, 5]
    assert fitted.epochs[-1].loss < fitted.epochs[0].loss / 2
    checked = [epoch.validation_accuracy for epoch in fitted.epochs]
    assert fitted.best.validation_accuracy == max(checked)
    assert not model.training
    best = build(recipe)
    best.load_state_dict(fitted.best_state)
    *_, held = hold_out(data.load(None, "train", 4), 0.2, 0)
    found = score(best.eval(), *map(torch.from_numpy, held), data.scale, recipe.train.steps)
    assert found.accuracy == fitted.best.validation_accuracy


def test_a_loss_that_is_not_finite_stops_it():
    class Broken(Rate):
        def __call__(self, *args):
            for part in super().__call__(*args):
                yield replace(part, outputs=part.outputs * float("nan"))

    with pytest.raises(RequestError, match="loss became nan in epoch 1") as caught:
        _fit(DIGITS, Broken())
    assert caught.value.code == "E_DIVERGED"


def test_hold_out_takes_the_same_share_of_every_class():
    labels = np.repeat(np.arange(4), [40, 10, 100, 0 + 20])
    images = np.arange(170, dtype=np.uint8).reshape(-1, 1, 1, 1)
    (kept, kept_labels), (held, held_labels) = hold_out((images, labels), 0.1, 3)
    assert np.bincount(held_labels).tolist() == [4, 1, 10, 2]
    assert sorted([*kept.flatten(), *held.flatten()]) == list(range(170))
    assert np.array_equal(labels[kept.flatten()], kept_labels)
    assert np.array_equal(held, hold_out((images, labels), 0.1, 3)[1][0])
    assert not np.array_equal(held, hold_out((images, labels), 0.1, 4)[1][0])
    assert len(hold_out((images, labels), 0.0, 3)[1][0]) == 0


def _batches(count, batch, flip=False):
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 2, 3)
    images[..., 0] = 200
    generator = torch.Generator().manual_seed(5)
    return Batches(images, torch.arange(count), 0.25, batch, flip, generator)


def test_batches_hold_every_image_at_most_once():
    batches = _batches(50, 8)
    assert batches.per_epoch == 6
    orders = []
    for _ in range(2):
        seen = []
        for batch in batches.epoch():
            frames, labels = batch.frames, batch.labels
            assert frames.shape == (8, 1, 2, 3)
            assert frames.dtype == torch.float32
            assert torch.equal(frames[:, 0, 0, 1] * 4, labels.float())
            seen += labels.tolist()
        assert len(set(seen)) == 48
        orders.append(seen)
    assert orders[0] != orders[1]
    assert [len(batch.labels) for batch in _batches(5, 8).epoch()] == [5]


def test_flip_mirrors_about_half():
    mirrored = torch.cat(
        [batch.frames[:, 0, 0, 2] == 50 for batch in _batches(200, 50, True).epoch()]
    )
    assert 70 < int(mirrored.sum()) < 130
    assert not torch.cat([b.frames[:, 0, 0, 2] == 50 for b in _batches(200, 50).epoch()]).any()


def test_the_course_of_the_learning_rate():
    onecycle = TrainPart(schedule="onecycle", warmup=0.25)
    assert share_of_rate(onecycle, 0.0) == pytest.approx(0.04)
    assert share_of_rate(onecycle, 0.125) == pytest.approx(0.52)
    assert share_of_rate(onecycle, 0.25) == pytest.approx(1.0)
    assert share_of_rate(onecycle, 0.625) == pytest.approx(0.5)
    cosine = TrainPart(schedule="cosine", warmup=0.5)
    assert [share_of_rate(cosine, p) for p in (0.0, 0.25, 0.5)] == [0.0, 0.5, 1.0]
    assert share_of_rate(cosine, 0.75) == pytest.approx(0.5)
    assert share_of_rate(TrainPart(schedule="cosine", warmup=0.0), 0.0) == 1.0
    constant = TrainPart(schedule="constant", warmup=0.1)
    assert [share_of_rate(constant, p) for p in (0.05, 0.1, 1.0)] == [0.5, 1.0, 1.0]


def test_the_course_is_followed():
    settings = TrainPart(lr=0.5, schedule="cosine", warmup=0.0, optimizer="sgd", momentum=0.0)
    model = nn.Linear(1, 1)
    optimizer = optimiser(model, settings)
    schedule = course(optimizer, settings, 4)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        model.weight.grad, model.bias.grad = torch.ones(1, 1), torch.ones(1)
        optimizer.step()
        schedule.step()
    expected = [0.25 * (1 + math.cos(math.pi * (k + 0.5) / 4)) for k in range(4)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_only_weights_of_linear_maps_decay(name):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    settings = TrainPart(optimizer=name, lr=0.1, weight_decay=0.5, momentum=0.0)
    optimizer = optimiser(model, settings)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for n, parameter in model.named_parameters():
        shrunk = before[n] * (0.95 if parameter.dim() > 1 else 1.0)
        torch.testing.assert_close(parameter.detach(), shrunk)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_speaks_to_a_terminal_only():
    plain, terminal = io.StringIO(), _Terminal()
    _, fitted, *_ = _fit(DIGITS.replace("epochs = 5", "epochs = 1"), Rate(), Progress(terminal))
    assert terminal.getvalue().endswith(f"\r\x1b[2K{fitted.epochs[0]}\n")
    assert "epoch 1/1  1/16  loss " in terminal.getvalue()
    for progress in (Progress(plain), Progress(terminal)):
        progress.show("one")
        progress.show("too soon")
        progress.keep("kept")
    assert plain.getvalue() == ""
    assert "one\r\x1b[2Kkept\n" in terminal.getvalue()
    assert "too soon" not in terminal.getvalue()


def test_score_counts():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(2))
    images = torch.tensor([[3, 1], [0, 2], [5, 4]], dtype=torch.uint8).view(3, 1, 1, 2)
    assert score(model, images, torch.tensor([0, 1, 1]), 0.5, 3, batch=2) == Score(2, 3)
    assert Score(2, 3).accuracy == pytest.approx(2 / 3)
