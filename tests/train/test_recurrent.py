"""Neurons that feed themselves: what they fire, how they learn, and who refuses them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from snnpipe.errors import RequestError
from snnpipe.network import dynamics
from snnpipe.train.evaluate import outputs
from snnpipe.train.modules import IF, LIF, Recurrent, neurons
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.rules.rate import Rate
from torch import nn
from training_networks import RESETS, mean_output

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS, BATCH, SIZE = 6, 5, 7


def layer(neuron: LIF | IF, bias: bool = True) -> Recurrent:
    """Recurrent weights that are multiples of 1/16: sums of spikes through them are exact."""
    torch.manual_seed(2)
    weights = nn.Linear(SIZE, SIZE, bias=bias)
    for parameter in weights.parameters():
        parameter.data.copy_(torch.randint(-16, 20, parameter.shape) / 16)
    return Recurrent(neuron, weights)


def currents(steps: int = STEPS) -> torch.Tensor:
    torch.manual_seed(3)
    return torch.randint(-8, 25, (steps, BATCH, SIZE)) / 16


@pytest.mark.parametrize("kind", ["lif", "if"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("still", [True, False])
def test_the_step_is_the_one_of_the_network(kind, reset, bias, still):
    """Bit for bit: c_t = x_t + W s_{t-1} + b, no spikes before the first step, the bias counts."""
    rest = (0.75, reset, "ge")
    module = layer(LIF(0.5, *rest) if kind == "lif" else IF(*rest), bias)
    x = currents()
    shown = x[:1].expand_as(x) if still else x
    weights = module.weights.weight.detach().numpy()
    offset = module.weights.bias.detach().numpy() if bias else 0
    v, s, expected = np.zeros((BATCH, SIZE), np.float32), np.zeros((BATCH, SIZE), np.float32), []
    for c in shown.numpy():
        current = c + (s @ weights.T + offset)
        u = dynamics.integrate(v, current, np.float32(0.5 if kind == "lif" else 1))
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
