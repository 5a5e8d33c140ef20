"""The rate rule over windows: from rates of all steps, its own, to those of single steps, BPTT."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from snnpipe.errors import RequestError
from snnpipe.train.modules import LIF, CubaLIF
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.rules.rate import Rate
from torch import nn
from training_networks import RESETS, convnet, difference, frames, learn, mean_output

pytestmark = pytest.mark.usefixtures("one_thread")
EXACT = 1e-12
RESET = pytest.mark.parametrize(("reset", "detach"), RESETS)


@RESET
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("moving", [True, False])
def test_as_many_windows_as_steps_are_bptt(norm, reset, detach, moving):
    model = convnet(3, norm, decay=0.6, threshold=0.8, reset=reset, detach_reset=detach)
    x = frames(4 if moving else None)
    left, bptt = learn(BPTT(), copy.deepcopy(model), x, 4)
    right, rate = learn(Rate(windows=4), model, x, 4)
    torch.testing.assert_close(right, left, rtol=EXACT, atol=EXACT)
    assert difference(rate, bptt) < EXACT
    assert difference(learn(Rate(), model, x, 4)[1], bptt) > 1e-4


def test_the_currents_of_synapses_and_learned_decays_are_carried_too():
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        CubaLIF(0.4, 0.6, threshold=0.3, learn_decay=True),
        nn.Conv2d(4, 5, 3, 2),
        nn.BatchNorm2d(5),
        LIF(0.7, 0.5, learn_decay=True),
        nn.Flatten(),
        nn.Linear(45, 5),
    ).double()
    _, bptt = learn(BPTT(), model, frames(6), 6)
    _, all_windows = learn(Rate(windows=6), model, frames(6), 6)
    _, fewer = learn(Rate(windows=3), model, frames(6), 6)
    assert {name for name in bptt if "decay" in name}
    assert difference(all_windows, bptt) < EXACT
    assert difference(fewer, bptt) > 1e-3


def test_the_output_is_the_same_with_any_number_of_windows():
    model = convnet(2, True, decay=0.5)
    found = [mean_output(Rate(k), copy.deepcopy(model), frames(6), 6) for k in (1, 2, 3, 6)]
    for output in found[1:]:
        torch.testing.assert_close(output, found[0], rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("windows", [2, 3])
def test_a_static_input_is_a_repeated_one(windows):
    model = convnet(2, True, decay=0.5, reset="subtract")
    copied = copy.deepcopy(model)
    _, found = learn(Rate(windows), model, frames(), 6)
    _, expected = learn(Rate(windows), copied, frames().expand(6, -1, -1, -1, -1), 6)
    assert difference(found, expected) < EXACT
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, copied.state_dict()[name], rtol=EXACT, atol=EXACT)


def test_more_windows_are_nearer_to_bptt_on_moving_frames():
    model = convnet(3, True, decay=0.8)
    _, bptt = learn(BPTT(), model, frames(8), 8)
    far = [difference(learn(Rate(k), model, frames(8), 8)[1], bptt) for k in (1, 2, 4, 8)]
    assert all(more > less for more, less in pairwise(far))


def _saved(windows: int, steps: int) -> int:
    model = convnet(2, True, decay=0.5)
    own = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = mean_output(Rate(windows), model, frames(steps), steps)
    assert output.requires_grad
    return sum(s.nbytes() for pointer, s in kept.items() if pointer not in own)


def test_what_is_kept_grows_with_the_windows_not_with_the_steps():
    found = {windows: {_saved(windows, steps) for steps in (4, 8, 16)} for windows in (1, 2, 4)}
    (one,), (two,), (four,) = found.values()
    assert 2.4 < four / two < 3.0 > two / one  # beyond one window: its slopes to the state, too
    assert two > 1.9 * one


def test_steps_that_cannot_be_cut_are_refused():
    with pytest.raises(RequestError, match=r"8 steps cannot be cut into rule.windows = 3"):
        mean_output(Rate(windows=3), convnet(1, True), frames(8), 8)
