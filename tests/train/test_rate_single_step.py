"""Rate-based backpropagation step by step."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from online_networks import (
    EXACT,
    RESET,
    T,
    one_layer,
    recurrent,
)
from snnpipe.errors import RequestError
from snnpipe.train.modules import LIF, CubaLIF
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.rules.rate import Rate
from snnpipe.train.rules.rate_single_step import RateSingleStep
from torch import nn
from training_networks import convnet, difference, frames, learn

pytestmark = pytest.mark.usefixtures("one_thread")


@RESET
@pytest.mark.parametrize("moving", [False, True])
def test_without_norm_the_rate_rules_are_one(reset, detach, moving):
    model = convnet(3, False, decay=0.5, threshold=0.8, reset=reset, detach_reset=detach)
    x = frames(T) if moving else frames()
    left, whole = learn(Rate(), model, x, T)
    right, steps = learn(RateSingleStep(), model, x, T, "per_step")
    torch.testing.assert_close(left, right, rtol=EXACT, atol=EXACT)
    assert difference(steps, whole) < EXACT


def test_one_static_layer_has_the_same_statistics_at_every_step():
    """With a norm the rules differ where the frames do: joint statistics are not each step's."""
    model = convnet(1, True, decay=0.5)
    _, whole = learn(Rate(), model, frames(), T)
    _, steps = learn(RateSingleStep(), model, frames(), T, "per_step")
    assert difference(steps, whole) < EXACT
    _, whole = learn(Rate(), model, frames(T), T)
    _, steps = learn(RateSingleStep(), model, frames(T), T, "per_step")
    assert difference(steps, whole) > 1e-3


def test_the_slope_of_a_norm_is_that_of_the_mean_variance():
    """Written out; weight and bias of the norm have the gradient through time, for they are
    linear, whatever the statistics."""
    torch.manual_seed(6)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)).double()
    nn.init.uniform_(model[1].weight, 0.5, 2.0)
    x = frames(4) * torch.tensor([0.3, 1.0, 2.0, 4.0]).double()[:, None, None, None, None]
    toward = torch.randn(6, 3, 6, 6, dtype=torch.float64)

    def gradients(rule):
        model.zero_grad()
        (part,) = rule(model, x, 4, "per_step")
        (part.mean * toward).sum().backward()
        return part.mean.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}

    expected, bptt = gradients(BPTT())
    found, steps = gradients(RateSingleStep())
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)
    for name in ("1.weight", "1.bias"):
        torch.testing.assert_close(steps[name], bptt[name], rtol=EXACT, atol=EXACT)
    assert difference(steps, bptt) > 1e-2

    currents = model[0](x.flatten(0, 1)).detach().unflatten(0, (4, 6))
    mean, variance = currents.mean((1, 3, 4)), currents.var((1, 3, 4), correction=0) + model[1].eps
    view = (4, 1, 3, 1, 1)
    standard = ((currents - mean.view(view)) / variance.sqrt().view(view)).mean(0)
    slope = (model[1].weight.detach() / variance.mean(0).sqrt()).view(1, 3, 1, 1)
    over = (0, 2, 3)
    to_current = slope * (
        toward
        - toward.mean(over, keepdim=True)
        - standard * (toward * standard).mean(over, keepdim=True)
    )
    bias, weight = to_current.sum(over), torch.zeros_like(model[0].weight)
    for dy, dx in itertools.product(range(3), range(3)):
        patch = x.mean(0)[:, 0, dy : dy + 6, dx : dx + 6]
        weight[:, 0, dy, dx] = torch.einsum("bcyx,byx->c", to_current, patch)
    torch.testing.assert_close(steps["0.weight"], weight, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(steps["0.bias"], bias, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("neuron", [LIF(0.5, 0.9, learn_decay=True), CubaLIF(0.3, 0.6, 0.9)])
def test_every_neuron_is_tallied(neuron):
    model = one_layer(copy.deepcopy(neuron), norm=True)
    _, bptt = learn(BPTT(), model, frames(), T, "per_step")
    _, steps = learn(RateSingleStep(), model, frames(), T, "per_step")
    assert difference(steps, bptt) < EXACT
    assert all(gradient.norm() > 1e-6 for name, gradient in steps.items() if name != "0.bias")


def test_a_function_that_is_not_linear_has_the_true_mean():
    model = nn.Sequential(*convnet(1, True, decay=0.5)[:3], nn.MaxPool2d(2)).double()
    x = frames(T)
    seen = []
    (part,) = RateSingleStep()(model, x, T, "per_step", lambda _, rate: seen.append(rate))
    (whole,) = BPTT()(model, x, T, "per_step")
    torch.testing.assert_close(part.mean, whole.mean, rtol=EXACT, atol=EXACT)
    part.mean.sum().backward()
    assert model[0].weight.grad.norm() > 1e-3
    (rate,) = seen
    assert rate.shape == (1, 6, 6, 8, 8)
    assert rate.requires_grad


def test_a_recurrent_layer_is_refused():
    with pytest.raises(RequestError, match="'rate_single_step' cannot train a recurr") as caught:
        learn(RateSingleStep(), recurrent(LIF(), 1.0), frames(T), T, "per_step")
    assert caught.value.code == "E_RULE"
    assert torch.is_grad_enabled()
