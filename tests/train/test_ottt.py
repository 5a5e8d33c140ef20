"""Online training through time: where its traces are exact, and where not."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from online_networks import (
    EXACT,
    NORM,
    PER_STEP,
    RESET,
    Branches,
    T,
    one_layer,
    recurrent,
)
from snnpipe.errors import RequestError
from snnpipe.train.modules import IF, LIF, CubaLIF
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.rules.ottt import OTTT
from snnpipe.train.rules.ottt_online import OTTTOnline
from snnpipe.train.rules.sltt import SLTT
from torch import nn
from training_networks import CLASSES, convnet, difference, frames, labels, learn

pytestmark = pytest.mark.usefixtures("one_thread")


@NORM
@RESET
def test_ottt_is_sltt_without_memory(norm, reset, detach):
    model = convnet(3, norm, decay=0.0, threshold=0.9, reset=reset, detach_reset=detach)
    _, sltt = learn(SLTT(), model, frames(T), T, *PER_STEP)
    _, ottt = learn(OTTT(), model, frames(T), T, *PER_STEP)
    assert difference(ottt, sltt) < EXACT


@pytest.mark.parametrize(
    "neuron",
    [
        LIF(0.5, 0.9, "subtract"),
        LIF(0.5, 0.9, "subtract", learn_decay=True),
        LIF(0.5, (0.7, 0.9, 1.1, 1.3), "subtract", "ge"),
        IF(1.3, "subtract"),
        CubaLIF(0.3, 0.6, 0.9, "subtract"),
        CubaLIF(0.3, 0.6, 0.9, "subtract", learn_decay=True),
    ],
    ids=["lif", "learned", "thresholds", "if", "cuba", "cuba-learned"],
)
def test_ottt_is_bptt_for_one_layer_of_subtracted_detached_resets(neuron):
    model = one_layer(copy.deepcopy(neuron))
    _, bptt = learn(BPTT(), model, frames(T), T, *PER_STEP)
    _, ottt = learn(OTTT(), model, frames(T), T, *PER_STEP)
    _, sltt = learn(SLTT(), model, frames(T), T, *PER_STEP)
    assert difference(ottt, bptt) < EXACT
    assert difference(sltt, bptt) > 1e-3


def test_it_is_so_through_a_norm_whose_statistics_are_fixed():
    model = one_layer(LIF(0.5, 0.9, "subtract"), norm=True)
    learn(SLTT(), model, frames(T), T, *PER_STEP)
    _, bptt = learn(BPTT(), model, frames(T), T, *PER_STEP)
    _, ottt = learn(OTTT(), model, frames(T), T, *PER_STEP)
    assert difference(ottt, bptt) > 1e-3
    model.eval()
    _, bptt = learn(BPTT(), model, frames(T), T, *PER_STEP)
    _, ottt = learn(OTTT(), model, frames(T), T, *PER_STEP)
    assert difference(ottt, bptt) < EXACT
    assert bptt["1.weight"].norm() > 1e-3


@pytest.mark.parametrize(
    "model",
    [
        one_layer(LIF(0.5, 0.9, "zero")),
        one_layer(LIF(0.5, 0.9, "subtract", detach_reset=False)),
        convnet(3, False, decay=0.5, reset="subtract", threshold=1.2),
        recurrent(LIF(0.5, 0.9, "subtract"), 1.0),
    ],
    ids=["zero", "not-detached", "three-layers", "recurrent"],
)
def test_elsewhere_it_is_an_approximation(model):
    _, bptt = learn(BPTT(), model, frames(T), T, *PER_STEP)
    _, ottt = learn(OTTT(), model, frames(T), T, *PER_STEP)
    assert difference(ottt, bptt) > 1e-3


def test_the_traces_follow_branches_chains_and_pooling():
    model = Branches(LIF(0.5, 0.9, "subtract"), LIF(0.7, 0.8, "subtract"))
    _, bptt = learn(BPTT(), model, frames(T), T, *PER_STEP)
    _, ottt = learn(OTTT(), model, frames(T), T, *PER_STEP)
    assert all(bptt[name].norm() > 1e-3 for name in bptt)
    assert difference(ottt, bptt) < EXACT


def test_recurrent_weights_have_a_trace_too():
    """Exact where the weights are zero: what a spike causes later goes through them."""
    for neuron in (LIF(0.5, 0.9, "subtract"), CubaLIF(0.3, 0.5, 0.9, "subtract")):
        model = recurrent(neuron, 0.0)
        _, bptt = learn(BPTT(), model, frames(T), T, *PER_STEP)
        _, ottt = learn(OTTT(), model, frames(T), T, *PER_STEP)
        assert bptt["2.weights.weight"].norm() > 1e-3
        assert difference(ottt, bptt) < EXACT
    model = recurrent(LIF(0.0, 0.9), 1.0)
    _, sltt = learn(SLTT(), model, frames(T), T, *PER_STEP)
    _, ottt = learn(OTTT(), model, frames(T), T, *PER_STEP)
    assert difference(ottt, sltt) < EXACT


class TwoDecays(nn.Module):
    """One map that feeds neurons of two decays, or neurons and the read-out."""

    def __init__(self, first: float, second: float | None) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 5)
        self.first = LIF(first)
        self.second = nn.Identity() if second is None else LIF(second)

    def forward(self, x):
        c = self.fc(torch.flatten(x, 1))
        return self.first(c) + self.second(c)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (0.5, 0.25, "neurons of decay 0.5 and neurons of decay 0.25"),
        (0.5, None, "neurons of decay 0.5 and the read-out"),
    ],
)
def test_one_trace_has_one_decay(first, second, said):
    model = TwoDecays(first, second).double()
    with pytest.raises(RequestError, match=said) as caught:
        learn(OTTT(), model, frames(T), T, *PER_STEP)
    assert caught.value.code == "E_RULE"
    learned = TwoDecays(first, None).double()
    learned.first, learned.second = (LIF(first, learn_decay=True).double() for _ in range(2))
    with pytest.raises(RequestError, match=r"decay 0\.5 that learn it and neurons"):
        learn(OTTT(), learned, frames(T), T, *PER_STEP)
    learn(OTTT(), TwoDecays(first, first).double(), frames(T), T, *PER_STEP)
    learn(OTTT(), TwoDecays(0.0, None).double(), frames(T), T, *PER_STEP)


@pytest.mark.parametrize(("rule", "lr"), [(OTTT(), 0.0), (OTTTOnline(), 0.7)])
def test_the_update_written_out(rule, lr):
    """delta u_t = h(u_t - theta) W^T delta o_t, dW = delta u_t a_t^T, a_t = decay a_{t-1} + x_t,
    db = delta u_t sum_k decay^k; online, the next step runs with the weights after it."""
    decay, threshold = 0.6, 0.9
    torch.manual_seed(8)
    neuron = LIF(decay, threshold)
    model = nn.Sequential(nn.Linear(12, 9), neuron, nn.Linear(9, CLASSES)).double()
    nn.init.normal_(model[0].weight, 0.1, 0.5)
    x = torch.rand(T, 7, 12, dtype=torch.float64)
    hidden, bias, readout, shift = (p.detach().clone() for p in model.parameters())
    surrogate = neuron.spiking.surrogate

    sums = [torch.zeros_like(p) for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    v = trace = torch.zeros(1, dtype=torch.float64)
    ones, fired = 0.0, 0.0
    for t, part in enumerate(rule(model, x, T, "per_step")):
        optimizer.zero_grad()
        (part.share * F.cross_entropy(part.outputs[0], labels(part.outputs[0]))).backward()

        u = decay * v + x[t] @ hidden.T + bias
        s = (u > threshold).double()
        v = u * (1 - s)
        o = s @ readout.T + shift
        torch.testing.assert_close(part.outputs[0], o, rtol=EXACT, atol=EXACT)
        to_o = (torch.softmax(o, 1) - F.one_hot(labels(o), CLASSES)) / len(o) / T
        to_u = surrogate(u - threshold) * (to_o @ readout)
        trace, ones = decay * trace + x[t], decay * ones + 1
        expected = [to_u.T @ trace, ones * to_u.sum(0), to_o.T @ s, to_o.sum(0)]
        for index, (parameter, gradient) in enumerate(
            zip(model.parameters(), expected, strict=True)
        ):
            torch.testing.assert_close(parameter.grad, gradient, rtol=EXACT, atol=EXACT)
            sums[index] += gradient
        hidden, bias, readout, shift = (
            own - lr * gradient
            for own, gradient in zip((hidden, bias, readout, shift), expected, strict=True)
        )
        fired += float(s.mean()) / T
        optimizer.step()
    assert t == T - 1
    assert 0.05 < fired < 0.95
    assert all(total.norm() > 1e-2 for total in sums)
    assert rule.online is (lr > 0)
