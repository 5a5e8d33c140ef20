"""The neurons: their step, decays that are learned, thresholds per channel, under every path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from snnpipe import plugins
from snnpipe.errors import RequestError
from snnpipe.network import neurons as net
from snnpipe.network.contract import Contract
from snnpipe.network.dynamics import Cell, State
from snnpipe.train import eager, neuron
from snnpipe.train.blocks import neurons as neurons_of
from snnpipe.train.evaluate import outputs
from snnpipe.train.modules import IF, LIF, CubaLIF
from snnpipe.train.optimise import optimiser
from snnpipe.train.recipe import DataPart, NeuronPart, Recipe, SurrogatePart
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.rules.rate import Rate
from snnpipe.train.slopes import answered, sources
from snnpipe.train.spiking import number
from torch import nn
from training_networks import RESETS, difference, frames, learn, mean_output

pytestmark = pytest.mark.usefixtures("one_thread")
EXACT = 1e-12
RESET = pytest.mark.parametrize(("reset", "detach"), RESETS)
FORMS = ["lif", "if", "cuba", "learned", "learned cuba"]


def module(form, reset="zero", detach=True, compare="gt", threshold=0.9):
    rest = (threshold, reset, compare, detach)
    if form == "if":
        return IF(*rest)
    if "cuba" in form:
        return CubaLIF(0.7, 0.4, *rest, learn_decay="learned" in form)
    return LIF(0.4, *rest, learn_decay="learned" in form)


def currents(steps=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(4)
    return torch.randn(steps, 5, 3, 2, 2, generator=generator, dtype=dtype) + 0.4


@RESET
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compare", ["gt", "ge"])
@pytest.mark.parametrize("threshold", [0.75, [0.5, 0.75, 1.25]])
def test_the_step_is_the_one_of_the_network(form, reset, detach, compare, threshold):
    """Bit for bit on every path, on multiples of 1/8, where u meets the threshold often."""
    neurons = module(form, reset, detach, compare, threshold)
    x = torch.randint(-8, 13, (6, 5, 3, 2, 2), generator=torch.Generator().manual_seed(1)) / 8
    level = np.float32(threshold)
    level = level.reshape(-1, 1, 1) if level.ndim else level
    spiking = neurons.spiking
    decays = {
        name: np.float32(number(getattr(spiking, name)))
        for name in ("decay", "synaptic_decay")
        if getattr(spiking, name) is not None
    }
    kinds = {True: net.CubaLIF, False: net.IF if form == "if" else net.LIF}
    kind = kinds[isinstance(neurons, CubaLIF)]
    decays = {} if form == "if" else decays
    contract = Contract(6, compare=compare, reset="value" if reset == "zero" else "subtract")
    cell = Cell.of(kind(threshold=level, **decays), contract, np.float32)
    state, expected = State(), []
    for c in x.numpy():
        state = cell.membrane(state, c)
        spike = cell.decide(state.v)
        expected.append(spike)
        state = cell.settle(state, spike)
    wanted = torch.from_numpy(np.stack(expected)).float()
    with torch.no_grad():
        assert torch.equal(outputs(neurons.eval(), x, 6), wanted)
        assert torch.equal(eager.unrolled(x, spiking), wanted)
    assert 0.1 < wanted.mean() < 0.9


def written_out(x, spiking, decays, steps):
    """Mean spikes with autograd through u = decay v + i, i = synaptic_decay i + c alone: the spike
    is the step, its derivative that of the sigmoid of width 1, whose slope is the surrogate."""
    decay, synaptic = decays
    v = i = torch.zeros_like(x[0])
    total = 0
    for c in x:
        i = c if synaptic is None else synaptic * i + c
        u = decay * v + i
        soft = torch.sigmoid(4 * (u - spiking.threshold))
        s = (u > spiking.threshold).to(u.dtype) + soft - soft.detach()
        taken = s.detach() if spiking.detach_reset else s
        v = u - taken * (u if spiking.reset == "zero" else spiking.threshold)
        total = total + s / steps
    return total


@RESET
@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_is_the_one_written_out(form, reset, detach):
    neurons = module(form, reset, detach).double()
    x = currents().requires_grad_()
    spiking = neurons.spiking
    decays = [
        None if value is None else torch.tensor(number(value), dtype=x.dtype, requires_grad=True)
        for value in (spiking.decay, spiking.synaptic_decay)
    ]
    toward = torch.linspace(-1, 1, 60, dtype=x.dtype).view(5, 3, 2, 2)
    learned = [d for d in decays if d is not None] if "learned" in form else []
    loss = (written_out(x, spiking, decays, 6) * toward).sum()
    expected = torch.autograd.grad(loss, [x, *learned])
    given = [neurons.decay_logit, neurons.synaptic_decay_logit][: len(learned)]
    found = torch.autograd.grad((mean_output(BPTT(), neurons, x, 6) * toward).sum(), [x, *given])
    torch.testing.assert_close(found[0], expected[0], rtol=EXACT, atol=EXACT)
    for logit, left, right in zip(given, found[1:], expected[1:], strict=True):
        smooth = torch.sigmoid(logit)  # straight through the grid, then the sigmoid's own slope
        torch.testing.assert_close(
            left, right * smooth * (1 - smooth), rtol=EXACT, atol=EXACT, check_dtype=False
        )
        assert abs(float(right.detach())) > 1e-3


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.3, 0.9, 4095 / 4096])
def test_what_is_learned_stands_on_the_grid(decay):
    for kind in (LIF(decay, learn_decay=True), CubaLIF(decay, decay, learn_decay=True)):
        for dtype in (torch.float32, torch.float64):
            spiking = kind.to(dtype).spiking
            for name in spiking.learned:
                assert number(getattr(spiking, name)) == round(decay * 4096) / 4096
    assert spiking.learned == ("decay", "synaptic_decay")
    assert LIF(decay).spiking.learned == ()


def test_it_stays_within_what_a_chip_can_hold():
    neurons = LIF(0.5, learn_decay=True)
    for logit, expected in ((40.0, 4095 / 4096), (-40.0, 0.0), (0.3, 2353 / 4096)):
        neurons.decay_logit.data.fill_(logit)
        assert number(neurons.spiking.decay) == expected


def test_the_parameter_of_a_decay_does_not_decay():
    model = nn.Sequential(nn.Linear(3, 3), CubaLIF(learn_decay=True))
    settings = Recipe(DataPart("digits")).train
    groups = optimiser(model, settings).param_groups
    free = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert {id(model[1].decay_logit), id(model[1].synaptic_decay_logit)} < free
    assert id(model[0].weight) not in free


def net_of(depth, norm=True, **neuron):
    """As `training_networks.convnet`, with CubaLIF where ``neuron`` has a synaptic decay."""
    torch.manual_seed(depth)
    kind = CubaLIF if "synaptic_decay" in neuron else LIF
    layers, channels = [], 1
    for index in range(depth):
        layers.append(nn.Conv2d(channels, 4 + index, 3, padding=1, bias=not norm))
        if norm:
            layers.append(nn.BatchNorm2d(4 + index))
        channels = 4 + index
        levels = [0.6 + 0.1 * c for c in range(channels)]
        layers.append(kind(threshold=levels, learn_decay=True, **neuron))
    layers += [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(channels * 16, 5)]
    return nn.Sequential(*layers).double()


@RESET
@pytest.mark.parametrize("more", [{}, {"synaptic_decay": 0.6}])
def test_for_one_step_the_rate_rule_is_bptt(reset, detach, more):
    model = net_of(3, decay=0.5, reset=reset, detach_reset=detach, **more)
    shown, bptt = learn(BPTT(), model, frames(), 1)
    same, rate = learn(Rate(), model, frames(), 1)
    torch.testing.assert_close(shown, same, rtol=EXACT, atol=EXACT)
    assert difference(rate, bptt) < EXACT
    assert not rate["2.decay_logit"]  # there is no step before the first


@RESET
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("more", [{}, {"synaptic_decay": 0.6}])
@pytest.mark.parametrize("steps", [4, 8])
def test_for_one_layer_and_a_static_input_the_rate_rule_is_bptt(reset, detach, norm, more, steps):
    """Row 3 of the identities, for the decays too: their tangents are exact."""
    model = net_of(1, norm, decay=0.5, reset=reset, detach_reset=detach, **more)
    _, bptt = learn(BPTT(), model, frames(), steps)
    _, rate = learn(Rate(), model, frames(), steps)
    assert difference(rate, bptt) < EXACT
    for name in (name for name in bptt if name.endswith("logit")):
        assert abs(float(bptt[name])) > 1e-5
        torch.testing.assert_close(rate[name], bptt[name], rtol=1e-10, atol=EXACT)


@RESET
@pytest.mark.parametrize("more", [{}, {"synaptic_decay": 0.6}])
def test_as_many_windows_as_steps_are_bptt(reset, detach, more):
    model = net_of(2, False, decay=0.5, reset=reset, detach_reset=detach, **more)
    _, bptt = learn(BPTT(), model, frames(4), 4)
    _, rate = learn(Rate(windows=4), model, frames(4), 4)
    assert difference(rate, bptt) < EXACT
    _, fewer = learn(Rate(windows=2), model, frames(4), 4)
    logits = [name for name in bptt if name.endswith("logit")]
    gap = difference({n: fewer[n] for n in logits}, {n: bptt[n] for n in logits})
    assert 1e-4 < gap < 1  # a window knows the mean of its currents alone


@RESET
@pytest.mark.parametrize("form", FORMS)
def test_a_tally_gives_a_rate_with_the_graph_of_a_stream(form, reset, detach):
    neurons = module(form, reset, detach).double()
    x, found = currents(), []
    for mean in (x.mean(0).requires_grad_(),) * 2:
        if not found:
            spiking = neurons.spiking
            tally = eager.Tally(eager.rest(x[0], spiking), spiking, sources(spiking))
            spikes = torch.stack([tally.step(c) for c in x])
            rate = answered(mean[None], tally.rate[None], [tally.slopes], spiking)[0]
        else:
            spikes, rates = neuron.rated(x, mean[None], neurons.spiking)
            rate = rates[0]
        to = [mean, *neurons.parameters()]
        found.append((spikes, rate.detach(), *torch.autograd.grad((rate**2).sum(), to)))
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=EXACT, atol=EXACT)
    assert len(found[0]) == 3 + 2 * (form == "learned cuba") + (form == "learned")


@pytest.mark.parametrize("form", FORMS)
def test_a_cut_is_a_state_without_its_graph(form):
    neurons = module(form).double()
    x = currents().requires_grad_()
    toward = torch.randn_like(x)
    state, spikes = eager.rest(x[0], neurons.spiking), []
    for c in x:
        state, s = eager.step(eager.detached(state), c, neurons.spiking)
        spikes.append(s)
    to = [x, *neurons.parameters()]
    expected = torch.autograd.grad((torch.stack(spikes) * toward).sum(), to)
    cut = eager.unrolled(x, neurons.spiking, cut=True)
    for left, right in zip(torch.autograd.grad((cut * toward).sum(), to), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=EXACT, atol=EXACT)
    whole = torch.autograd.grad((eager.unrolled(x, neurons.spiking) * toward).sum(), to)
    assert not torch.allclose(whole[0], expected[0])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", [BPTT(), Rate()], ids=lambda rule: rule.name)
def test_thresholds_per_channel_are_populations_of_their_own(form, rule):
    levels = [0.5, 0.8, 1.3]
    x = currents().requires_grad_()
    together = mean_output(rule, module(form, threshold=levels).double(), x, 6)
    for channel, level in enumerate(levels):
        single = module(form, threshold=float(np.float32(level))).double()
        alone = mean_output(rule, single, x[:, :, [channel]], 6)
        torch.testing.assert_close(together[:, [channel]], alone, rtol=0, atol=0)
        found, expected = (
            torch.autograd.grad((part[:, 0] ** 2).sum(), x, retain_graph=True)[0]
            for part in (together[:, [channel]], alone)
        )
        torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)
    assert together.mean((0, 2, 3)).unique().numel() == 3


def test_only_thresholds_per_channel_are_part_of_the_state():
    assert list(LIF().state_dict()) == []
    assert list(LIF(threshold=[1, 2]).state_dict()) == ["threshold"]
    saved = CubaLIF(threshold=[0.5, 1.5, 2.5], learn_decay=True).state_dict()
    assert sorted(saved) == ["decay_logit", "synaptic_decay_logit", "threshold"]
    other = CubaLIF(0.9, 0.9, threshold=[1, 1, 1], learn_decay=True)
    other.load_state_dict(saved)
    assert other.spiking.thresholds(torch.zeros(2, 3)).tolist() == [0.5, 1.5, 2.5]
    assert number(other.spiking.decay) == 0.25


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 5, 5), (3,)])
def test_other_channels_than_thresholds_are_refused(shape):
    spiking = LIF(threshold=[1, 2, 3]).spiking
    with pytest.raises(RequestError, match="3 thresholds, one per channel") as caught:
        spiking.thresholds(torch.zeros(shape))
    assert caught.value.code == "E_MODEL"


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: LIF(threshold=[1.0, -1.0]), "the threshold is -1.0"),
        (lambda: LIF(threshold=[1.0, float("nan")]), "the threshold is nan"),
        (lambda: IF(threshold=[]), "there is no threshold"),
        (lambda: CubaLIF(1.5), "the synaptic decay is 1.5"),
        (lambda: CubaLIF(0.5, -0.1), "the decay is -0.1"),
        (lambda: LIF(1.0, learn_decay=True), "neurons without a leak are IF"),
        (lambda: LIF(0.5, learn_decay=True, reset="soft"), "the reset is 'soft'"),
    ],
)
def test_what_no_neuron_can_have_is_refused(make, what):
    with pytest.raises(RequestError, match=what) as caught:
        make()
    assert caught.value.code == "E_NEURON"


@pytest.mark.parametrize("surrogate", ["triangle", "fast_sigmoid"])
def test_a_recipe_names_its_neurons(surrogate):
    part = NeuronPart("cuba_lif", 0.5, 0.75, True, 1.5, "subtract", "ge", False)
    recipe = Recipe(DataPart("digits"), neuron=part, surrogate=SurrogatePart(surrogate, 0.5))
    made = neurons_of(recipe)
    assert isinstance(made, CubaLIF)
    spiking = made.spiking
    assert (number(spiking.decay), number(spiking.synaptic_decay)) == (0.5, 0.75)
    assert (spiking.threshold, spiking.reset, spiking.compare) == (1.5, "subtract", "ge")
    assert not spiking.detach_reset
    assert spiking.surrogate == plugins.load("surrogates", surrogate)(0.75)  # of 1.5
    lif = neurons_of(replace(recipe, neuron=replace(part, name="lif")))
    assert isinstance(lif, LIF)
    assert lif.spiking.learned == ("decay",)
    fixed = replace(part, name="if", learn_decay=False)
    assert isinstance(neurons_of(replace(recipe, neuron=fixed)), IF)
    with pytest.raises(RequestError, match="'if' has no decay to learn") as caught:
        neurons_of(replace(recipe, neuron=replace(part, name="if")))
    assert caught.value.code == "E_RECIPE"


@pytest.mark.parametrize("rule", [BPTT(), Rate(), Rate(windows=3)], ids=["bptt", "rate", "windows"])
@pytest.mark.parametrize("kind", [LIF, CubaLIF])
def test_a_decay_is_learned(rule, kind):
    """A memory as long as the target's is found from one that is too short."""
    torch.manual_seed(0)
    x = torch.rand(6, 64, 30)
    goal = mean_output(BPTT(), kind(decay=0.875), x, 6).detach()
    student = kind(decay=0.25, learn_decay=True)
    optimizer = torch.optim.Adam(student.parameters(), 0.1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        (part,) = rule(student, x, 6)
        loss = ((part.mean - goal) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    assert number(student.spiking.decay) > 0.5
