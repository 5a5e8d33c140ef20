"""Gradients at currents, and the width that keeps them level: against formulas and by hand."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from snnpipe.errors import RequestError
from snnpipe.train import neuron
from snnpipe.train.build import build
from snnpipe.train.examples import Batch
from snnpipe.train.gradients import Lesson, activity, at_currents, of_weights
from snnpipe.train.modules import LIF
from snnpipe.train.objective import Objective
from snnpipe.train.recipe import (
    DataPart,
    LossPart,
    ModelPart,
    NeuronPart,
    Recipe,
    RulePart,
    SurrogatePart,
    TrainPart,
)
from snnpipe.train.recipe_file import read_recipe
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.rules.rate import Rate
from snnpipe.train.rules.sltt import SLTT
from snnpipe.train.surrogates.triangle import Triangle
from snnpipe.train.tuning import LEAST, MOST, WIDTHS, Trial, Tuning, choice, measure, tune, tuned
from snnpipe.train.tuning_record import as_data, resolved
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("one_thread")
EXACT = 1e-12
RULES = ("bptt", "bptt_recompute", "rate", "sltt")


def dense(depth: int, width: int = 64, rule: str = "bptt", **parts: object) -> Recipe:
    model = ModelPart("mlp", hidden=(width,) * depth)
    return Recipe(DataPart("digits"), model, rule=RulePart(rule), **parts)


def batch(size: int = 64, shape: tuple[int, ...] = (1, 8, 8), dtype=torch.float32) -> Batch:
    draw = torch.Generator().manual_seed(3)
    frames = torch.randn(size, *shape, generator=draw, dtype=dtype)
    labels = torch.randint(0, 10, (size,), generator=draw)
    return Batch(frames, labels, labels)


def small(norm: bool = True, **settings: object) -> nn.Sequential:
    torch.manual_seed(2)
    norms = [nn.BatchNorm1d(9) if norm else nn.Identity() for _ in range(2)]
    layers = [
        nn.Linear(6, 9),
        norms[0],
        LIF(**settings),
        nn.Linear(9, 9),
        norms[1],
        LIF(**settings),
    ]
    return nn.Sequential(*layers, nn.Linear(9, 10)).double().train()


def by_hand(model: nn.Sequential, x: Batch, steps: int) -> list[Tensor]:
    """The gradients at the currents of both populations, each step's."""
    currents, s = [], x.frames.expand(steps, *x.frames.shape)
    for linear, norm, lif in (model[:3], model[3:6]):
        current = norm(linear(s).flatten(0, 1)).unflatten(0, (steps, -1))
        current.retain_grad()
        currents.append(current)
        s = neuron.unrolled(current, lif.spiking)
    nn.functional.cross_entropy(model[6](s).mean(0), x.targets).backward()
    return [current.grad for current in currents]


def test_gradients_at_currents_are_those_of_a_plain_graph():
    model, x = small(decay=0.6, threshold=0.7), batch(12, (6,), torch.float64)
    found = at_currents(model, Lesson(BPTT(), Objective(LossPart()), x, 5))
    expected = by_hand(copy.deepcopy(model), x, 5)
    assert [name for name, _ in found] == ["2", "5"]
    for (_, norm), gradient in zip(found, expected, strict=True):
        assert norm == pytest.approx(float(gradient.sum(0).norm()), rel=EXACT)
        assert norm != pytest.approx(float(gradient.norm()), rel=1e-2)  # time matters


def test_a_rate_has_the_gradient_of_its_only_step():
    model, x = small(decay=0.6, threshold=0.7), batch(12, (6,), torch.float64)
    found = [
        at_currents(model, Lesson(rule, Objective(LossPart()), x, 1)) for rule in (BPTT(), Rate())
    ]
    for (_, left), (_, right) in zip(*found, strict=True):
        assert left == pytest.approx(right, rel=EXACT)


@pytest.mark.parametrize(("decay", "same"), [(0.0, True), (0.7, False)])
def test_parts_of_a_pass_add_up(decay, same):
    model, x = small(False, decay=decay, threshold=0.3), batch(12, (6,), torch.float64)
    moving = Batch(torch.stack([x.frames, 2 * x.frames, -x.frames]), x.labels, x.targets)
    objective = Objective(LossPart(form="per_step"))
    at_once, in_parts = (
        at_currents(model, Lesson(rule, objective, moving, 3, "per_step"))
        for rule in (BPTT(), SLTT())
    )
    assert [name for name, _ in in_parts] == ["2", "5"]
    for (_, left), (_, right) in zip(at_once, in_parts, strict=True):
        assert left > 1e-6
        assert (left == pytest.approx(right, rel=EXACT)) is same


def test_activity_is_what_the_populations_do():
    surrogate = Triangle(0.25)
    model, x = small(decay=0.6, threshold=0.7, surrogate=surrogate), batch(40, (6,), torch.float64)
    before = copy.deepcopy(model.state_dict())
    first, second = activity(model, x.frames, 4, "joint")
    current = copy.deepcopy(model)[:2](x.frames).detach()
    v, spikes, zeros = torch.zeros_like(current), [], []
    for _ in range(4):
        u = 0.6 * v + current
        spikes.append((u > 0.7).double())
        zeros.append((surrogate(u - 0.7) == 0).double())
        v = u * (1 - spikes[-1])
    assert (first.name, second.name) == ("2", "5")
    assert first.deviation == pytest.approx(float(current.std()), rel=EXACT)
    assert first.rate == pytest.approx(float(torch.stack(spikes).mean()), rel=EXACT)
    assert first.zeros == pytest.approx(float(torch.stack(zeros).mean()), rel=EXACT)
    assert 0.3 < first.zeros < 1.0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_growth_follows_the_law_at_one_step(width):
    """g^2 = p(threshold) * integral of h^2 / Var(s) for currents N(0, 1): the normalisation divides
    by the deviation of a sum of spikes. Integral of the sigmoid's h^2: 2 / (3 width)."""
    recipe = dense(20, train=TrainPart(steps=1))
    density = math.exp(-0.5) / math.sqrt(2 * math.pi)
    rate = 0.5 * math.erfc(1 / math.sqrt(2))
    expected = math.sqrt(density * 2 / (3 * width) / (rate * (1 - rate)))
    assert measure(recipe, width, 1.0, batch()).growth == pytest.approx(expected, rel=0.03)


def test_growth_is_that_of_the_prototype():
    """Golden: 20 layers of 128, T = 4, decay 0.2, subtract, weights N(0, 1/n): the gradients of the
    first and last hidden weights are 1.60, 1.14, 0.82, 0.58 per layer apart at widths 0.5 to 4."""
    recipe = dense(20, 128, neuron=NeuronPart(decay=0.2, reset="subtract", compare="ge"))
    torch.manual_seed(0)
    for width, golden in ((0.5, 1.60), (1.0, 1.14), (2.0, 0.82), (4.0, 0.58)):
        model = build(replace(recipe, surrogate=SurrogatePart(width=width))).train()
        found = of_weights(model, Lesson(BPTT(), Objective(LossPart()), batch(), 4))
        ratio = float(found["fc2.weight"].norm() / found["fc20.weight"].norm())
        assert ratio ** (1 / 18) == pytest.approx(golden, rel=0.03)
    assert tune(recipe, batch()).chosen.width == pytest.approx(1.34, rel=0.08)


@pytest.mark.parametrize("rule", RULES)
def test_the_tuned_gradient_is_level_and_bad_widths_are_not(rule):
    tuning = tune(dense(12, rule=rule), batch())
    curve = {trial.width: trial.growth for trial in tuning.trials}
    assert list(curve) == list(WIDTHS)
    assert tuning.chosen.growth == pytest.approx(1.0, abs=0.03)
    assert curve[0.25] > 1.3
    assert curve[4.0] < 0.7
    assert tuning.default.growth == curve[1.0]
    assert [layer.name for layer in tuning.layers] == [f"lif{n}" for n in range(1, 13)]
    assert not tuning.warnings


def test_recomputation_is_measured_as_what_it_computes():
    one, other = (measure(dense(3, rule=rule), 0.8, 1.0, batch()) for rule in RULES[:2])
    assert one == other


def line(root: float, power: float = -0.5, depth: int = 6) -> list[Trial]:
    """A curve whose growth is (width / root)^power."""
    rows = []
    for width in WIDTHS:
        growth = (width / root) ** power
        gradients = tuple(growth**-index for index in range(depth))
        rows.append(Trial(width, 1.0, tuple("abcdef"[:depth]), gradients))
    return rows


@pytest.mark.parametrize("root", [0.6, 1.0, 1.3, 3.3])
def test_the_choice_is_the_root(root):
    assert choice(line(root)) == pytest.approx(root, rel=1e-9)


def test_the_choice_stays_within_bounds_and_shuns_lost_gradients():
    assert choice(line(0.3)) == LEAST
    assert choice(line(9.0)) == MOST
    dead = [replace(trial, gradients=(0.0, 1.0, 1.0)) for trial in line(1.0)]
    alive = [*dead[:-2], Trial(WIDTHS[-2], 1.0, (), (8.0, 4.0, 1.0)), dead[-1]]
    assert choice(alive) == WIDTHS[-2]
    assert dead[0].growth == 0.0
    assert Trial(1.0, 1.0, (), (math.inf, 1.0)).growth == math.inf


def test_a_silent_network_gets_another_gain():
    recipe = dense(6, neuron=NeuronPart(threshold=4.0))
    tuning = tune(recipe, batch())
    silent = activity(build(recipe).train(), batch().frames, 4, "joint")
    assert min(layer.rate for layer in silent) < 0.01
    assert tuning.chosen.gain > 1.0
    assert min(layer.rate for layer in tuning.layers) >= 0.01
    assert not tuning.warnings
    assert tune(dense(6), batch()).chosen.gain == 1.0


def test_populations_that_no_gain_wakes_are_named():
    tuning = tune(dense(3, neuron=NeuronPart(threshold=40.0)), batch())
    assert tuning.warnings == [
        "before training, at less than 1% of all steps fire: lif1, lif2, lif3"
    ]


def test_tuning_changes_nothing_but_the_answer():
    recipe = dense(4, surrogate=SurrogatePart("triangle", "auto"), train=TrainPart(batch=50))
    state = torch.random.get_rng_state()
    found, tuning = tuned(recipe, None)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found == replace(
        recipe, surrogate=SurrogatePart("triangle", tuning.chosen.width), train=recipe.train
    )
    assert LEAST < tuning.chosen.width < MOST
    again, _ = tuned(recipe, None)
    assert again == found
    assert isinstance(build(found)[3].spiking.surrogate, Triangle)


def test_one_population_has_nothing_to_compare():
    with pytest.raises(
        RequestError, match=r"1 population of network 'mlp'.*give a number"
    ) as caught:
        tune(dense(1), batch())
    assert caught.value.code == "E_RECIPE"


def test_the_initial_gain_is_the_recipes():
    model = build(dense(2, train=TrainPart(gain=0.5)))
    assert torch.equal(model.bn1.weight, torch.full((64,), 0.5))
    plain, halved = (
        activity(build(dense(2, train=TrainPart(gain=g))).train(), batch().frames, 4, "joint")
        for g in (1.0, 0.5)
    )
    assert halved[0].deviation == pytest.approx(plain[0].deviation / 2, rel=1e-5)


def test_a_run_is_told_the_choice_and_keeps_the_curve(tmp_path):
    recipe = dense(3, surrogate=SurrogatePart(width="auto"))
    found = resolved(recipe, None, tmp_path, torch.device("cpu"))
    kept = json.loads((tmp_path / "tuning.json").read_text())
    assert read_recipe(tmp_path / "recipe.toml") == found
    assert kept["width"] == found.surrogate.width
    assert kept["gain"] == found.train.gain == 1.0
    assert [point["width"] for point in kept["curve"]] == list(WIDTHS)
    assert kept["growth_by_default"] == kept["curve"][4]["growth"]
    assert kept["growth"] == pytest.approx(1.0, abs=0.05)
    assert [layer["name"] for layer in kept["layers"]] == ["lif1", "lif2", "lif3"]
    chosen = kept["gradients"]["chosen"]
    assert list(chosen) == ["width", "lif1", "lif2", "lif3"]
    assert chosen["width"] == kept["width"]
    assert chosen["lif1"] == pytest.approx(chosen["lif3"], rel=0.2)
    assert (tmp_path / "tuning.png").read_bytes().startswith(b"\x89PNG")
    assert resolved(found, None, tmp_path / "none", torch.device("cpu")) is found
    assert not (tmp_path / "none").exists()


def test_a_lost_gradient_is_no_number():
    dead = Trial(1.0, 1.0, ("a", "b"), (0.0, 1.0))
    assert as_data(Tuning((dead,), dead, dead, ()))["curve"][0]["growth"] is None


def test_widths_are_in_thresholds():
    """At T = 1 and a gain that is the threshold, the network is the same in other units."""
    settings = TrainPart(steps=1)
    one = measure(dense(4, train=settings), 0.7, 1.0, batch())
    scaled = measure(dense(4, neuron=NeuronPart(threshold=3.0), train=settings), 0.7, 3.0, batch())
    assert scaled.growth == pytest.approx(one.growth, rel=1e-4)
    with pytest.raises(RequestError, match="width is auto"):
        build(dense(2, surrogate=SurrogatePart(width="auto")))
