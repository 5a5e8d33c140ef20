"""What a recipe names, made: its network and its learning rule."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import plugins
from ..errors import RequestError
from ..network.dynamics import DECAY_UNITS
from .coding import seen
from .dataset import DataSet
from .folding import whole_form
from .horizon import Horizon
from .protocol import Architecture, LearningRule
from .recipe import Recipe, RulePart


def build(recipe: Recipe) -> nn.Module:
    """The recipe's architecture, freshly drawn, sized for the recipe's data set.

    Where it is to have whole weights, its normalisation is folded, for good.
    """
    data: DataSet = plugins.load("data", recipe.data.name)
    architecture: Architecture = plugins.load("models", recipe.model.name)
    model = architecture.build(recipe, data.shape, data.classes)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.weight is not None:
                module.weight.mul_(recipe.train.gain)
    if recipe.quantise.bits:
        whole_form(model, data.shape, seen(recipe).coding == "direct")
    return model


def rule_of(recipe: Recipe) -> LearningRule:
    """The recipe's rule with its settings.

    Raises RequestError (E_RECIPE) where a setting is not the rule's, or the recipe's loss and
    normalisation are not for it; (E_PLUGIN) where there is no such rule.
    """
    part = recipe.rule
    kind = plugins.load("rules", part.name)
    own = {field.name for field in fields(kind)}
    for field in fields(RulePart):
        if field.name != "name" and field.name not in own:
            found = getattr(part, field.name)
            if found != field.default:
                raise RequestError(
                    "E_RECIPE",
                    f"rule.{field.name} is {found}, but rule '{part.name}' has no such setting; "
                    f"its own: {', '.join(sorted(own)) or 'none'}",
                )
    rule: LearningRule = kind(**{name: getattr(part, name) for name in own})
    loss, norm = recipe.loss.form, recipe.train.norm
    if loss not in rule.trains.get(norm, ()):
        fit = " or ".join(
            f"loss.form = {form} with train.norm = {under}"
            for under, forms in rule.trains.items()
            for form in forms
        )
        raise RequestError(
            "E_RECIPE",
            f"rule '{part.name}' cannot train with loss.form = {loss} and train.norm = {norm}: "
            f"{rule.why}; expected {fit}",
        )
    return rule


def check(recipe: Recipe) -> LearningRule:
    """`rule_of`, where the settings fit each other too; nothing is built or read.

    Raises RequestError: E_RECIPE, E_PLUGIN.
    """
    rule, train, part = rule_of(recipe), recipe.train, recipe.rule
    Horizon.of(recipe)
    if recipe.quantise.bits:
        _check_whole(recipe)
    if train.patience and not recipe.data.validation:
        raise RequestError(
            "E_RECIPE",
            f"train.patience is {train.patience} with data.validation = 0; expected 0, or "
            "held-out images that say when to stop",
        )
    if train.steps % part.windows:
        raise RequestError(
            "E_RECIPE",
            f"rule.windows is {part.windows} with train.steps = {train.steps}; expected a number "
            "that divides the steps",
        )
    if part.chosen > train.steps:
        raise RequestError(
            "E_RECIPE",
            f"rule.chosen is {part.chosen} with train.steps = {train.steps}; expected no more",
        )
    if train.accumulate > train.batch:
        raise RequestError(
            "E_RECIPE",
            f"train.accumulate is {train.accumulate} with train.batch = {train.batch}; expected at "
            "most as many passes as images",
        )
    if rule.online and train.accumulate > 1:
        raise RequestError(
            "E_RECIPE",
            f"train.accumulate is {train.accumulate}, but rule '{rule.name}' updates the "
            "weights after every step; expected 1",
        )
    return rule


def _check_whole(recipe: Recipe) -> None:
    """RequestError (E_RECIPE) where whole weights are asked for that cannot be trained."""
    bits, neuron = recipe.quantise.bits, recipe.neuron
    decays = [neuron.decay if neuron.name != "if" else 0.0, neuron.synaptic_decay]
    for wrong, sentence in (
        (bits == 1, "quantise.bits is 1, which leaves a weight no sign; expected 0, or 2 to 8"),
        (
            not recipe.quantise.start,
            f"quantise.bits is {bits} without a quantise.start; train in float first, and name "
            "the folder of that run",
        ),
        (neuron.name == "relu", "neuron.name is relu with quantise.bits; expected what spikes"),
        (
            neuron.compare != "gt",
            f"neuron.compare is {neuron.compare} with quantise.bits, but a chip fires above its "
            "threshold; expected gt",
        ),
        (
            recipe.surrogate.width == "auto",
            "surrogate.width is auto with quantise.bits, but it is found before a training begins; "
            "expected the number that the start has",
        ),
        (
            recipe.train.precision != "float32",
            f"train.precision is {recipe.train.precision} with quantise.bits; expected float32",
        ),
        (
            any(decay * DECAY_UNITS != round(decay * DECAY_UNITS) for decay in decays),
            f"the neuron's decays are {decays} with quantise.bits; expected multiples of "
            f"1/{DECAY_UNITS}",
        ),
    ):
        if wrong:
            raise RequestError("E_RECIPE", sentence)
