"""What must be exact between the rules (float64), and what must not be equal."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from snnpipe.train import eager
from snnpipe.train.modules import LIF
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.rules.ottt import OTTT
from snnpipe.train.rules.ottt_online import OTTTOnline
from snnpipe.train.rules.rate import Rate
from snnpipe.train.rules.rate_single_step import RateSingleStep
from snnpipe.train.rules.sltt import SLTT
from snnpipe.train.rules.sltt_k import SLTTK
from training_networks import RESETS, convnet, difference, frames, learn, mean_output

pytestmark = pytest.mark.usefixtures("one_thread")
EXACT = 1e-12
NORM = pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
RESET = pytest.mark.parametrize(("reset", "detach"), RESETS)
RATES = pytest.mark.parametrize(
    ("rule", "form"),
    [(Rate(), "joint"), (RateSingleStep(), "per_step")],
    ids=lambda part: getattr(part, "name", ""),
)
"""The rate rules and the statistics that each normalises by."""
EVERY = [
    (BPTT(), "joint"),
    (BPTT(), "per_step"),
    (Rate(), "joint"),
    (RateSingleStep(), "per_step"),
    (SLTT(), "joint"),
    (SLTT(), "per_step"),
    (SLTTK(chosen=4), "per_step"),
    (OTTT(), "per_step"),
    (OTTTOnline(), "per_step"),
]
EACH = pytest.mark.parametrize(
    ("rule", "form"), EVERY, ids=[f"{rule.name}-{form}" for rule, form in EVERY]
)
"""Every rule, learning from all of 4 steps, under each form of normalisation it trains with."""


def taught(rule, form, model, x, steps=4):
    """Mean output and gradient by the loss that the rule trains with under this form."""
    return learn(rule, model, x, steps, form, rule.trains[form][0])


@EACH
@RESET
@pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
@pytest.mark.parametrize("moving", [False, True])
def test_every_rule_has_the_outputs_of_bptt(rule, form, norm, reset, detach, moving):
    model = convnet(3, norm, decay=0.6, threshold=0.8, reset=reset, detach_reset=detach)
    x = frames(4 if moving else None)
    left, _ = learn(BPTT(), copy.deepcopy(model), x, 4, form)
    right, _ = taught(rule, form, model, x)
    assert left.std() > 1e-3
    torch.testing.assert_close(right, left, rtol=EXACT, atol=EXACT)


def test_the_forms_of_normalisation_are_two_forward_passes():
    model = convnet(3, True, decay=0.6)
    left, right = (learn(BPTT(), model, frames(4), 4, form)[0] for form in ("joint", "per_step"))
    assert (left - right).abs().max() > 1e-2


@NORM
@RESET
@RATES
@pytest.mark.parametrize("depth", [1, 3])
def test_one_step_has_one_gradient(norm, reset, detach, rule, form, depth):
    model = convnet(depth, norm, decay=0.5, threshold=0.9, reset=reset, detach_reset=detach)
    _, bptt = learn(BPTT(), model, frames(1), 1, form)
    _, rate = learn(rule, model, frames(1), 1, form)
    assert difference(rate, bptt) < EXACT


@NORM
@RESET
@RATES
@pytest.mark.parametrize("steps", [1, 4, 8])
def test_one_layer_on_a_static_input_is_exact(norm, reset, detach, rule, form, steps):
    model = convnet(1, norm, decay=0.5, threshold=1.1, reset=reset, detach_reset=detach)
    _, bptt = learn(BPTT(), model, frames(), steps, form)
    _, rate = learn(rule, model, frames(), steps, form)
    assert difference(rate, bptt) < EXACT


@NORM
@RATES
def test_one_layer_on_moving_input_is_not(norm, rule, form):
    model = convnet(1, norm, decay=0.5)
    _, bptt = learn(BPTT(), model, frames(4), 4, form)
    _, rate = learn(rule, model, frames(4), 4, form)
    assert difference(rate, bptt) > 1e-3


@NORM
@RATES
@pytest.mark.parametrize("moving", [False, True])
def test_the_readout_is_exact_at_any_depth(norm, rule, form, moving):
    model = convnet(3, norm, decay=0.5, reset="subtract")
    x = frames(5 if moving else None)
    _, bptt = learn(BPTT(), model, x, 5, form)
    _, rate = learn(rule, model, x, 5, form)
    readout = {name for name in bptt if name.startswith(f"{len(model) - 1}.")}
    assert len(readout) == 2
    only = [{name: found[name] for name in readout} for found in (rate, bptt)]
    assert difference(*only) < EXACT
    assert difference(rate, bptt) > 1e-3


@NORM
@RESET
@pytest.mark.parametrize(
    ("rule", "form"),
    [(Rate(), "joint"), (RateSingleStep(), "per_step"), (SLTT(), "joint")],
    ids=lambda part: getattr(part, "name", ""),
)
def test_without_memory_and_on_a_static_input_the_rules_agree(norm, reset, detach, rule, form):
    model = convnet(3, norm, decay=0.0, reset=reset, detach_reset=detach)
    _, bptt = learn(BPTT(), model, frames(), 4, form)
    _, found = learn(rule, model, frames(), 4, form)
    assert difference(found, bptt) < EXACT


@NORM
@RESET
@RATES
def test_with_memory_and_depth_they_do_not(norm, reset, detach, rule, form):
    model = convnet(3, norm, decay=0.5, reset=reset, detach_reset=detach)
    _, bptt = learn(BPTT(), model, frames(), 4, form)
    _, rate = learn(rule, model, frames(), 4, form)
    assert difference(rate, bptt) > 1e-3


def test_detaching_the_reset_changes_the_gradient():
    found = []
    for detach in (True, False):
        model = convnet(1, True, decay=0.5, reset="subtract", detach_reset=detach)
        found.append(learn(Rate(), model, frames(), 4)[1])
    assert difference(*found) > 1e-3


@pytest.mark.parametrize("stride", [1, (2, 1)])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_of_the_stream_learns_as_one_on_the_mean(stride, groups):
    torch.manual_seed(1)
    conv = torch.nn.Conv2d(
        4, 6, (3, 2), stride, padding=(1, 0), dilation=(1, 2), groups=groups
    ).double()
    x = torch.rand(5, 3, 4, 7, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.rand_like(conv(x[0]))
    found = []
    for output in (mean_output(Rate(), conv, x, 5), conv(x.mean(0))):
        grads = torch.autograd.grad((output * weight).sum(), [x, *conv.parameters()])
        found.append((output.detach(), *grads))
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=EXACT, atol=EXACT)


@RESET
@pytest.mark.parametrize("compare", ["gt", "ge"])
def test_eligibility_is_the_slope_of_the_rate(reset, detach, compare):
    neuron = LIF(0.6, 1.3, reset, compare, detach).spiking
    current = torch.randn(6, 4, 5, 3, dtype=torch.float64) + 0.7
    offset = torch.zeros(4, 5, 3, dtype=torch.float64, requires_grad=True)
    spikes = eager.unrolled(current + offset, neuron)
    (slope,) = torch.autograd.grad(spikes.mean(0).sum(), offset)
    _, (rate,), (slopes,) = eager.stream(current, neuron)
    kappa = slopes["current"][0]
    torch.testing.assert_close(kappa, slope, rtol=EXACT, atol=EXACT)
    assert torch.equal(rate, spikes.detach().sum(0) / 6)
    assert kappa.std() > 1e-2


@RATES
def test_without_memory_the_order_of_frames_does_not_matter(rule, form):
    model = convnet(3, True, decay=0.0)
    x = frames(5)
    for order in ([4, 3, 2, 1, 0], [0, 4, 2, 1, 3]):
        _, one = learn(rule, model, x, 5, form)
        _, other = learn(rule, model, x[order], 5, form)
        assert difference(one, other) < EXACT
    with_memory = convnet(3, True, decay=0.5)
    _, one = learn(rule, with_memory, x, 5, form)
    _, other = learn(rule, with_memory, x.flip(0), 5, form)
    assert difference(one, other) > 1e-3


@NORM
@EACH
def test_a_static_input_is_a_repeated_one(norm, rule, form):
    """Computing the first maps once changes no value: outputs, gradients, running statistics."""
    model = convnet(2, norm, decay=0.5)
    copied = copy.deepcopy(model)
    shown, found = taught(rule, form, model, frames())
    repeated, expected = taught(rule, form, copied, frames().expand(4, -1, -1, -1, -1))
    torch.testing.assert_close(shown, repeated, rtol=EXACT, atol=EXACT)
    assert difference(found, expected) < EXACT
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, copied.state_dict()[name], rtol=EXACT, atol=EXACT)


@EACH
def test_running_statistics_move_by_the_batch_s_or_by_each_step_s(rule, form):
    model = convnet(1, True)
    norm = model[1]
    x = frames(4)
    currents = model[0](x.flatten(0, 1)).detach().unflatten(0, (4, -1))
    taught(rule, form, model, x)
    mean, variance = torch.zeros(6).double(), torch.ones(6).double()
    joint = currents.flatten(0, 1)[None]
    share, seen = (0.1, joint) if form == "joint" else (0.1 / 4, currents)
    for step in seen:
        mean = (1 - share) * mean + share * step.mean((0, 2, 3))
        variance = (1 - share) * variance + share * step.var((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, mean, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(norm.running_var, variance, rtol=EXACT, atol=EXACT)


@EACH
def test_in_evaluation_every_rule_uses_the_running_statistics(rule, form):
    model = convnet(2, True, decay=0.5)
    learn(BPTT(), model, frames(), 4)
    model.eval()
    before = copy.deepcopy(model.state_dict())
    expected, _ = learn(BPTT(), model, frames(4), 4)
    found, _ = taught(rule, form, model, frames(4))
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@RATES
def test_in_evaluation_one_step_has_one_gradient(rule, form):
    model = convnet(2, True, decay=0.5)
    learn(BPTT(), model, frames(4), 4)
    model.eval()
    _, bptt = learn(BPTT(), model, frames(1), 1)
    _, rate = learn(rule, model, frames(1), 1, form)
    assert difference(rate, bptt) < EXACT


def _saved_bytes(rule, form, model, x, steps) -> int:
    """Bytes kept for the backward pass, parameters and buffers left out, each storage once."""
    own = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = mean_output(rule, model, x, steps, form)
    assert output.requires_grad
    return sum(s.nbytes() for pointer, s in kept.items() if pointer not in own)


@RATES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rate_rules_keep_as_much_at_any_number_of_steps(rule, form, dtype):
    model = convnet(3, True).to(dtype)
    sizes = [1, 2, 4, 8, 16]
    rate, bptt = (
        [_saved_bytes(of, form, model, frames(steps).to(dtype), steps) for steps in sizes]
        for of in (rule, BPTT())
    )
    assert len(set(rate)) == 1
    assert bptt[0] >= rate[0]
    assert all(1.8 < more / less < 2.5 for less, more in pairwise(bptt))
