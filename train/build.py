"""What a recipe names, made: its network and its learning rule."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import plugins
from ..errors import RequestError
from .dataset import DataSet
from .horizon import Horizon
from .protocol import Architecture, LearningRule
from .recipe import Recipe, RulePart


def build(recipe: Recipe) -> nn.Module:
    """The recipe's architecture, freshly drawn, sized for the recipe's data set."""
    data: DataSet = plugins.load("data", recipe.data.name)
    architecture: Architecture = plugins.load("models", recipe.model.name)
    model = architecture.build(recipe, data.shape, data.classes)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.weight is not None:
                module.weight.mul_(recipe.train.gain)
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
