"""What a user may write in a plain nn.Module, what it does, and what is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from snnpipe.errors import RequestError
from snnpipe.network import dynamics
from snnpipe.train import carried
from snnpipe.train.distributed import Place
from snnpipe.train.evaluate import outputs
from snnpipe.train.modules import IF, LIF, SumPool2d, neurons
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.rules.rate import Rate
from torch import nn
from training_networks import mean_output

pytestmark = pytest.mark.usefixtures("one_thread")
RULES = pytest.mark.parametrize("rule", [BPTT(), Rate()], ids=lambda rule: rule.name)


class Module(nn.Module):
    """A module of one convolution, one neuron and a function of both."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(2, 4, 3, padding="same")
        self.lif = LIF(0.5, 0.2)
        self.function = function

    def forward(self, x):
        return self.function(self.lif(self.conv(x)), self.conv(x))


def _images(steps: int = 3) -> torch.Tensor:
    return torch.rand(steps, 5, 2, 6, 6, generator=torch.Generator().manual_seed(2))


def _by_hand(function, x, conv, decay=0.5, threshold=0.2):
    """Mean over time of the function on the true spikes and currents of every step."""
    v, values = torch.zeros(()), []
    for frame in x:
        current = conv(frame)
        u = dynamics.integrate(v, current, decay)
        s = dynamics.decide(u, torch.tensor(threshold), "gt").float()
        v = dynamics.reset(u, s, threshold, 0.0, "value")
        values.append(function(s, current))
    return torch.stack(values).mean(0)


FUNCTIONS = {
    "add": lambda s, c: s + c,
    "torch.add": lambda s, c: torch.add(s, c, alpha=2.5),
    "sub": lambda s, c: c - s,
    "torch.sub": torch.sub,
    "mul": lambda s, c: 3 * s * 0.25 + c / 8,
    "torch.mul": lambda s, c: torch.mul(s, 2.0) + torch.div(-c, 3),
    "neg": lambda s, c: torch.neg(s) + c,
    "cat": lambda s, c: torch.cat([s, c, c], 1),
    "cat_last": lambda s, c: torch.cat((s, c), dim=-1),
    "avg_pool": lambda s, c: F.avg_pool2d(s, (2, 3), stride=(2, 1), padding=(1, 0)),
    "sum_pool": lambda s, c: SumPool2d(3, stride=2, padding=1)(s),
    "adaptive": lambda s, c: F.adaptive_avg_pool2d(s, (3, 1)) + nn.AdaptiveAvgPool2d((3, None))(
        F.avg_pool2d(c, (1, 6))
    ),
    "max_pool": lambda s, c: F.max_pool2d(s, 2) + nn.MaxPool2d(2)(c),
    "relu": lambda s, c: F.relu(c) + torch.relu(-c) + s,
    "flatten": lambda s, c: s.flatten(1) + torch.flatten(c, -3, -1),
    "flatten_part": lambda s, c: nn.Flatten(2)(s) + c.flatten(2, 3),
    "flatten_two": lambda s, c: s.flatten(1, 2) + nn.Flatten(1, 2)(c),
    "reshape": lambda s, c: s.reshape(s.shape[0], -1) + torch.reshape(c, (5, 4 * 36)),
    "view": lambda s, c: s.view(-1, 2, 72) + c.view((c.size(0), 2, 72)),
    "dropout": lambda s, c: nn.Dropout(0.4).eval()(s) + F.dropout(c, 0.0),
    "valid": lambda s, c: F.conv2d(s, torch.full((2, 4, 3, 3), 0.1), padding="valid"),
    "linear": lambda s, c: F.linear(s, torch.full((3, 6), 0.1), torch.ones(3)),
}  # fmt: skip


@RULES
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("static", [False, True])
def test_functions_mean_what_they_mean_at_every_step(rule, name, static):
    model = Module(FUNCTIONS[name])
    x = _images()
    steps = len(x)
    shown = x[:1].expand_as(x) if static else x
    expected = _by_hand(model.function, shown, model.conv)
    found = mean_output(rule, model, x[0] if static else x, steps)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@RULES
def test_gradients_of_functions_are_right_at_one_step(rule):
    """At T = 1 every rule must give autograd's own gradient through the plain functions."""
    weight = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    for name, function in FUNCTIONS.items():
        model = Module(lambda s, c, f=function: f(s, c))
        x = _images(1)
        found = torch.autograd.grad(
            (mean_output(rule, model, x, 1).flatten(1).sum(1) @ weight.T[:, 0]), model.conv.weight
        )[0]
        current = model.conv(x[0])
        spike = mean_output(BPTT(), LIF(0.5, 0.2), current.flatten(1), 1).view_as(current)
        plain = function(spike, current).flatten(1).sum(1) @ weight.T[:, 0]
        expected = torch.autograd.grad(plain, model.conv.weight)[0]
        assert expected.abs().sum() > 1e-3
        torch.testing.assert_close(
            found, expected, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: n + m
        )


REFUSED = {
    "exp": lambda s, c: torch.exp(s),
    "softmax": lambda s, c: F.softmax(c, 1),
    "pad": lambda s, c: F.pad(s, (1, 1)),
    "matmul": lambda s, c: torch.matmul(s, torch.ones(6, 2)),
    "add": lambda s, c: s + 1.0,
    "mul": lambda s, c: s * c,
    "div": lambda s, c: torch.div(s, 0),
    "flatten": lambda s, c: s.flatten(),
    "reshape": lambda s, c: s.reshape(-1),
    "expected the batch of 5, then 144 values": lambda s, c: s.reshape(5, 7, -1),
    "to \\[-1, -1, 2\\]": lambda s, c: s.view(-1, -1, 2),
    "cat": lambda s, c: torch.cat([s, c], 0),
    "avg_pool2d": lambda s, c: F.avg_pool2d(s, 4, ceil_mode=True),
    "adaptive_avg_pool2d": lambda s, c: F.adaptive_avg_pool2d(s, 4),
    "conv2d": lambda s, c: F.conv2d(s, torch.ones(1, 4, 2, 2), padding="same"),
    "count_include_pad": lambda s, c: F.avg_pool2d(s, 2, padding=1, count_include_pad=False),
    "divisor_override": lambda s, c: F.avg_pool2d(s, 2, divisor_override=3),
}


@RULES
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_by_name(rule, name):
    with pytest.raises(RequestError, match=name) as caught:
        mean_output(rule, Module(REFUSED[name]), _images(), 3)
    assert caught.value.code == "E_MODEL"


def test_an_unknown_method_is_no_attribute():
    with pytest.raises(AttributeError, match="'exp' is not known"):
        mean_output(BPTT(), Module(lambda s, c: s.exp()), _images(), 3)


@RULES
def test_a_module_that_leaves_the_flow_is_refused(rule):
    with pytest.raises(RequestError, match="returned a Tensor"):
        mean_output(rule, Module(lambda s, c: torch.zeros(3)), _images(), 3)
    with pytest.raises(RequestError, match="through a learning rule"):
        LIF()(torch.ones(2, 3))


@pytest.mark.parametrize("shape", [(5,), (2, 5, 3), (5, 2, 3, 6, 6)])
def test_frames_must_have_time_or_not(shape):
    with pytest.raises(RequestError, match="expected \\(B, F\\)"):
        mean_output(BPTT(), nn.Identity(), torch.zeros(shape), 3)
    with pytest.raises(RequestError, match="number of steps is 0"):
        mean_output(BPTT(), nn.Identity(), torch.zeros(2, 3), 0)


@RULES
def test_dropout_is_one_mask_for_all_steps(rule):
    torch.manual_seed(0)
    found = mean_output(rule, nn.Dropout(0.5), torch.ones(4, 20, 30), 4)
    assert set(found.flatten().tolist()) == {0.0, 2.0}


@RULES
def test_a_module_may_be_used_twice(rule):
    """Nothing of a pass is left in a module: the same one can stand in two places."""
    torch.manual_seed(4)
    shared, lif = nn.Linear(6, 6).double(), LIF(0.0, 0.3)
    x = torch.rand(7, 6, dtype=torch.float64)
    found = mean_output(rule, nn.Sequential(shared, lif, shared, lif, shared), x, 2)
    found.sum().backward()
    twin = nn.Linear(6, 6).double()
    twin.load_state_dict(shared.state_dict())

    def fire(c):
        return mean_output(BPTT(), LIF(0.0, 0.3), c, 1)

    expected = twin(fire(twin(fire(twin(x)))))
    expected.sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(shared.weight.grad, twin.weight.grad)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


def test_a_failed_pass_leaves_no_trace():
    model = Module(REFUSED["exp"])
    with pytest.raises(RequestError):
        mean_output(Rate(), model, _images(), 3)
    assert torch.is_grad_enabled()
    model.function = FUNCTIONS["add"]
    expected = _by_hand(model.function, _images(), model.conv)
    torch.testing.assert_close(mean_output(Rate(), model, _images(), 3), expected)


@pytest.mark.parametrize("kind", ["lif", "if"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("compare", ["gt", "ge"])
def test_the_step_is_the_one_of_the_network(kind, reset, compare):
    """Held to numpy float32 with network.dynamics, bit for bit."""
    rng = np.random.default_rng(5)
    current = (rng.integers(-8, 25, (6, 3, 40)) / 16).astype(np.float32)
    threshold, decay = np.float32(1.3125), np.float32(0.3 if kind == "lif" else 1.0)
    module = LIF(0.3, 1.3125, reset, compare) if kind == "lif" else IF(1.3125, reset, compare)
    v, expected = np.zeros((3, 40), np.float32), []
    for c in current:
        u = dynamics.integrate(v, c, decay)
        s = dynamics.decide(u, threshold, compare)
        v = dynamics.reset(
            u, s, threshold, np.float32(0), "subtract" if reset == "subtract" else "value"
        )
        expected.append(s)
    found = outputs(module.eval(), torch.from_numpy(current), 6)
    assert np.array_equal(found.numpy(), np.stack(expected))
    assert 0.02 < found.mean() < 0.98


def test_outputs_per_step_and_the_watch():
    model = nn.Sequential(nn.Linear(4, 3), LIF(0.5, 0.1), nn.Linear(3, 2)).eval()
    seen = []
    found = outputs(model, torch.rand(5, 4), 6, lambda module, s: seen.append((module, s.shape)))
    assert found.shape == (6, 5, 2)
    assert not found.requires_grad
    assert seen == [(model[1], (6, 5, 3))]
    torch.testing.assert_close(outputs(model, torch.rand(5, 4)[:0], 6).shape, (6, 0, 2))
    with pytest.raises(RequestError, match="eval"):
        outputs(model.train(), torch.rand(5, 4), 6)


def test_a_network_without_neurons_has_outputs_at_every_step():
    model = nn.Linear(4, 3).eval()
    x = torch.rand(5, 4)
    assert torch.equal(outputs(model, x, 3), model(x).expand(3, 5, 3))


@RULES
def test_normalisation_of_one_value_is_refused(rule):
    with pytest.raises(RequestError, match="larger batch"):
        mean_output(rule, nn.BatchNorm1d(3), torch.ones(1, 3), 4)


@RULES
@pytest.mark.parametrize(
    "options", [{"affine": False}, {"track_running_stats": False}, {"momentum": None}]
)
def test_forms_of_normalisation(rule, options):
    norm = nn.BatchNorm1d(3, **options).double()
    twin = nn.BatchNorm1d(3, **options).double()
    x = torch.rand(4, 6, 3, dtype=torch.float64)
    for _ in range(2):
        found = mean_output(rule, norm, x, 4)
        expected = twin(x.flatten(0, 1)).view_as(x).mean(0)
        torch.testing.assert_close(found, expected)
    for left, right in zip(norm.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"decay": -0.1}, "decay"),
        ({"decay": 1.5}, "decay"),
        ({"decay": 2}, "decay is 2"),
        ({"decay": 1.0}, "without a leak are IF"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"reset": "value"}, "reset"),
        ({"compare": ">"}, "comparison"),
    ],
)
def test_parameters_are_checked(arguments, word):
    with pytest.raises(RequestError, match=word) as caught:
        LIF(**arguments)
    assert caught.value.code == "E_NEURON"


def test_neurons_by_path_name():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(IF(), nn.Linear(2, 2)), LIF())
    assert list(neurons(model)) == ["1.0", "2"]
    assert "decay=1.0" in repr(model)
    assert "kernel_size=2" in repr(SumPool2d(2))


def test_processes_draw_the_mask_that_one_would(monkeypatch):
    """Each keeps its slice of what the whole batch draws."""
    model, x = nn.Sequential(nn.Identity(), nn.Dropout(0.5)), torch.ones(6, 5)

    def dropped(part, rank, world):
        monkeypatch.setattr(carried, "place", lambda: Place(rank, world))
        torch.manual_seed(3)
        return mean_output(Rate(), model, part, 2)

    whole = dropped(x, 0, 1)
    halves = [dropped(x[:3], 0, 2), dropped(x[3:], 1, 2)]
    assert torch.equal(torch.cat(halves), whole)
    assert not torch.equal(*halves)
