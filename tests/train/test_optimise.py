"""Steps of the optimisers by hand, clipping, averages, drawn steps, precision."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from snnpipe import plugins
from snnpipe.errors import RequestError
from snnpipe.train.average import Average
from snnpipe.train.horizon import Horizon, first
from snnpipe.train.optimise import clipped, optimiser
from snnpipe.train.precision import computed, in_words
from snnpipe.train.protocol import Part
from snnpipe.train.recipe import TrainPart
from snnpipe.train.recipe_file import parse_recipe
from snnpipe.train.rules.rate import Rate
from torch import nn

pytestmark = pytest.mark.usefixtures("one_thread")

WEIGHT = torch.tensor([[0.5, -1.0], [2.0, 0.25]], dtype=torch.float64)
BIAS = torch.tensor([0.3, -0.4], dtype=torch.float64)
GRADIENTS = [
    (torch.tensor([[1.0, 0.5], [-0.5, 2.0]]).double(), torch.tensor([0.1, -2.0]).double()),
    (torch.tensor([[-0.2, 1.5], [0.5, 1.0]]).double(), torch.tensor([0.3, 0.7]).double()),
]


def _stepped(settings: TrainPart) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias after two steps with `GRADIENTS`."""
    model = nn.Linear(2, 2).double()
    with torch.no_grad():
        model.weight.copy_(WEIGHT)
        model.bias.copy_(BIAS)
    optimizer = optimiser(model, settings)
    for to_weight, to_bias in GRADIENTS:
        model.weight.grad, model.bias.grad = to_weight.clone(), to_bias.clone()
        optimizer.step()
    return model.weight.detach(), model.bias.detach()


def _same(found, expected) -> None:
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-14)


def test_sgd():
    lr, decay, momentum = 0.3, 0.05, 0.8
    expected = []
    for value, index, of in ((WEIGHT, 0, decay), (BIAS, 1, 0.0)):
        w, v = value.clone(), torch.zeros_like(value)
        for gradients in GRADIENTS:
            v = momentum * v + gradients[index] + of * w
            w = w - lr * v
        expected.append(w)
    _same(
        _stepped(TrainPart(optimizer="sgd", lr=lr, weight_decay=decay, momentum=momentum)), expected
    )


def test_adamw():
    lr, decay, (b1, b2), eps = 0.02, 0.1, (0.9, 0.999), 1e-8
    expected = []
    for value, index, of in ((WEIGHT, 0, decay), (BIAS, 1, 0.0)):
        w, m, v = value.clone(), torch.zeros_like(value), torch.zeros_like(value)
        for t, gradients in enumerate(GRADIENTS, 1):
            g = gradients[index]
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            w = w * (1 - lr * of)
            w = w - lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
        expected.append(w)
    _same(_stepped(TrainPart(optimizer="adamw", lr=lr, weight_decay=decay)), expected)


def test_lars():
    lr, decay, momentum, eta = 4.0, 0.05, 0.7, 1e-3
    w, v = WEIGHT.clone(), torch.zeros_like(WEIGHT)
    b, u = BIAS.clone(), torch.zeros_like(BIAS)
    for to_weight, to_bias in GRADIENTS:
        trust = eta * w.norm() / (to_weight.norm() + decay * w.norm())
        v = momentum * v + lr * trust * (to_weight + decay * w)
        u = momentum * u + lr * to_bias
        w, b = w - v, b - u
    settings = TrainPart(optimizer="lars", lr=lr, weight_decay=decay, momentum=momentum)
    _same(_stepped(settings), (w, b))


def test_lars_starts_from_zero_weights():
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    model.weight.grad = torch.tensor([[3.0, -1.0]])
    optimiser(model, TrainPart(optimizer="lars", lr=0.1)).step()
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[-0.3, 0.1]]))


def test_a_long_gradient_is_shortened_as_a_whole():
    model = nn.Linear(2, 1)
    model.weight.grad, model.bias.grad = torch.tensor([[2.0, 4.0]]), torch.tensor([4.0])
    assert clipped(model, TrainPart()) == 6.0
    assert clipped(model, TrainPart(clip=9.0)) == 6.0
    assert model.bias.grad.tolist() == [4.0]
    assert clipped(model, TrainPart(clip=1.5)) == 6.0
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.5, 1.0]]), rtol=1e-5, atol=0)
    torch.testing.assert_close(model.bias.grad, torch.tensor([1.0]), rtol=1e-5, atol=0)
    model.bias.grad.fill_(math.inf)
    assert clipped(model, TrainPart(clip=1.5)) == math.inf
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.5, 1.0]]), rtol=1e-5, atol=0)


def _normed() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).to(
        memory_format=torch.channels_last
    )


def test_an_average_of_weights_and_statistics():
    model = _normed()
    average = Average(model, 0.2)
    tracked = {"0.weight": model[0].weight, "1.running_mean": model[1].running_mean}
    expected = {name: value.detach().clone() for name, value in tracked.items()}
    for n in range(1, 5):
        with torch.no_grad():
            for value in tracked.values():
                value.add_(n)
            model[1].num_batches_tracked.add_(1)
        average.update(model)
        decay = min(0.2, (1 + n) / (10 + n))  # 2/11 in the first update only
        for name, value in tracked.items():
            expected[name] = decay * expected[name] + (1 - decay) * value.detach()
    own = {name: value.clone() for name, value in model.state_dict().items()}
    with average.applied(model) as applied:
        assert applied is model
        for name, value in tracked.items():
            torch.testing.assert_close(value.detach(), expected[name])
        assert int(model[1].num_batches_tracked) == 4
        assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    for name, value in model.state_dict().items():
        assert torch.equal(value, own[name])
    assert not torch.equal(own["0.weight"], expected["0.weight"])


def test_an_average_gives_the_weights_back_after_an_error():
    model = _normed()
    average = Average(model, 0.9)
    nn.init.ones_(model[0].weight)
    with pytest.raises(RuntimeError, match="channels"), average.applied(model):
        model(torch.zeros(1, 9, 9, 9))
    assert float(model[0].weight.detach().mean()) == 1.0


def test_an_average_goes_on_where_it_was():
    model, states = _normed(), []
    average, other = Average(model, 0.99), Average(_normed(), 0.99)
    for _ in range(3):
        nn.init.normal_(model[0].weight)
        average.update(model)
    other.load_state_dict(average.state_dict())
    nn.init.normal_(model[0].weight)
    for one in (average, other):
        one.update(model)
        states.append(one.state_dict())
    assert states[0]["updates"] == states[1]["updates"] == 4
    for name, value in states[0]["values"].items():
        assert torch.equal(value, states[1]["values"][name])


def _recipe(train: str, rule: str = ""):
    return parse_recipe(f'[data]\nname = "digits"\n[rule]\n{rule}\n[train]\n{train}', "test")


def test_steps_are_drawn_for_every_batch():
    horizon = Horizon.of(_recipe("steps = 4\ndraw_steps = true\nseed = 5"))
    drawn = [horizon.at(update) for update in range(2000)]
    counts = Counter(drawn)
    assert sorted(counts) == [1, 2, 3, 4]
    assert all(430 < count < 570 for count in counts.values())
    assert drawn == [horizon.at(update) for update in range(2000)]
    assert drawn[:40] != [
        Horizon.of(_recipe("steps = 4\ndraw_steps = true\nseed = 6")).at(u) for u in range(40)
    ]
    assert {Horizon.of(_recipe("steps = 4")).at(update) for update in range(50)} == {4}


def test_of_what_moves_the_first_frames_are_shown():
    moving, still = torch.rand(4, 3, 1, 8, 8), torch.rand(3, 1, 8, 8)
    assert torch.equal(first(moving, 2), moving[:2])
    assert torch.equal(first(still, 2), still)


def test_drawn_steps_and_windows_are_refused():
    with pytest.raises(RequestError, match=r"rule.windows is 2 with train.draw_steps") as caught:
        Horizon.of(_recipe("draw_steps = true", "windows = 2"))
    assert caught.value.code == "E_RECIPE"


def test_bf16_is_computed_in_and_not_handed_out():
    recipe = _recipe("steps = 2")
    torch.manual_seed(0)
    model = plugins.load("models", "convnet").build(recipe, (1, 8, 8), 10)
    frames, found, gradients = torch.rand(6, 1, 8, 8), [], []
    for precision in ("float32", "bf16"):
        model.zero_grad()
        settings = TrainPart(precision=precision)
        parts: list[Part] = list(computed(Rate()(model, frames, 2), settings, torch.device("cpu")))
        assert parts[0].outputs.dtype == torch.float32
        parts[0].mean.square().sum().backward()
        found.append(parts[0].mean.detach())
        gradients.append(model.conv1.weight.grad.clone())
    assert gradients[1].dtype == torch.float32
    assert gradients[1].isfinite().all()
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[1].bfloat16().float())  # what it was computed in
    assert in_words(TrainPart(precision="bf16")) == "trained in bf16, evaluated in float32"
    assert "bf16" not in in_words(TrainPart())
