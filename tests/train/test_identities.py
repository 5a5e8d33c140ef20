"""What must be exact between the rules (float64), and what must not be equal."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from snnpipe.train import eager
from snnpipe.train.modules import LIF
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.rules.rate import Rate
from training_networks import RESETS, convnet, difference, frames, learn, mean_output

pytestmark = pytest.mark.usefixtures("one_thread")
EXACT = 1e-12
NORM = pytest.mark.parametrize("norm", [True, False], ids=["norm", "plain"])
RESET = pytest.mark.parametrize(("reset", "detach"), RESETS)


@NORM
@RESET
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("moving", [False, True])
def test_both_rules_have_the_same_output(norm, reset, detach, steps, moving):
    model = convnet(3, norm, decay=0.6, threshold=0.8, reset=reset, detach_reset=detach)
    x = frames(steps if moving else None)
    left, right = (
        mean_output(BPTT(), model, x, steps),
        mean_output(Rate(), copy.deepcopy(model), x, steps),
    )
    assert left.std() > 1e-3
    torch.testing.assert_close(right, left, rtol=EXACT, atol=EXACT)


@NORM
@RESET
@pytest.mark.parametrize("depth", [1, 3])
def test_one_step_has_one_gradient(norm, reset, detach, depth):
    model = convnet(depth, norm, decay=0.5, threshold=0.9, reset=reset, detach_reset=detach)
    _, bptt = learn(BPTT(), model, frames(1), 1)
    _, rate = learn(Rate(), model, frames(1), 1)
    assert difference(rate, bptt) < EXACT


@NORM
@RESET
@pytest.mark.parametrize("steps", [1, 4, 8])
def test_one_layer_on_a_static_input_is_exact(norm, reset, detach, steps):
    model = convnet(1, norm, decay=0.5, threshold=1.1, reset=reset, detach_reset=detach)
    _, bptt = learn(BPTT(), model, frames(), steps)
    _, rate = learn(Rate(), model, frames(), steps)
    assert difference(rate, bptt) < EXACT


@NORM
def test_one_layer_on_moving_input_is_not(norm):
    model = convnet(1, norm, decay=0.5)
    _, bptt = learn(BPTT(), model, frames(4), 4)
    _, rate = learn(Rate(), model, frames(4), 4)
    assert difference(rate, bptt) > 1e-3


@NORM
@pytest.mark.parametrize("moving", [False, True])
def test_the_readout_is_exact_at_any_depth(norm, moving):
    model = convnet(3, norm, decay=0.5, reset="subtract")
    x = frames(5 if moving else None)
    _, bptt = learn(BPTT(), model, x, 5)
    _, rate = learn(Rate(), model, x, 5)
    readout = {name for name in bptt if name.startswith(f"{len(model) - 1}.")}
    assert len(readout) == 2
    only = [{name: found[name] for name in readout} for found in (rate, bptt)]
    assert difference(*only) < EXACT
    assert difference(rate, bptt) > 1e-3


@NORM
@RESET
def test_without_memory_and_on_a_static_input_the_rules_agree(norm, reset, detach):
    model = convnet(3, norm, decay=0.0, reset=reset, detach_reset=detach)
    _, bptt = learn(BPTT(), model, frames(), 4)
    _, rate = learn(Rate(), model, frames(), 4)
    assert difference(rate, bptt) < EXACT


@NORM
@RESET
def test_with_memory_and_depth_they_do_not(norm, reset, detach):
    model = convnet(3, norm, decay=0.5, reset=reset, detach_reset=detach)
    _, bptt = learn(BPTT(), model, frames(), 4)
    _, rate = learn(Rate(), model, frames(), 4)
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
    kappa = slopes.rate_of_offset
    torch.testing.assert_close(kappa, slope, rtol=EXACT, atol=EXACT)
    assert torch.equal(rate, spikes.detach().sum(0) / 6)
    assert kappa.std() > 1e-2


def test_without_memory_the_order_of_frames_does_not_matter():
    model = convnet(3, True, decay=0.0)
    x = frames(5)
    _, forward = learn(Rate(), model, x, 5)
    _, backward = learn(Rate(), model, x.flip(0), 5)
    assert difference(forward, backward) < EXACT
    with_memory = convnet(3, True, decay=0.5)
    _, forward = learn(Rate(), with_memory, x, 5)
    _, backward = learn(Rate(), with_memory, x.flip(0), 5)
    assert difference(forward, backward) > 1e-3


@NORM
@pytest.mark.parametrize("rule", [BPTT(), Rate()], ids=lambda rule: rule.name)
def test_a_static_input_is_a_repeated_one(norm, rule):
    """Computing the first maps once changes no value: outputs, gradients, running statistics."""
    model = convnet(2, norm, decay=0.5)
    copied = copy.deepcopy(model)
    shown, found = learn(rule, model, frames(), 4)
    repeated, expected = learn(rule, copied, frames().expand(4, -1, -1, -1, -1), 4)
    torch.testing.assert_close(shown, repeated, rtol=EXACT, atol=EXACT)
    assert difference(found, expected) < EXACT
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, copied.state_dict()[name], rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("rule", [BPTT(), Rate()], ids=lambda rule: rule.name)
def test_running_statistics_move_once_by_the_joint_statistics(rule):
    model = convnet(1, True)
    norm = model[1]
    x = frames(4)
    currents = model[0](x.flatten(0, 1))
    mean_output(rule, model, x, 4)
    assert int(norm.num_batches_tracked) == 1
    mean, variance = currents.mean((0, 2, 3)), currents.var((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, 0.1 * mean, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * variance, rtol=EXACT, atol=EXACT)


def test_in_evaluation_both_rules_use_the_running_statistics():
    model = convnet(2, True, decay=0.5)
    learn(BPTT(), model, frames(), 4)
    model.eval()
    before = copy.deepcopy(model.state_dict())
    left, bptt = learn(BPTT(), model, frames(1), 1)
    right, rate = learn(Rate(), model, frames(1), 1)
    torch.testing.assert_close(left, right, rtol=EXACT, atol=EXACT)
    assert difference(rate, bptt) < EXACT
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def _saved_bytes(rule, model, x, steps) -> int:
    """Bytes kept for the backward pass, parameters and buffers left out, each storage once."""
    own = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = mean_output(rule, model, x, steps)
    assert output.requires_grad
    return sum(s.nbytes() for pointer, s in kept.items() if pointer not in own)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rate_rule_keeps_as_much_at_any_number_of_steps(dtype):
    model = convnet(3, True).to(dtype)
    sizes = [1, 2, 4, 8, 16]
    rate = [_saved_bytes(Rate(), model, frames(steps).to(dtype), steps) for steps in sizes]
    bptt = [_saved_bytes(BPTT(), model, frames(steps).to(dtype), steps) for steps in sizes]
    assert len(set(rate)) == 1
    assert bptt[0] >= rate[0]
    assert all(1.8 < more / less < 2.5 for less, more in pairwise(bptt))
