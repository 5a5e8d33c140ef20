"""Neurons that feed themselves: what they fire, how they learn, and who refuses them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from snnpipe.errors import RequestError
from snnpipe.network import dynamics
from snnpipe.train.evaluate import outputs
from snnpipe.train.modules import IF, LIF, CubaLIF, Recurrent, neurons
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.rules.rate import Rate
from torch import nn
from training_networks import RESETS, mean_output

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS, BATCH, SIZE = 6, 5, 7


def layer(neuron: LIF | IF | CubaLIF, bias: bool = True) -> Recurrent:
    """Recurrent weights that are multiples of 1/16: sums of spikes through them are exact."""
    torch.manual_seed(2)
    weights = nn.Linear(SIZE, SIZE, bias=bias)
    for parameter in weights.parameters():
        parameter.data.copy_(torch.randint(-16, 20, parameter.shape) / 16)
    return Recurrent(neuron, weights)


def currents(steps: int = STEPS) -> torch.Tensor:
    torch.manual_seed(3)
    return torch.randint(-8, 25, (steps, BATCH, SIZE)) / 16


@pytest.mark.parametrize("kind", ["lif", "if", "cuba", "learned"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("still", [True, False])
def test_the_step_is_the_one_of_the_network(kind, reset, bias, still):
    """Bit for bit: c_t = x_t + W s_{t-1} + b, no spikes before the first step, the bias counts."""
    rest = (0.75, reset, "ge")
    neuron = {
        "lif": lambda: LIF(0.5, *rest),
        "if": lambda: IF(*rest),
        "cuba": lambda: CubaLIF(0.25, 0.5, *rest),
        "learned": lambda: CubaLIF(0.25, 0.5, *rest, learn_decay=True),
    }[kind]()
    module = layer(neuron, bias)
    synaptic = np.float32(0.25 if kind in ("cuba", "learned") else 0)
    x = currents()
    shown = x[:1].expand_as(x) if still else x
    weights = module.weights.weight.detach().numpy()
    offset = module.weights.bias.detach().numpy() if bias else 0
    v = i = s = np.zeros((BATCH, SIZE), np.float32)
    expected = []
    for c in shown.numpy():
        i = dynamics.filtered(i, c + (s @ weights.T + offset), synaptic, np.float32(1))
        u = dynamics.integrate(v, i, np.float32(1 if kind == "if" else 0.5))
        s = dynamics.decide(u, np.float32(0.75), "ge").astype(np.float32)
        kind_of_reset = "subtract" if reset == "subtract" else "value"
        v = dynamics.reset(u, s, np.float32(0.75), np.float32(0), kind_of_reset)
        expected.append(s)
    seen = []
    found = outputs(module.eval(), x[0] if still else x, STEPS, lambda *call: seen.append(call))
    assert np.array_equal(found.numpy(), np.stack(expected))
    assert 0.02 < found.mean() < 0.98
    ((population, spikes),) = seen
    assert population is module.neurons
    assert torch.equal(spikes, found)


def test_without_weights_it_is_the_neurons_alone():
    module = layer(LIF(0.5, 0.75), bias=False)
    plain = outputs(module.neurons.eval(), currents(), STEPS)
    assert not torch.equal(outputs(module.eval(), currents(), STEPS), plain)
    module.weights.weight.data.zero_()
    assert torch.equal(outputs(module, currents(), STEPS), plain)


@pytest.mark.parametrize(("reset", "detach"), RESETS)
def test_the_gradient_is_the_one_written_out(reset, detach):
    """delta u_t = h(u_t - theta) delta s_t + decay (dv_t/du_t) delta u_{t+1}, where the spikes of a
    step also answer for the currents of the next: delta s_t = g_t + W^T delta c_{t+1}."""
    decay, threshold = 0.6, 0.9
    neuron = LIF(decay, threshold, reset, "gt", detach)
    module = layer(neuron).double()
    x = currents().double().requires_grad_()
    weights, bias = module.weights.weight, module.weights.bias
    toward = torch.randn(BATCH, SIZE, dtype=torch.float64)
    (mean_output(BPTT(), module, x, STEPS) * toward).sum().backward()

    v = s = torch.zeros(BATCH, SIZE, dtype=torch.float64)
    membranes, spikes = [], []
    with torch.no_grad():
        for c in x:
            u = decay * v + c + s @ weights.T + bias
            s = (u > threshold).double()
            v = u - u * s if reset == "zero" else u - threshold * s
            membranes.append(u)
            spikes.append(s)
        after = torch.zeros_like(v)  # delta u of the step behind, which is its delta c
        to_x, to_weights, to_bias = [], torch.zeros_like(weights), torch.zeros_like(bias)
        for t in reversed(range(STEPS)):
            u, s = membranes[t], spikes[t]
            h = neuron.spiking.surrogate(u - threshold)
            kept = 1.0 if reset == "subtract" else 1.0 - s
            if not detach:
                kept = kept - (threshold * h if reset == "subtract" else u * h)
            after = h * (toward / STEPS + after @ weights) + decay * kept * after
            to_x.insert(0, after)
            to_bias += after.sum(0)
            if t:
                to_weights += after.T @ spikes[t - 1]
    for found, expected in [(x.grad, torch.stack(to_x)), (weights.grad, to_weights),
                            (bias.grad, to_bias)]:  # fmt: skip
        assert expected.abs().sum() > 1e-2
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("reset", "detach"), RESETS)
@pytest.mark.parametrize("kind", ["lif", "cuba"])
def test_the_gradient_of_learned_decays_is_the_one_written_out(reset, detach, kind):
    """Autograd through u = decay v + i alone, the spike written as step + soft - soft.detach()."""
    rest = (0.9, reset, "gt", detach, None, True)
    module = layer(LIF(0.6, *rest) if kind == "lif" else CubaLIF(0.3, 0.6, *rest)).double()
    x = currents().double()
    weights, bias = module.weights.weight, module.weights.bias
    toward = torch.randn(BATCH, SIZE, dtype=torch.float64)
    decay, synaptic = (
        torch.tensor(round(value * 4096) / 4096, dtype=torch.float64, requires_grad=True)
        for value in (0.6, 0.3)
    )
    v = i = s = torch.zeros(BATCH, SIZE, dtype=torch.float64)
    mean = torch.zeros_like(v)
    for c in x:
        heard = c + s @ weights.T + bias
        i = heard if kind == "lif" else synaptic * i + heard
        u = decay * v + i
        soft = torch.sigmoid(4 * (u - 0.9))
        s = (u > 0.9).double() + soft - soft.detach()
        taken = s.detach() if detach else s
        v = u - taken * (u if reset == "zero" else 0.9)
        mean = mean + s / STEPS
    own = [decay] if kind == "lif" else [decay, synaptic]
    expected = torch.autograd.grad((mean * toward).sum(), [weights, *own])
    logits = [module.neurons.decay_logit, module.neurons.synaptic_decay_logit][: len(own)]
    loss = (mean_output(BPTT(), module, x, STEPS) * toward).sum()
    found = torch.autograd.grad(loss, [weights, *logits])
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-12)
    for logit, left, right in zip(logits, found[1:], expected[1:], strict=True):
        smooth = torch.sigmoid(logit)
        torch.testing.assert_close(left, right * smooth * (1 - smooth), rtol=1e-12, atol=1e-12)
        assert right.abs() > 1e-3


def test_the_first_step_hears_nothing_but_the_bias():
    module = layer(LIF(0.5, 0.75)).double()
    mean_output(BPTT(), module, currents(1).double(), 1).sum().backward()
    assert not module.weights.weight.grad.any()
    assert module.weights.bias.grad.all()


def test_the_rate_rule_refuses_it_by_name():
    model = nn.Sequential(nn.Linear(4, SIZE), layer(LIF()))
    with pytest.raises(RequestError, match="'rate' cannot train a recurrent layer") as caught:
        mean_output(Rate(), model, torch.rand(BATCH, 4), STEPS)
    assert caught.value.code == "E_RULE"
    assert torch.is_grad_enabled()


def test_shapes_are_held_to():
    with pytest.raises(RequestError, match="map 4 values to 3"):
        Recurrent(LIF(), nn.Linear(4, 3))
    for shape in ((BATCH, SIZE + 1), (BATCH, 1), (BATCH, SIZE, 1, 1)):
        with pytest.raises(RequestError, match=f"expected \\(B, {SIZE}\\)"):
            mean_output(BPTT(), layer(LIF()), torch.rand(shape), STEPS)
    with pytest.raises(RequestError, match="Recurrent received a Tensor"):
        layer(LIF())(torch.rand(BATCH, SIZE))


def test_its_population_is_known_by_the_path_of_its_neurons():
    model = nn.Sequential(LIF(), layer(IF()))
    assert list(neurons(model)) == ["0", "1.neurons"]
