"""Batch normalisation of currents: what training sees is what evaluation, and a chip, will see."""

from __future__ import annotations

import copy

import pytest
import torch
from snnpipe import plugins
from snnpipe.export.lift import Setting, lift
from snnpipe.network.simulate import simulate
from snnpipe.train import normalise, synchronised
from snnpipe.train.checkpoint import load_run
from snnpipe.train.evaluate import outputs
from snnpipe.train.frames import in_time, through
from snnpipe.train.modules import neurons
from snnpipe.train.operations import Norm
from snnpipe.train.recipe_file import parse_recipe
from snnpipe.train.rules.bptt import Unrolled
from snnpipe.train.run import train_run

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = """
[data]
name = "digits"
[model]
channels = [8, 12]
strides = [1, 2]
hidden = [24]
[rule]
name = "RULE"
[train]
norm = "NORM"
epochs = 4
seed = 3
[witness]
samples = 4
"""
STEPS = 4


@pytest.fixture(scope="module", params=["joint", "per_step"])
def trained(request, tmp_path_factory):
    """A module trained under each form of normalisation, and the form."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rule = "rate" if request.param == "joint" else "bptt"
    text = RECIPE.replace("NORM", request.param).replace("RULE", rule)
    out = tmp_path_factory.mktemp("normalised") / "run"
    facts = train_run(parse_recipe(text, "test"), None, out)
    torch.set_num_threads(threads)
    assert facts["test"]["last"]["accuracy"] > 0.9
    return load_run(out)[0], request.param


def _frames(count):
    data = plugins.load("data", "digits")
    images, _ = data.load(None, "train", STEPS)
    return torch.from_numpy(images[:count]).float() * data.scale


def _rates(model, norm, training):
    """Neuron module to the share of neurons and steps that fire."""
    model = copy.deepcopy(model).train(training)
    names = {id(module): name for name, module in neurons(model).items()}
    found = {}

    def watch(module, spikes):
        found[names[id(module)]] = float(spikes.mean())

    with torch.no_grad():
        through(model, in_time(_frames(256), STEPS), Unrolled(STEPS, watch, norm))
    return found


def test_neurons_fire_in_training_as_in_evaluation(trained):
    model, norm = trained
    training, evaluation = (_rates(model, norm, mode) for mode in (True, False))
    assert list(training) == ["lif1", "lif2", "lif3"]
    for name, rate in training.items():
        assert rate > 0.02
        assert evaluation[name] == pytest.approx(rate, rel=0.1), name


def test_other_running_statistics_would_show(trained):
    """The counter-check: the comparison above sees a running variance that is a quarter off."""
    model, norm = copy.deepcopy(trained[0]), trained[1]
    model.bn2.running_var *= 0.5
    training, evaluation = (_rates(model, norm, mode) for mode in (True, False))
    assert evaluation["lif2"] != pytest.approx(training["lif2"], rel=0.1)


def test_both_forms_fold(trained):
    """Running statistics are plain numbers, whatever they were gathered over."""
    model, _ = trained
    data = plugins.load("data", "digits")
    network = lift(model, Setting(data.shape, STEPS, data.scale, data.levels, data.coding, "test"))
    frames = _frames(40)
    expected = outputs(model, frames, STEPS)
    trace = simulate(network, network.frames((frames / data.scale).to(torch.uint8).numpy()), STEPS)
    found = torch.from_numpy(trace.outputs)
    assert expected.abs().max() > 1
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def _norm(**changes):
    draw = torch.Generator().manual_seed(1)
    given = {
        "weight": torch.rand(3, generator=draw, dtype=torch.float64) + 0.5,
        "bias": torch.rand(3, generator=draw, dtype=torch.float64),
        "running_mean": torch.rand(3, generator=draw, dtype=torch.float64),
        "running_var": torch.rand(3, generator=draw, dtype=torch.float64) + 1,
        "training": True,
        "momentum": 0.3,
        "eps": 1e-3,
    }
    return Norm(**given | changes)


def test_a_current_shown_once_moves_the_statistics_as_its_copies():
    x = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    once, copied = _norm(), _norm()
    y = normalise.unrolled(x, once, 5)
    z = normalise.unrolled(x.repeat(5, 1, 1), copied, 1)
    torch.testing.assert_close(z[:6], y, rtol=1e-12, atol=0)
    torch.testing.assert_close(once.running_mean, copied.running_mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(once.running_var, copied.running_var, rtol=1e-12, atol=0)
    assert not torch.allclose(_norm().running_var, once.running_var)


def test_synchronised_alone_is_torchs_own(monkeypatch):
    """Over one process the synchronised form is batch normalisation, gradients included."""
    monkeypatch.setattr(synchronised, "added", torch.clone)
    x = torch.randn(6, 3, 2, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    found = []
    for form in (synchronised.normalised, normalise.unrolled):
        given, norm = x.clone().requires_grad_(), _norm()
        norm.weight.requires_grad_()
        norm.bias.requires_grad_()
        y = form(given, norm, 3)
        (y * weights).sum().backward()
        found.append(
            [y, given.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
        )
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_variance_beside_a_large_mean_keeps_its_digits(monkeypatch):
    """Float32, mean 1e4, deviation 1: the mean of squares less the square of the mean would have
    no right digit left."""
    monkeypatch.setattr(synchronised, "added", torch.clone)
    x = 1e4 + torch.randn(4096, 3, generator=torch.Generator().manual_seed(2))
    plain = Norm(None, None, None, None, True, 0.1, 0.0)
    _, _, inverse = synchronised.standardised(x, plain)
    exact = x.double().var(0, correction=0)
    torch.testing.assert_close(inverse.double() ** -2, exact, rtol=1e-4, atol=0)
    naive = x.square().mean(0) - x.mean(0).square()
    assert ((naive - exact).abs() / exact).max() > 0.5
