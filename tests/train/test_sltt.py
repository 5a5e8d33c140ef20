"""Spatial learning through time, whole and on chosen steps."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from online_networks import (
    EXACT,
    NORM,
    PER_STEP,
    RESET,
    AllAtOnce,
    OnlySteps,
    T,
    equal_states,
    one_layer,
    recurrent,
)
from snnpipe.errors import RequestError
from snnpipe.train.modules import IF, LIF, CubaLIF
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.rules.sltt import SLTT
from snnpipe.train.rules.sltt_k import SLTTK
from training_networks import CLASSES, convnet, difference, frames, learn

pytestmark = pytest.mark.usefixtures("one_thread")


@NORM
@RESET
def test_sltt_is_bptt_without_memory(norm, reset, detach):
    model = convnet(3, norm, decay=0.0, threshold=0.9, reset=reset, detach_reset=detach)
    for form in ("joint", "per_step"):
        _, bptt = learn(BPTT(), model, frames(T), T, form, "per_step")
        _, sltt = learn(SLTT(), model, frames(T), T, form, "per_step")
        assert difference(sltt, bptt) < EXACT
    model = convnet(1, norm, decay=0.5, threshold=0.9, reset=reset, detach_reset=detach)
    _, bptt = learn(BPTT(), model, frames(T), T, *PER_STEP)
    _, sltt = learn(SLTT(), model, frames(T), T, *PER_STEP)
    assert difference(sltt, bptt) > 1e-3


@NORM
def test_one_step_at_a_time_is_all_at_once_cut(norm):
    model = convnet(3, norm, decay=0.5, threshold=0.8)
    copied = copy.deepcopy(model)
    expected, whole = learn(AllAtOnce(), copied, frames(T), T, *PER_STEP)
    found, steps = learn(SLTT(), model, frames(T), T, *PER_STEP)
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)
    assert difference(steps, whole) < EXACT
    equal_states(model, copied)


def test_without_norm_the_forms_of_sltt_agree():
    model = convnet(2, False, decay=0.5)
    for loss in ("mean_output", "per_step"):
        _, oracle = learn(AllAtOnce(), model, frames(T), T, "per_step", loss)
        _, joint = learn(SLTT(), model, frames(T), T, "joint", loss)
        assert difference(joint, oracle) < EXACT
    _, steps = learn(SLTT(), model, frames(T), T, *PER_STEP)
    assert difference(steps, joint) < EXACT


@pytest.mark.parametrize("neuron", [LIF(0.5, 0.9, learn_decay=True), CubaLIF(0.4, 0.6), IF()])
def test_every_neuron_goes_one_step_at_a_time(neuron):
    model = one_layer(copy.deepcopy(neuron))
    _, whole = learn(AllAtOnce(), model, frames(T), T, *PER_STEP)
    _, steps = learn(SLTT(), model, frames(T), T, *PER_STEP)
    assert difference(steps, whole) < EXACT
    _, bptt = learn(BPTT(), model, frames(T), T, *PER_STEP)
    assert difference(steps, bptt) > 1e-3


def test_sltt_goes_through_recurrent_layers():
    model = recurrent(LIF(0.5, 0.9), 1.0)
    expected, whole = learn(AllAtOnce(), model, frames(T), T, *PER_STEP)
    found, steps = learn(SLTT(), model, frames(T), T, *PER_STEP)
    through_time, bptt = learn(BPTT(), model, frames(T), T, *PER_STEP)
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(found, through_time, rtol=EXACT, atol=EXACT)
    assert steps["2.weights.weight"].norm() > 1e-3
    assert difference(steps, whole) < EXACT
    assert difference(steps, bptt) > 1e-3


@NORM
def test_sltt_k_on_all_steps_is_sltt(norm):
    model = convnet(3, norm, decay=0.5)
    _, sltt = learn(SLTT(), model, frames(T), T, *PER_STEP)
    for rescale in (True, False):
        _, chosen = learn(SLTTK(T, rescale), model, frames(T), T, *PER_STEP)
        assert all(torch.equal(chosen[name], sltt[name]) for name in sltt)


def test_the_mean_of_sltt_k_over_all_choices_is_a_share_of_sltt():
    model = convnet(2, True, decay=0.5)
    _, sltt = learn(SLTT(), model, frames(T), T, *PER_STEP)
    choices = list(itertools.combinations(range(T), 2))
    assert len(choices) == 15
    found = [learn(OnlySteps(*c), model, frames(T), T, *PER_STEP)[1] for c in choices]
    mean = {name: torch.stack([f[name] for f in found]).mean(0) for name in sltt}
    assert difference(mean, {name: 2 / T * value for name, value in sltt.items()}) < EXACT
    assert difference(found[0], mean) > 1e-2


def test_the_seed_chooses_the_steps_and_rescaling_is_a_factor():
    model = convnet(2, True, decay=0.5)

    def found(seed: int, rescale: bool = False):
        torch.manual_seed(seed)
        return learn(SLTTK(2, rescale), model, frames(T), T, *PER_STEP)[1]

    first = found(1)
    assert difference(found(1), first) == 0.0
    assert difference(found(1, rescale=True), {n: 3 * v for n, v in first.items()}) < EXACT
    seen = [found(seed) for seed in range(8)]
    assert len({float(one["0.weight"].sum()) for one in seen}) > 3
    subsets = [learn(OnlySteps(*c), model, frames(T), T, *PER_STEP)[1]
               for c in itertools.combinations(range(T), 2)]  # fmt: skip
    for one in seen:
        assert min(difference(one, subset) for subset in subsets) < EXACT


def test_the_other_steps_pass_without_a_graph_and_move_the_statistics():
    model, all_steps = convnet(2, True, decay=0.5), convnet(2, True, decay=0.5)
    graphs = []
    rule = SLTTK(2)
    for part in rule(model, frames(T), T, "per_step", lambda _, s: graphs.append(s.requires_grad)):
        assert part.outputs.shape == (1, 6, CLASSES)
        part.outputs.sum().backward()
    assert sum(graphs) == 2 * 2
    assert len(graphs) == 2 * T
    assert torch.is_grad_enabled()
    learn(SLTT(), all_steps, frames(T), T, *PER_STEP)
    equal_states(model, all_steps)


def test_more_steps_than_there_are_cannot_be_chosen():
    with pytest.raises(RequestError, match=r"rule.chosen is 5, but a pass has 4 steps") as caught:
        learn(SLTTK(5), convnet(1, False), frames(4), 4, *PER_STEP)
    assert caught.value.code == "E_RULE"
