"""Whether a learning rule points where backpropagation through time does, before a long training.

At initialisation the gradient of an approximate rule falls away from the exact one with depth and
comes back in the first steps of training: so a few steps are trained first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .. import plugins
from ..errors import RequestError
from .build import build, check, rule_of
from .examples import Batch
from .gradients import Lesson, of_weights
from .machine import device_of
from .modules import neurons
from .objective import Objective
from .optimise import course, optimiser
from .protocol import LearningRule
from .recipe import Recipe, RulePart
from .state import State
from .tuning import MOST_IMAGES, Trial, Tuning, first_batches, measure, tune, tuned
from .tuning_record import as_data as tuning_data
from .tuning_record import growth
from .update import Updates, cut

UPDATES = 50
"""Before the comparison."""
LEAST = {2: 0.87, 9: 0.83, 17: 0.68}
"""Populations to the mean cosine of `rate` below which training suffered and above which it did
not: halfway between the cases seen (docs/preflight.md)."""
STEEP = 10.0
"""A factor between the gradients of the first and the last population worth a word."""
RIVALS = (RulePart("rate"), RulePart("rate", windows=2), RulePart("sltt"), RulePart("ottt"))
"""What is compared besides the recipe's own, where its loss and normalisation allow."""


def practise(
    model: nn.Module, recipe: Recipe, rule: LearningRule, batches: Iterable[Batch], updates: int
) -> None:
    """Train ``model`` in place on so many batches; the learning rate rises over the first fifth of
    ``updates`` and is constant from there on."""
    settings = replace(recipe.train, schedule="constant", warmup=0.2)
    optimizer = optimiser(model, settings)
    state = State(model, optimizer, course(optimizer, settings, updates))
    update = Updates(recipe, rule, Objective.of(recipe, model))
    model.train()
    for batch in islice(batches, updates):
        update(state, batch)


def cosines(model: nn.Module, recipe: Recipe, rule: LearningRule, batch: Batch) -> dict[str, float]:
    """The cosine of a rule's gradient to that of backpropagation through time, for the weight of
    every linear map: same weights, same batch, same loss and normalisation."""
    settings = recipe.train
    # A budget's price moves all the while: the comparison is of what is to be learned.
    objective = Objective.of(replace(recipe, loss=replace(recipe.loss, max_synops=0.0)), model)

    def learned(by: LearningRule) -> dict[str, torch.Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)  # the same masks of a dropout
            return of_weights(model, Lesson(by, objective, batch, settings.steps, settings.norm))

    exact, found = learned(plugins.load("rules", "bptt_recompute")()), learned(rule)
    return {
        name.removesuffix(".weight"): float(
            F.cosine_similarity(found[name].double().flatten(), gradient.double().flatten(), dim=0)
        )
        for name, gradient in exact.items()
    }


@dataclass(frozen=True)
class Preflight:
    """What was seen of a recipe's rule.

    ``cosines``: of its gradient to the exact one after ``updates``, for the weight of every linear
    map, in the order of registration; ``rivals``: their mean for other rules at the same weights;
    ``populations``: how many there are; ``level``: the gradient over depth before training, at the
    recipe's width, and ``tuning``: at others; both None for less than two populations.
    """

    rule: str
    updates: int
    cosines: Mapping[str, float]
    rivals: Mapping[str, float]
    populations: int
    level: Trial | None
    tuning: Tuning | None

    @property
    def mean(self) -> float:
        """Over the linear maps."""
        return sum(self.cosines.values()) / len(self.cosines)

    @property
    def table(self) -> list[str]:
        """A line for each linear map, and one for each rival."""
        lines = [f"{'layer':20} cosine to bptt"]
        for name, cosine in self.cosines.items():
            lines.append(f"{name:20} {cosine:6.3f}  {'near' if cosine >= self.least else 'far'}")
        lines.append(f"{'mean':20} {self.mean:6.3f}  {'near' if self.near else 'far'}")
        lines += [
            f"mean of rule {name} at the same weights: {cosine:.3f}"
            for name, cosine in self.rivals.items()
        ]
        return lines

    @property
    def least(self) -> float:
        """What the mean should reach in a network of this depth."""
        return float(np.interp(self.populations, list(LEAST), list(LEAST.values())))

    @property
    def near(self) -> bool:
        """Whether training may be expected to go as with the exact gradient."""
        return self.mean >= self.least

    @property
    def advice(self) -> list[str]:
        """A sentence on the rule, one on the width where the gradient grows or shrinks, and the
        warnings of the tuning."""
        seen = (
            f"after {self.updates} updates the gradient of rule '{self.rule}' has a mean cosine of "
            f"{self.mean:.3f} to that of backpropagation through time"
        )
        bound = f"{self.least:.2f} at a depth of {self.populations}"
        if not self.rule.startswith("rate"):
            bound += " (measured for rule 'rate')"
        if self.near:
            told = [f"{seen}; {bound} is enough"]
        else:
            near = [
                f"{name} ({cosine:.3f})"
                for name, cosine in self.rivals.items()
                if cosine >= self.least
            ]
            exact = "bptt_recompute, which is exact and costs a third more work than bptt"
            told = [
                f"{seen}, less than {bound}: another rule would serve better: "
                f"{', or '.join([*near, exact])}"
            ]
        if self.level is None or self.tuning is None:
            return told
        if self.level.bend > math.log(STEEP):
            told.append(
                f"at surrogate.width = {self.level.width:g} the gradient changes by a factor of "
                f"{self.level.growth:.2f} from a population to the one before, "
                f"{math.exp(self.level.bend):.2g} over all; at {self.tuning.chosen.width:g}, the "
                f"choice of surrogate.width = auto, by {self.tuning.chosen.growth:.2f}"
            )
        return told + self.tuning.warnings


def as_data(seen: Preflight) -> dict[str, Any]:
    """For JSON."""
    return {
        "rule": seen.rule,
        "updates": seen.updates,
        "cosines": dict(seen.cosines),
        "mean": seen.mean,
        "least": seen.least,
        "near": seen.near,
        "rivals": dict(seen.rivals),
        "growth": None if seen.level is None else growth(seen.level),
        "tuning": None if seen.tuning is None else tuning_data(seen.tuning),
        "advice": seen.advice,
    }


def preflight(recipe: Recipe, data_folder: Path | None, updates: int = UPDATES) -> Preflight:
    """Train a copy for ``updates`` with the recipe's rule, and hold its gradient against the exact.

    Leaves nothing behind, the random state included. Raises as `rule_of`, `tuning.tune` and the
    data set's ``load`` do.
    """
    device = device_of(recipe.train.device)
    if recipe.quantise.bits:
        raise RequestError(
            "E_RECIPE",
            f"quantise.bits is {recipe.quantise.bits}: a preflight looks at a network before "
            "training, this one begins with a trained one; look at the recipe of its start",
        )
    if recipe.neuron.name == "relu":
        raise RequestError(
            "E_RECIPE",
            "neuron.name is relu: without spikes every rule's gradient is the exact one; expected "
            "a spiking neuron",
        )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        recipe, level, tuning = _levelled(recipe, data_folder)
        torch.manual_seed(recipe.train.seed)
        model, rule = build(recipe).to(device), check(recipe)
        batches = first_batches(recipe, data_folder, recipe.train.batch)
        practise(model, recipe, rule, batches, updates)
        batch = next(cut(next(batches), recipe.train.accumulate))
        return Preflight(
            rule.name,
            updates,
            cosines(model, recipe, rule, batch),
            _rivals(model, recipe, batch),
            len(neurons(model)),
            level,
            tuning,
        )


def _levelled(
    recipe: Recipe, data_folder: Path | None
) -> tuple[Recipe, Trial | None, Tuning | None]:
    """The recipe with a width, the trial at it, and the tuning."""
    width = recipe.surrogate.width
    if width == "auto":
        recipe, tuning = tuned(recipe, data_folder)
        return recipe, tuning.chosen, tuning
    if len(neurons(build(recipe))) < 2:
        return recipe, None, None
    batch = next(first_batches(recipe, data_folder, MOST_IMAGES))
    return recipe, measure(recipe, width, recipe.train.gain, batch), tune(recipe, batch)


def _rivals(model: nn.Module, recipe: Recipe, batch: Batch) -> dict[str, float]:
    found = {}
    for part in RIVALS:
        if part == recipe.rule:
            continue
        try:
            rival = cosines(model, recipe, rule_of(replace(recipe, rule=part)), batch)
        except RequestError:  # it cannot train this network, or not so
            continue
        name = part.name if part.windows == 1 else f"{part.name} with rule.windows = {part.windows}"
        found[name] = sum(rival.values()) / len(rival)
    return found
