"""Several seeds: what their accuracies say, rules in pairs, and that nothing is trained twice."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from snnpipe.errors import CouldNotRunError, RequestError
from snnpipe.train import seeds
from snnpipe.train.recipe_file import parse_recipe, read_recipe, to_toml
from snnpipe.train.seeds import Spread, by_rules, spread, train_series
from snnpipe.train.state import same_recipe

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = """
[data]
name = "digits"
[model]
channels = [4]
strides = [2]
[rule]
name = "RULE"
[train]
steps = 2
epochs = 2
limit = 160
batch = 32
seed = 5
"""


def _recipe(rule="rate"):
    return parse_recipe(RECIPE.replace("RULE", rule), "test")


def _quiet(_text):
    pass


def test_the_interval_is_students():
    """Quantiles of t as any table of it prints them: 3.182 and 2.353 at 3 degrees of freedom."""
    found = spread([1.0, 2.0, 4.0, 5.0], 0.95)
    assert (found.n, found.mean, found.level) == (4, 3.0, 0.95)
    assert found.deviation == pytest.approx((10 / 3) ** 0.5)
    assert found.half_width == pytest.approx(3.182446 * (10 / 3) ** 0.5 / 2, rel=1e-6)
    narrower = spread([1.0, 2.0, 4.0, 5.0], 0.90)
    assert narrower.half_width == pytest.approx(2.353363 * (10 / 3) ** 0.5 / 2, rel=1e-6)
    assert spread([2.0, 2.0], 0.95) == Spread(2, 2.0, 0.0, 0.95, 0.0)


def test_rules_are_compared_in_pairs(tmp_path):
    told = []
    variants = by_rules(_recipe(), ["rate", "bptt"])
    found = train_series(variants, 2, None, tmp_path / "runs", told.append)
    assert found == json.loads((tmp_path / "runs" / "seeds.json").read_text())
    assert found["seeds"] == [5, 6]
    assert [line.partition(":")[0] for line in told] == [
        str(tmp_path / "runs" / rule / f"seed-{seed}")
        for seed in (5, 6)
        for rule in ("rate", "bptt")
    ]
    accuracies = {}
    for rule, of in found["variants"].items():
        for seed, accuracy in zip((5, 6), of["accuracies"], strict=True):
            run = tmp_path / "runs" / rule / f"seed-{seed}"
            recipe = read_recipe(run / "recipe.toml")
            assert (recipe.rule.name, recipe.train.seed) == (rule, seed)
            history = json.loads((run / "history.json").read_text())
            assert accuracy == history["test"]["last"]["accuracy"]
        accuracies[rule] = of["accuracies"]
        assert of["mean"] == pytest.approx(sum(of["accuracies"]) / 2)
    pairs = [one - other for one, other in zip(*accuracies.values(), strict=True)]
    difference = found["differences"]["rate - bptt"]
    assert (difference["n"], difference["level"]) == (2, 0.90)
    assert difference["mean"] == pytest.approx(sum(pairs) / 2)
    assert difference["half_width"] == pytest.approx(6.313752 * abs(pairs[0] - pairs[1]) / 2)


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    out, trained = tmp_path / "runs", []
    train_run = seeds.train_run

    def counted(recipe, data_folder, run, resume):
        trained.append((run.name, resume))
        return train_run(recipe, data_folder, run, resume=resume)

    monkeypatch.setattr(seeds, "train_run", counted)
    first = train_series({"rate": _recipe()}, 2, None, out, _quiet)
    (out / "seed-7").mkdir()
    recipe = (out / "seed-6" / "recipe.toml").read_text().replace("seed = 6", "seed = 7")
    (out / "seed-7" / "recipe.toml").write_text(recipe)  # begun, and broken off
    second = train_series({"rate": _recipe()}, 3, None, out, _quiet)
    assert trained == [("seed-5", False), ("seed-6", False), ("seed-7", True)]
    accuracies = second["variants"]["rate"]["accuracies"]
    assert accuracies[:2] == first["variants"]["rate"]["accuracies"]
    assert len(accuracies) == 3
    other = replace(_recipe(), train=replace(_recipe().train, lr=0.5))
    with pytest.raises(RequestError, match=r"seed-5: train\.lr was 0\.005") as caught:
        train_series({"rate": other}, 2, None, out, _quiet)
    assert caught.value.code == "E_RESUME"
    with pytest.raises(RequestError, match="is a run; name a folder"):
        train_series({"rate": _recipe()}, 2, None, out / "seed-5", _quiet)


def test_a_width_left_to_be_chosen_is_whatever_was_chosen(tmp_path):
    recipe = _recipe()
    auto = replace(recipe, surrogate=replace(recipe.surrogate, width="auto"))
    chosen = {"surrogate": {"name": "sigmoid", "width": 1.7}}
    same_recipe(auto, asdict(auto) | chosen, tmp_path)
    with pytest.raises(RequestError, match=r"surrogate\.width was 1\.7"):
        same_recipe(recipe, asdict(recipe) | chosen, tmp_path)


def test_a_rule_that_cannot_train_the_recipe_is_refused_before_any_training():
    with pytest.raises(RequestError, match=r"'ottt' cannot train with loss\.form = mean_output"):
        by_rules(_recipe(), ["rate", "ottt"])
    assert list(by_rules(_recipe("bptt"), [])) == ["bptt"]
    patient = replace(_recipe(), train=replace(_recipe().train, patience=3))
    with pytest.raises(RequestError, match=r"train\.patience is 3 with data\.validation = 0"):
        by_rules(patient, [])


@pytest.mark.parametrize("content", [None, "", '{"epochs": []}', '{"test": {"last": 1}}', "[1]"])
def test_a_finished_seed_without_its_history_is_named(tmp_path, monkeypatch, content):
    monkeypatch.setattr(seeds, "train_run", None)
    run = tmp_path / "seed-5"
    run.mkdir()
    (run / "recipe.toml").write_text(to_toml(_recipe()))
    (run / "model.safetensors").write_bytes(b"")
    if content is not None:
        (run / "history.json").write_text(content)
    words = f"{run}/history.json: not the history of a finished run .*; remove {run}, and"
    with pytest.raises(RequestError, match=words) as caught:
        train_series({"rate": _recipe()}, 2, None, tmp_path, _quiet)
    assert caught.value.code == "E_RUN"
    (run / "history.json").write_text('{"test": {"last": {"accuracy": 0.25}}}')
    with pytest.raises(
        TypeError, match="not callable"
    ):  # it counts; the next seed is to be trained
        train_series({"rate": _recipe()}, 2, None, tmp_path, _quiet)


def test_a_series_whose_folder_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(CouldNotRunError, match="File name too long") as caught:
        train_series({"rate": _recipe()}, 2, None, tmp_path / ("n" * 300), _quiet)
    assert caught.value.code == "E_WRITE"
