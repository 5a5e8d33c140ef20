"""The preflight of a rule: cosines by hand, exact where the rule is, and what it advises."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from snnpipe.cli import cli
from snnpipe.train.build import build, rule_of
from snnpipe.train.gradients import Lesson, of_weights
from snnpipe.train.objective import Objective
from snnpipe.train.preflight import LEAST, Preflight, as_data, cosines, practise, preflight
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
from snnpipe.train.rules.bptt import BPTT
from snnpipe.train.tuning import first_batches

pytestmark = pytest.mark.usefixtures("one_thread")


def recipe(rule: str = "rate", decay: float = 0.7, **parts: object) -> Recipe:
    settings = {"data": DataPart("digits"), "train": TrainPart(steps=3, batch=32), **parts}
    return Recipe(
        model=ModelPart("mlp", hidden=(20, 20, 20)),
        neuron=NeuronPart(decay=decay),
        rule=RulePart(rule),
        **settings,
    )


def compared(one: Recipe) -> dict[str, float]:
    torch.manual_seed(4)
    model = build(one).double().train()
    batch = next(first_batches(one, None, 32))
    batch = replace(batch, frames=batch.frames.double())
    return cosines(model, one, rule_of(one), batch)


@pytest.mark.parametrize("rule", ["bptt", "bptt_recompute"])
def test_exact_rules_are_exact(rule):
    assert compared(recipe(rule)) == pytest.approx(dict.fromkeys(NAMES, 1.0), abs=1e-12)


NAMES = ["fc1", "fc2", "fc3", "fc"]


def test_a_rate_is_exact_in_one_step_and_at_the_readout():
    once = compared(recipe(train=TrainPart(steps=1, batch=32)))
    assert once == pytest.approx(dict.fromkeys(NAMES, 1.0), abs=1e-12)
    found = compared(recipe())
    assert list(found) == NAMES
    assert found["fc"] == pytest.approx(1.0, abs=1e-12)
    assert all(0.3 < found[name] < 0.9999 for name in NAMES[:3])


def test_a_cosine_is_that_of_two_gradients():
    one = recipe("sltt")
    found = compared(one)
    torch.manual_seed(4)
    model = build(one).double().train()
    batch = next(first_batches(one, None, 32))
    batch = replace(batch, frames=batch.frames.double())
    left, right = (
        of_weights(model, Lesson(rule, Objective(LossPart()), batch, 3))["fc2.weight"].flatten()
        for rule in (BPTT(), rule_of(one))
    )
    assert found["fc2"] == pytest.approx(
        float(left @ right / left.norm() / right.norm()), rel=1e-12
    )
    assert found["fc2"] < 0.999


def test_practise_trains_with_the_rule():
    one = recipe("sltt")
    states = []
    for rule in ("sltt", "rate", "sltt"):
        torch.manual_seed(0)
        model = build(one)
        practise(model, one, rule_of(recipe(rule)), first_batches(one, None, 32), 4)
        states.append(model.fc2.weight.detach().clone())
    assert torch.equal(states[0], states[2])
    assert not torch.equal(states[0], states[1])


def test_a_preflight_leaves_nothing_behind_and_says_what_it_saw():
    one = recipe(surrogate=SurrogatePart(width=0.5))
    state = torch.random.get_rng_state()
    seen = preflight(one, None, updates=5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (seen.rule, seen.updates) == ("rate", 5)
    assert list(seen.cosines) == NAMES
    assert seen.level is not None
    assert seen.level.width == 0.5
    assert seen.level.growth > 1.2
    assert list(seen.rivals) == ["sltt"]  # 3 steps are no 2 windows; ottt needs norms per step
    assert seen == preflight(one, None, updates=5)


def test_windows_are_a_rival():
    one = recipe(train=TrainPart(steps=4, batch=32), data=DataPart("digits", coding="latency"))
    seen = preflight(one, None, updates=3)
    windows = seen.rivals["rate with rule.windows = 2"]
    assert seen.mean < windows < 1.0


def test_an_automatic_width_is_chosen_first():
    seen = preflight(recipe(surrogate=SurrogatePart(width="auto")), None, updates=1)
    assert seen.tuning is not None
    assert seen.level == seen.tuning.chosen


def test_one_population_has_no_level():
    one = replace(recipe(), model=ModelPart("mlp", hidden=(20,)))
    seen = preflight(one, None, updates=1)
    assert seen.level is None
    assert len(seen.advice) == 1


def seen_as(mean: float, rivals: dict[str, float]) -> Preflight:
    return Preflight("rate", 50, {"a": mean - 0.1, "b": mean + 0.1}, rivals, 9, None, None)


def test_the_advice_follows_the_cosine():
    good, bad = (
        seen_as(LEAST[9] + 0.01, {"sltt": 0.99}),
        seen_as(LEAST[9] - 0.01, {"x": 0.9, "y": 0.1}),
    )
    assert (good.near, bad.near) == (True, False)
    deeper = [replace(good, populations=depth).least for depth in (1, 2, 9, 13, 17, 90)]
    assert deeper == sorted(deeper, reverse=True)
    assert deeper[2:] == pytest.approx([LEAST[9], (LEAST[9] + LEAST[17]) / 2, *[LEAST[17]] * 2])
    assert "another rule" not in good.advice[0]
    assert "another rule would serve better: x (0.900), or bptt_recompute" in bad.advice[0]
    assert bad.table[1:4] == [
        f"{'a':20} {bad.mean - 0.1:6.3f}  far",
        f"{'b':20} {bad.mean + 0.1:6.3f}  near",
        f"{'mean':20} {bad.mean:6.3f}  far",
    ]


def test_a_steep_gradient_is_told():
    one = replace(recipe(), model=ModelPart("mlp", hidden=(20,) * 12))
    flat, steep = (
        preflight(replace(one, surrogate=SurrogatePart(width=width)), None, updates=1)
        for width in (2.0, 0.25)
    )
    assert len(flat.advice) == 1
    assert "at surrogate.width = 0.25 the gradient changes by a factor of 1." in steep.advice[1]
    document = json.loads(json.dumps(as_data(steep), allow_nan=False))
    assert document["mean"] == steep.mean
    assert document["growth"] == pytest.approx(document["tuning"]["curve"][0]["growth"])


def test_the_command_prints_and_leaves_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe_file = tmp_path / "a.toml"
    recipe_file.write_text('[data]\nname = "digits"\n[model]\nname = "mlp"\nhidden = [12]\n')
    told = CliRunner().invoke(cli, ["train", str(recipe_file), "--preflight", "--json"])
    assert told.exit_code == 0, told.output
    document = json.loads(told.stdout)
    assert document["rule"] == "rate"
    assert document["updates"] == 50
    assert list(document["cosines"]) == ["fc1", "fc"]
    assert document["near"] is True
    assert "fc1 " in told.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.toml"]
    refused = CliRunner().invoke(cli, ["train", str(recipe_file), "--preflight", "--seeds", "2"])
    assert refused.exit_code == 2
