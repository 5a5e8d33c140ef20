"""Whole weights in training: the numbers that training sees are the numbers that a chip holds."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from snnpipe import plugins
from snnpipe.errors import RequestError
from snnpipe.export.lift import Setting, lift
from snnpipe.export.quantise import Settings, quantise
from snnpipe.network.contract import Integer
from snnpipe.network.grid import snap
from snnpipe.network.layers import Conv, Dense
from snnpipe.network.neurons import Sum
from snnpipe.network.scales import step_of, whole_weights
from snnpipe.network.simulate import simulate
from snnpipe.network.trace import Record
from snnpipe.train.build import build, check
from snnpipe.train.checkpoint import load_run
from snnpipe.train.evaluate import outputs
from snnpipe.train.folding import fold_norms, groups, whole_form
from snnpipe.train.modules import LIF, Recurrent, SumPool2d
from snnpipe.train.preflight import preflight
from snnpipe.train.progress import Progress
from snnpipe.train.quantised import WholeBiases, WholeWeights, attach, begin, settle
from snnpipe.train.recipe_file import parse_recipe
from snnpipe.train.run import train_run
from torch import nn
from torch.nn.utils import parametrize

pytestmark = pytest.mark.usefixtures("one_thread")

FLOAT = """
[data]
name = "digits"
coding = "CODING"
[model]
channels = [6, 8]
strides = [2, 1]
hidden = [20]
dropout = 0.1
[neuron]
threshold = 0.75
decay = 0.5
[train]
steps = 3
epochs = 2
batch = 32
limit = 400
lr = 0.02
"""
WHOLE_PART = """
[quantise]
bits = BITS
start = "START"
thresholds = "THRESHOLDS"
"""
CASES = [(2, "layer"), (2, "channel"), (3, "channel"), (5, "layer"), (8, "channel")]

PER_STEP = ("sltt", "sltt_k", "ottt", "ottt_online")
RULES = ("rate", "bptt", "bptt_recompute", *PER_STEP, "rate_single_step")


def _rule(name: str) -> list[str]:
    """As overrides, with a loss and a normalisation that it trains with."""
    form = "per_step" if name in PER_STEP else "mean_output"
    norm = "per_step" if name in (*PER_STEP, "rate_single_step") else "joint"
    return [f"rule.name={name}", f"loss.form={form}", f"train.norm={norm}"]


@pytest.fixture(scope="module")
def floats(tmp_path_factory) -> dict[str, Path]:
    """Runs in float, to start from: spikes go into one, grey levels into the other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    runs = {}
    for coding in ("rate", "direct"):
        runs[coding] = tmp_path_factory.mktemp("floats") / coding
        train_run(parse_recipe(FLOAT.replace("CODING", coding), "test"), None, runs[coding])
    torch.set_num_threads(threads)
    return runs


def _recipe(start: Path, bits: int = 2, thresholds: str = "channel", *overrides: str):
    coding = "direct" if start.name == "direct" else "rate"
    part = WHOLE_PART.replace("BITS", str(bits)).replace("START", str(start))
    text = FLOAT.replace("CODING", coding) + part.replace("THRESHOLDS", thresholds)
    return parse_recipe(text, "test", ["train.lr=0.005", "train.epochs=1", *overrides])


def _setting(coding: str) -> Setting:
    if coding == "direct":
        return Setting((1, 8, 8), 3, 1 / 16, 16, "direct")
    return Setting((1, 8, 8), 3, 1.0, 1, "events")


def _operations(network) -> dict[str, Conv | Dense]:
    found = [op for layer in network.layers for s in layer.synapses for op in s.operations]
    return {op.name: op for op in found if isinstance(op, Conv | Dense)}


def _spacings(model: nn.Module) -> dict[str, np.ndarray]:
    """Of every rounded weight, () or (C,), as training uses it."""
    return {
        name: module.parametrizations.weight[0].spacing.numpy()
        for name, module in model.named_modules()
        if parametrize.is_parametrized(module)
    }


def _whole(network, spacings: dict[str, np.ndarray], bits: int):
    """A network of rounded numbers as integers, which they must be, written as a chip holds them.

    Nothing is rounded here.
    """
    layers = []
    for layer in network.layers:
        name, *others = [op.name for synapse in layer.synapses for op in synapse.weighted]
        for other in others:
            assert np.array_equal(spacings[other], spacings[name])
        scale = step_of(bits) / spacings[name]

        def units(values, scale=scale):
            axes = (-1, *[1] * (values.ndim - 1)) if scale.ndim and values.ndim else ()
            whole = values.astype(np.float64) * scale.reshape(axes or scale.shape)
            return np.round(whole, 6).astype(np.float32)  # off by the last bit of 1 / spacing

        def edited(op, units=units):
            if not isinstance(op, Conv | Dense):
                return op
            return replace(op, weight=units(op.weight), bias=units(op.bias))

        whole = [replace(s, operations=tuple(map(edited, s.operations))) for s in layer.synapses]
        neuron = layer.neuron
        if not isinstance(neuron, Sum):
            neuron = replace(neuron, threshold=units(neuron.threshold))
            assert (neuron.threshold == np.rint(neuron.threshold)).all()
        layers.append(replace(layer, neuron=neuron, synapses=tuple(whole)))
    arithmetic = Integer(bits, {layer.name: 0 for layer in layers}, {})
    contract = network.contract.with_arithmetic(arithmetic)
    return replace(network, layers=tuple(layers), contract=contract)


def _trained(recipe, updates: int = 6) -> nn.Module:
    """A few updates behind the rounding, in evaluation and not settled yet."""
    torch.manual_seed(3)
    model, rule = begin(recipe).train(), check(recipe)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    generator = torch.Generator().manual_seed(5)
    for _ in range(updates):
        x = (torch.rand(3, 16, 1, 8, 8, generator=generator) < 0.3).float()
        (part,) = rule(model, x, 3)
        optimizer.zero_grad()
        nn.functional.cross_entropy(part.mean, torch.arange(16) % 10).backward()
        optimizer.step()
    return model.eval()


def _spikes(samples: int = 40) -> np.ndarray:
    """(T, B, 1, 8, 8)"""
    return (np.random.default_rng(8).random((3, samples, 1, 8, 8)) < 0.35).astype(np.float32)


def test_folding_leaves_the_network_that_export_would_make(floats):
    model, _ = load_run(floats["direct"])
    before = lift(model, _setting("direct"))
    fold_norms(model, (1, 8, 8), True)
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert all(p.requires_grad for p in model.parameters())
    after = lift(model, _setting("direct"))
    ours, theirs = _operations(after), _operations(before)
    assert ours.keys() == theirs.keys() == {"conv1", "conv2", "fc3", "fc"}
    for name, op in ours.items():
        assert np.array_equal(op.weight, theirs[name].weight), name
        assert np.array_equal(op.bias, theirs[name].bias), name
    assert np.abs(ours["conv2"].bias).max() > 0.01


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
@pytest.mark.parametrize("channels", [False, True])
def test_the_rounding_is_that_of_the_chip(bits, channels):
    draw = np.random.default_rng(bits)
    for case in range(30):
        weight = draw.normal(size=(6, 4, 3, 3)).astype(np.float32)
        if case % 3 == 0:
            weight = -abs(weight)
        spacing = draw.integers(32, 64, 6 if channels else ()) / np.float64(2 ** (5 + bits))
        rounded = WholeWeights(spacing, bits)(torch.from_numpy(weight)).double().numpy()
        scale = step_of(bits) / spacing
        whole = whole_weights(weight, scale, bits)
        view = (-1, 1, 1, 1) if channels else ()
        assert np.array_equal(rounded, whole / step_of(bits) * spacing.reshape(view))
        assert abs(whole).max() == (256 if case % 3 else 256 - step_of(bits))
        again = whole_weights(rounded.astype(np.float32), scale, bits)
        assert np.array_equal(again, whole)


def test_biases_are_what_a_mantissa_and_an_exponent_hold():
    unit = 3 / 256
    near = WholeBiases(np.asarray(unit), 1)
    bias = torch.tensor([0.0, 0.4, 1.6, -7.5, 4095.2]) * unit
    assert near(bias).div(unit).tolist() == [0, 0, 2, -8, 4095]
    # One bias beyond 4095 units: exponent 7, two units apart; beyond that the end of the field.
    bias = torch.tensor([1.2, 3.0, 4097.0, -9000.0]) * unit
    assert near(bias).div(unit).tolist() == [2, 4, 4096, -8190]
    assert WholeBiases(np.asarray(unit), 2)(bias).div(unit).tolist() == [2, 4, 4094, -4094]
    bias.requires_grad_()
    near(bias).sum().backward()
    assert bias.grad.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("name", RULES)
def test_the_gradient_is_that_of_the_rounded_network_inside_the_range(floats, name):
    begun = _recipe(floats["rate"], 2, "channel", "model.dropout=0")
    recipe = _recipe(floats["rate"], 2, "channel", "model.dropout=0", *_rule(name))
    model, settled = (_trained(begun, 2).train() for _ in range(2))
    settle(settled)
    x = torch.from_numpy(_spikes(12))
    for each in (model, settled):
        each.zero_grad()
        for part in check(recipe)(each, x, 3, recipe.train.norm):
            nn.functional.cross_entropy(part.mean, torch.arange(12) % 10).backward()
    cut = 0
    for module in ("conv1", "conv2", "fc3", "fc"):
        behind = model.get_submodule(module).parametrizations.weight
        plain = settled.get_submodule(module).weight
        unit = behind[0].spacing.view(-1, *[1] * (plain.dim() - 1))
        whole = (behind.original.double() / unit).round()
        inside = (whole >= -2) & (whole <= 1)
        cut += int((~inside).sum())
        assert torch.equal(behind.original.grad, plain.grad * inside)
        assert plain.grad.norm() > 1e-6
        assert not torch.equal(behind.original, plain)
        bias = model.get_submodule(module).parametrizations.bias.original
        assert torch.equal(bias.grad, settled.get_submodule(module).bias.grad)
    assert cut > 10


@pytest.mark.parametrize(("bits", "thresholds"), CASES)
def test_what_training_saw_is_what_integers_do(floats, bits, thresholds):
    recipe = _recipe(floats["rate"], bits, thresholds)
    model = _trained(recipe)
    seen = outputs(model, torch.from_numpy(_spikes()), 3).numpy()
    spacings = _spacings(model)
    settle(model)
    assert not _spacings(model)
    assert build(recipe).state_dict().keys() == model.state_dict().keys()
    network = lift(model, _setting("rate"))
    for name, op in _operations(snap(network)).items():  # the grid finds nothing to round
        assert np.array_equal(op.weight, _operations(network)[name].weight)
        assert np.array_equal(op.bias, _operations(network)[name].bias)
    whole = _whole(network, spacings, bits)
    for name, op in _operations(whole).items():
        n = op.weight / step_of(bits)
        assert np.array_equal(n, np.rint(n))
        assert n.min() >= -(2 ** (bits - 1))
        assert n.max() < 2 ** (bits - 1)
        assert len(np.unique(n)) > 2
        parts = 1 if name != "fc" else step_of(bits) / min(8, step_of(bits))
        assert np.array_equal(op.bias / parts, np.rint(op.bias / parts))
    left = simulate(network, _spikes(), 3, Record(spikes=40))
    right = simulate(whole, _spikes(), 3, Record(spikes=40))
    assert left.spikes.keys() == {"lif1", "lif2", "lif3"}
    for name, bits_of in left.spikes.items():
        assert np.array_equal(bits_of, right.spikes[name]), name
        assert 0.02 < left.fired[name].mean() / 40 < 0.98
    spacing = float(spacings["fc"])
    assert np.array_equal(left.outputs, right.outputs / (64 * step_of(bits)) * spacing)
    assert np.array_equal(left.outputs, seen)


@pytest.mark.parametrize(("bits", "thresholds"), CASES)
def test_export_makes_the_integers_that_training_saw(floats, bits, thresholds):
    model = _trained(_recipe(floats["rate"], bits, thresholds))
    spacings = _spacings(model)
    settle(model)
    network = snap(lift(model, _setting("rate")))
    integer, facts = quantise(network, Settings(bits, thresholds=thresholds))
    assert all(fact.kept for fact in facts)
    seen = _operations(_whole(network, spacings, bits))
    for fact in facts:
        (op,) = integer.layer(fact.layer).synapses[0].weighted
        # Where the weights leave room for more, all of the layer or channel is as much finer.
        finer = np.asarray(fact.scale) / (step_of(bits) / spacings[op.name])
        assert np.array_equal(finer, np.rint(finer))
        view = (-1, *[1] * (op.weight.ndim - 1)) if finer.ndim else ()
        assert np.array_equal(op.weight, seen[op.name].weight * finer.reshape(view))
        assert bits > 3 or (finer == 1).mean() > 0.8
    left = simulate(network, _spikes(), 3, Record(spikes=40))
    right = simulate(integer, _spikes(), 3, Record(spikes=40))
    for name, bits_of in left.spikes.items():
        assert np.array_equal(bits_of, right.spikes[name]), name
    scale, shift = np.float64(facts[-1].scale), 2 ** facts[-1].shift
    assert np.array_equal(left.outputs, (right.outputs * shift / (64 * scale)).astype(np.float32))
    start, _ = load_run(floats["rate"])  # the counter-check: floats lie on no lattice
    _, facts = quantise(snap(lift(start, _setting("rate"))), Settings(bits, thresholds=thresholds))
    assert not any(fact.kept for fact in facts)


@pytest.mark.parametrize("thresholds", ["layer", "channel"])
def test_maps_that_meet_in_one_neuron_share_its_scale(tmp_path, thresholds):
    changes = ["model.name=recurrent", "rule.name=bptt", "train.epochs=1"]
    start = tmp_path / "rate"
    train_run(parse_recipe(FLOAT.replace("CODING", "rate"), "test", changes), None, start)
    model = _trained(_recipe(start, 3, thresholds, *changes))
    spacings = _spacings(model)
    settle(model)
    network = snap(lift(model, _setting("rate")))
    left = simulate(network, _spikes(), 3, Record(spikes=40))
    right = simulate(_whole(network, spacings, 3), _spikes(), 3, Record(spikes=40))
    assert left.spikes.keys() == {"lif1", "lif2", "rec3.neurons"}
    assert len(network.layer("rec3.neurons").synapses) == 2
    for name, bits_of in left.spikes.items():
        assert np.array_equal(bits_of, right.spikes[name]), name
        assert 0.01 < left.fired[name].mean() / 40 < 0.98


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), SumPool2d(2)])
@pytest.mark.parametrize("bits", [2, 6])
def test_pools_of_spikes_keep_the_integers(floats, pool, bits):
    torch.manual_seed(bits)
    recipe = _recipe(floats["rate"], bits, "channel")
    model = nn.Sequential(
        *(nn.Conv2d(1, 5, 3, padding=1), LIF(0.5, 0.75), pool, nn.Conv2d(5, 6, 3, padding=1)),
        *(nn.BatchNorm2d(6), LIF(0.5, 0.75), pool, nn.Flatten(), nn.Linear(24, 10)),
    )
    nn.init.normal_(model[0].weight, 0.2, 0.4)
    nn.init.normal_(model[3].weight, 0.1, 0.4)
    whole_form(model, (1, 8, 8), False)
    attach(model, recipe)
    settle(model.eval())
    network = snap(lift(model, _setting("rate")))
    integer, facts = quantise(network, Settings(bits, thresholds="channel"))
    assert all(fact.kept for fact in facts)
    left = simulate(network, _spikes(), 3, Record(spikes=40))
    right = simulate(integer, _spikes(), 3, Record(spikes=40))
    for name, bits_of in left.spikes.items():
        assert np.array_equal(bits_of, right.spikes[name]), name
        assert 0.01 < left.fired[name].mean() / 40 < 0.98


def test_without_the_rounding_integers_do_something_else(floats):
    """The counter-check: thresholds, biases and weights each count."""
    model = _trained(_recipe(floats["rate"], 2, "channel"))
    spacings = _spacings(model)
    settle(model)
    expected = simulate(lift(model, _setting("rate")), _spikes(), 3, Record(spikes=40))
    for part in ("lif2.threshold", "conv2.bias", "fc3.weight"):
        spoilt = copy.deepcopy(model)
        with torch.no_grad():
            spoilt.state_dict()[part].mul_(1.3)
        found = simulate(lift(spoilt, _setting("rate")), _spikes(), 3, Record(spikes=40))
        assert any(not np.array_equal(found.spikes[n], expected.spikes[n]) for n in found.spikes)
    assert spacings.keys() == {"conv1", "conv2", "fc3", "fc"}


def test_the_host_keeps_the_first_layer_in_float(floats):
    model = begin(_recipe(floats["direct"], 2, "layer"))
    assert _spacings(model).keys() == {"conv2", "fc3", "fc"}
    start, _ = load_run(floats["direct"])
    fold_norms(start, (1, 8, 8), True)
    assert torch.equal(model.conv1.weight, start.conv1.weight)
    assert model.lif1.threshold.tolist() == [0.75] * 6
    assert len(set(model.lif2.threshold.tolist())) == 1
    assert 0 < abs(model.lif2.threshold[0].item() - 0.75) < 1e-3


@pytest.mark.parametrize("rule", ["rate", "bptt", "ottt_online"])
def test_a_run_leaves_whole_weights_and_says_so(floats, tmp_path, rule):
    recipe = _recipe(floats["direct"], 3, "channel", *_rule(rule), "train.average=0.8")
    facts = train_run(recipe, None, tmp_path / "run")
    said = json.loads((tmp_path / "run" / "history.json").read_text())["quantise"]
    assert said == facts["quantise"]
    assert (said["bits"], said["thresholds"]) == (3, "channel")
    assert said["start"]["run"] == str(floats["direct"])
    assert said["start"]["n"] == 450
    assert said["layers"].keys() == {"conv2", "fc3", "fc"}
    assert said["layers"]["conv2"]["weights"] == 8 * 6 * 9
    model, again = load_run(tmp_path / "run")
    assert again == recipe
    spacings = _spacings(begin(recipe))
    for name, spacing in spacings.items():
        weight = model.get_submodule(name).weight.detach().double().numpy()
        n = weight / spacing.reshape(-1, *[1] * (weight.ndim - 1))
        assert np.array_equal(n, np.rint(n))
        assert n.min() >= -4
        assert n.max() <= 3
        said_zeros = said["layers"][name]["zeros"]
        assert (n == 0).sum() == said_zeros
    test = plugins.load("data", "digits").load(None, "test", 3)
    x = torch.from_numpy(test[0]).float() / 16
    right = int((outputs(model, x, 3).double().sum(0).argmax(1).numpy() == test[1]).sum())
    assert right == facts["test"]["last"]["correct"]
    assert facts["test"]["last"]["accuracy"] > 0.5
    other = _recipe(
        tmp_path / "run", 2, "layer", "data.coding=direct"
    )  # whole weights can start from whole weights
    assert _spacings(begin(other)).keys() == spacings.keys()


class KilledError(Exception):
    """What no cleaning up follows."""


def test_what_broke_off_goes_on_bit_for_bit(floats, tmp_path, monkeypatch):
    recipe = _recipe(floats["direct"], 2, "channel", "train.epochs=2", "train.average=0.7")
    train_run(recipe, None, tmp_path / "straight")
    left = [17]  # in the second epoch of 13 updates

    def show(*_) -> None:
        left[0] -= 1
        if not left[0]:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "show", show)
        with pytest.raises(KilledError):
            train_run(recipe, None, tmp_path / "broken", every=0.0)
    torch.manual_seed(99)
    train_run(recipe, None, tmp_path / "broken", resume=True)
    for name in ("model.safetensors", "witness.npz", "recipe.toml"):
        files = [(tmp_path / run / name).read_bytes() for run in ("straight", "broken")]
        assert files[0] == files[1], name
    start = load_file(floats["direct"] / "model.safetensors")
    assert not torch.equal(
        load_file(tmp_path / "straight" / "model.safetensors")["fc.bias"], start["fc.bias"]
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["quantise.bits=1"], "quantise.bits is 1.*2 to 8"),
        (["quantise.start="], "without a quantise.start"),
        (["neuron.name=relu", "train.steps=1"], "neuron.name is relu"),
        (["neuron.compare=ge"], "neuron.compare is ge .* expected gt"),
        (["surrogate.width=auto"], "surrogate.width is auto"),
        (["train.precision=bf16"], "train.precision is bf16"),
        (["neuron.decay=0.2"], r"\[0\.2, 0\.25\].*multiples of 1/4096"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_by_name(floats, tmp_path, overrides, words):
    recipe = _recipe(floats["direct"], 2, "layer", *overrides)
    with pytest.raises(RequestError, match=words) as caught:
        train_run(recipe, None, tmp_path / "run")
    assert caught.value.code == "E_RECIPE"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.channels=[6, 9]", r"model\.channels of this run is \(6, 8\).*\(6, 9\)"),
        ("neuron.threshold=1", r"neuron\.threshold of this run is 0\.75"),
        ("data.coding=rate", r"data\.coding of this run is direct"),
        ("quantise.start=/nowhere", "quantise.start is '/nowhere'"),
    ],
)
def test_a_start_of_another_network_is_refused(floats, tmp_path, override, words):
    recipe = _recipe(floats["direct"], 2, "layer", override)
    with pytest.raises(RequestError, match=words) as caught:
        train_run(recipe, None, tmp_path / "run")
    assert caught.value.code == "E_START"


def test_a_preflight_is_of_the_start(floats):
    with pytest.raises(RequestError, match="look at the recipe of its start"):
        preflight(_recipe(floats["direct"]), None)


@pytest.mark.parametrize("key", ["start=x", "thresholds=channel"])
def test_a_setting_without_bits_is_refused(key):
    with pytest.raises(RequestError, match=r"no use without quantise\.bits"):
        parse_recipe(FLOAT.replace("CODING", "direct"), "test", [f"quantise.{key}"])


class _Net(nn.Module):
    """Two maps and neurons, and how they are called."""

    def __init__(self, call) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(1, 3, 3, padding=1)
        self.norm, self.lif, self.more = nn.BatchNorm2d(3), LIF(), LIF()
        self.again = nn.Conv2d(3, 3, 1)
        self.call = call

    def forward(self, x):
        return self.call(self, x)


def _twice(m, current):
    return m.lif(current) + m.more(current)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x: m.lif(m.one(x) + x), "'add'.*share the scale of 'one'"),
        (lambda m, x: m.lif(m.again(m.one(x))), "'again'.*follows 'one' without neurons"),
        (lambda m, x: m.lif(m.norm(m.one(x) + m.two(x))), "'norm'.*one linear map"),
        (lambda m, x: m.lif(m.norm(m.lif(m.one(x)))), "'norm'.*one linear map"),
        (lambda m, x: m.more(m.lif(m.one(x))), "'more'.*without weights"),
        (lambda m, x: m.lif(nn.functional.avg_pool2d(m.one(x), 2)), "'one'.*a pool behind it"),
        (lambda m, x: m.lif(m.one(nn.functional.avg_pool2d(x, 3))), "divides by 9"),
        (lambda m, x: m.lif(m.one(x) * 2.0), "'mul'"),
        (lambda m, x: m.lif(m.one(x) + m.one(x)), "'one'.*used twice"),
        (lambda m, x: m.lif(nn.functional.max_pool2d(x, 2)), "'max_pool2d'"),
        (lambda m, x: _twice(m, m.one(x)), "'one'.*to 'lif' and to 'more'"),
    ],
)  # fmt: skip
def test_a_network_that_no_scale_holds_is_refused_by_name(call, words):
    with pytest.raises(RequestError, match=words) as caught:
        groups(_Net(call), (1, 6, 6), False)
    assert caught.value.code == "E_QUANTISE"


def test_maps_that_meet_in_one_neuron_are_one_group():
    model = nn.Sequential(_Net(lambda m, x: m.lif(m.norm(m.one(x)) + m.two(x))), nn.Flatten())
    model.append(nn.Linear(108, 4))
    model.append(Recurrent(LIF(), nn.Linear(4, 4)))
    found = groups(model, (1, 6, 6), False)
    assert [(g.name, g.maps, g.shape) for g in found] == [
        ("0.lif", ("0.one", "0.two"), (3, 6, 6)),
        ("3.neurons", ("2", "3.weights"), (4,)),
    ]
    assert not any(g.host for g in found)
    pooled = nn.Sequential(nn.AvgPool2d(2), _Net(lambda m, x: m.lif(m.one(x))))
    assert [g.taps for g in (*found, *groups(pooled, (1, 6, 6), False))] == [1, 1, 4]
    assert groups(model, (1, 6, 6), True)[0].host
    assert not groups(model, (1, 6, 6), True)[1].host


def test_a_folder_that_is_gone_is_missed_by_name(floats, tmp_path):
    gone = tmp_path / "direct"
    shutil.copytree(floats["direct"], gone)
    recipe = _recipe(gone)
    (gone / "model.safetensors").unlink()
    with pytest.raises(RequestError, match=r"model\.safetensors"):
        begin(recipe)
