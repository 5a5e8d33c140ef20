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
from snnpipe.train.diagnosis import culprit
from snnpipe.train.evaluate import Score, score
from snnpipe.train.examples import Batch, Batches, hold_out
from snnpipe.train.fit import Log, fit
from snnpipe.train.modules import LIF
from snnpipe.train.objective import Objective
from snnpipe.train.optimise import course, optimiser, share_of_rate
from snnpipe.train.progress import Progress
from snnpipe.train.recipe import DataPart, TrainPart
from snnpipe.train.recipe_file import parse_recipe
from snnpipe.train.rules.rate import Rate
from snnpipe.train.state import State
from snnpipe.train.update import Updates, cut
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
        images, labels, data.scale, recipe.data, recipe.train.batch, recipe.train.seed, data.classes
    )
    fitted = fit(
        recipe,
        rule or rule_of(recipe),
        model,
        batches,
        tuple(validation),
        Log(progress or Progress()),
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


class Spoilt(Rate):
    """A rule that spoils something in the middle of an epoch."""

    def __init__(self, spoil, outputs=1.0):
        object.__setattr__(self, "spoil", spoil)
        object.__setattr__(self, "outputs", outputs)
        object.__setattr__(self, "passes", [])

    def __call__(self, model, *args):
        self.passes.append(model)
        broken = len(self.passes) == 3
        if broken:
            self.spoil(model)
        for part in super().__call__(model, *args):
            yield replace(part, outputs=part.outputs * self.outputs) if broken else part


def _fill(name, value):
    def spoil(model):
        with torch.no_grad():
            model.get_parameter(name).fill_(value)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "outputs", "words"),
    [
        (_fill("conv2.weight", float("inf")), 1.0, "the parameter 'conv2.weight' is no longer"),
        # No spike is NaN, so the loss is finite here: only gradients tell.
        (_fill("conv2.weight", 3e38), 1.0, "the output of layer 'conv2' is not finite"),
        (_fill("fc.weight", 3e38), 1.0, "the output of layer 'fc' is not finite"),
        (lambda _model: None, float("nan"), "the gradient of 'fc.bias' is not"),
    ],
)
def test_what_is_not_finite_stops_it_and_is_named(spoil, outputs, words):
    with pytest.raises(RequestError, match=f"^epoch 1, update 3: .*{words}.*train.lr") as caught:
        _fit(DIGITS, Spoilt(spoil, outputs))
    assert caught.value.code == "E_DIVERGED"


def test_a_sound_pass_has_no_culprit():
    model = build(parse_recipe(DIGITS, "test"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = culprit(model, torch.rand(5, 1, 8, 8), 4, "joint")
    assert found == "the loss is not finite, though every layer's output and gradient is"
    assert "input" in culprit(model, torch.full((5, 1, 8, 8), torch.nan), 4, "joint")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_it_stops_when_validation_does_not_get_better():
    """With so small a rate nothing changes: no epoch is better than the first."""
    text = DIGITS.replace("epochs = 5", "epochs = 50\nlr = 1e-30\npatience = 2\nlimit = 300")
    _, fitted, *_ = _fit(text)
    checked = [epoch.validation_accuracy for epoch in fitted.epochs]
    best = fitted.best.epoch
    assert len(checked) == best + 2 < 50
    assert max(checked) == checked[best - 1]
    assert all(value < checked[best - 1] for value in checked[: best - 1])


@pytest.mark.parametrize("rule", ["rate", "bptt"])
def test_pieces_of_a_batch_add_up_to_its_gradient(rule):
    """Without normalisation, whose statistics are those of a piece."""
    torch.manual_seed(1)
    frames, labels = torch.rand(12, 3, 5, 5).double(), torch.arange(12) % 4
    found = []
    for pieces in (1, 3, 5):
        torch.manual_seed(2)
        model = nn.Sequential(nn.Conv2d(3, 6, 3), LIF(), nn.Flatten(), nn.Linear(54, 4)).double()
        recipe = parse_recipe(
            f'[data]\nname = "digits"\n[rule]\nname = "{rule}"\n[train]\naccumulate = {pieces}\n'
            'steps = 3\noptimizer = "sgd"',
            "test",
        )
        settings = recipe.train
        optimizer = optimiser(model, settings)
        state = State(model, optimizer, course(optimizer, settings, 5))
        done = Updates(recipe, rule_of(recipe), Objective(recipe.loss))(
            state, Batch(frames, labels, labels)
        )
        assert done.shown == 12
        found.append([done.loss, *(p.grad for p in model.parameters())])
    for other in found[1:]:
        for one, another in zip(found[0], other, strict=True):
            torch.testing.assert_close(another, one, rtol=1e-12, atol=1e-15)


def test_recordings_are_cut_along_the_batch():
    frames = torch.arange(4 * 5).view(4, 5, 1, 1, 1)
    pieces = list(cut(Batch(frames, torch.arange(5), torch.eye(5)), 2))
    assert [piece.frames[1, :, 0, 0, 0].tolist() for piece in pieces] == [[5, 6, 7], [8, 9]]
    assert [piece.labels.tolist() for piece in pieces] == [[0, 1, 2], [3, 4]]
    assert torch.equal(torch.cat([piece.targets for piece in pieces]), torch.eye(5))


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


def _batches(count, batch, **settings):
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 2, 3)
    images[..., 0] = 200
    part = DataPart("made", **settings)
    return Batches(images, torch.arange(count), 0.25, part, batch, seed=5, classes=count)


def test_batches_hold_every_image_at_most_once():
    batches = _batches(50, 8)
    assert batches.per_epoch == 6
    orders = []
    for number in (1, 2):
        seen = []
        for batch in batches.epoch(number):
            frames, labels = batch.frames, batch.labels
            assert frames.shape == (8, 1, 2, 3)
            assert frames.dtype == torch.float32
            assert torch.equal(frames[:, 0, 0, 1] * 4, labels.float())
            seen += labels.tolist()
        assert len(set(seen)) == 48
        orders.append(seen)
    assert orders[0] != orders[1]
    assert [len(batch.labels) for batch in _batches(5, 8).epoch(1)] == [5]


def test_flip_mirrors_about_half():
    mirrored = torch.cat(
        [batch.frames[:, 0, 0, 2] == 50 for batch in _batches(200, 50, flip=True).epoch(1)]
    )
    assert 70 < int(mirrored.sum()) < 130
    assert not torch.cat([b.frames[:, 0, 0, 2] == 50 for b in _batches(200, 50).epoch(1)]).any()


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
