"""The width of the surrogate at which the gradient neither grows nor shrinks with depth.

Surrogate-tuned batch normalisation: "Training Deep Spiking Neural Networks", arXiv 2006.04436. A
layer under batch normalisation multiplies the norm of the gradient by about (integral of h^2 times
the density of the membrane at the threshold, divided by the variance of a spike)^1/2, and the
integral of h^2 falls with the width: the width is what decides. Where no width will do (thresholds
far above the currents, neurons without a leak), the initial gain of the normalisation is tried too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, count, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..errors import RequestError
from .build import build, rule_of
from .coding import seen
from .examples import Batch, Batches, hold_out, stored_on
from .gradients import Activity, Lesson, activity, at_currents
from .objective import Objective
from .recipe import Recipe

DEFAULT = 1.0
"""The width of a recipe that names none."""
WIDTHS = tuple(2.0 ** (octaves / 2) for octaves in range(-4, 5))
"""What is measured, in units of the threshold."""
LEAST, MOST = 0.5, 4.0
"""Bounds of what is chosen: a narrower one sees few neurons, a wider one hardly the threshold."""
GAINS = (1.0, 2**0.5, 2.0)
"""Initial gains of batch normalisation, relative to the recipe's, in the order of trial: smaller
ones never levelled a network that larger ones did not (docs/tuning.md)."""
FLAT = 2.0
"""A factor between the gradients of the first and the last population that needs no cure."""
MOST_IMAGES = 128
"""What is measured on, however large the batches of the training."""
SILENT, SATURATED = 0.01, 0.9
"""Rates that deserve a warning."""


@dataclass(frozen=True)
class Trial:
    """``gradients``: the norm at the currents of each of ``layers``, in the order of firing."""

    width: float
    gain: float
    layers: tuple[str, ...]
    gradients: tuple[float, ...]

    @property
    def slope(self) -> float:
        """The logarithm of `growth`; infinite where the gradient is lost, or too large to tell."""
        if not all(0.0 < gradient < math.inf for gradient in self.gradients):
            return math.inf if math.inf in self.gradients else -math.inf
        depth = np.arange(len(self.gradients))
        return -float(np.polyfit(depth, np.log(self.gradients), 1)[0])

    @property
    def growth(self) -> float:
        """The factor by which the gradient grows from a population to the one before: least squares
        of its logarithm over depth."""
        return math.exp(self.slope)

    @property
    def bend(self) -> float:
        """How far apart, as a logarithm, the gradients of the first and last population are."""
        return abs(self.slope) * (len(self.gradients) - 1)


@dataclass(frozen=True)
class Tuning:
    """What was measured, and what was chosen.

    ``trials``: the curve over `WIDTHS`, for each gain that was tried; ``default`` and ``chosen``:
    at the customary width and at the choice; ``layers``: the populations at the choice.
    """

    trials: tuple[Trial, ...]
    default: Trial
    chosen: Trial
    layers: tuple[Activity, ...]

    @property
    def warnings(self) -> list[str]:
        """A sentence for the populations that hardly fire or hardly rest."""
        told = []
        for bound, names in (
            (f"less than {SILENT:.0%}", [each.name for each in self.layers if each.rate < SILENT]),
            (
                f"more than {SATURATED:.0%}",
                [each.name for each in self.layers if each.rate > SATURATED],
            ),
        ):
            if names:
                told.append(f"before training, at {bound} of all steps fire: {', '.join(names)}")
        return told


def tune(recipe: Recipe, batch: Batch) -> Tuning:
    """Measure the recipe's network, as it will be drawn, under its rule on one batch of training.

    Cheapest first: the recipe's own gain, and other gains only where with that one no width is flat
    or a population is silent. Nothing that exists is changed, the random state included. Raises
    RequestError (E_RECIPE) where the network has less than two populations to compare, and as
    `gradients.at_currents` does.
    """
    curves: list[list[Trial]] = []
    found: list[tuple[int, Trial, list[Activity]]] = []
    for gain in (recipe.train.gain * factor for factor in GAINS):
        curves.append([measure(recipe, width, gain, batch) for width in WIDTHS])
        best = measure(recipe, round(choice(curves[-1]), 3), gain, batch)
        with _drawn(recipe, best.width, gain) as model:
            layers = activity(model, batch.frames, recipe.train.steps, recipe.train.norm)
        found.append((sum(layer.rate < SILENT for layer in layers), best, layers))
        if not found[-1][0] and best.bend < math.log(FLAT):
            break
    _, chosen, layers = min(found, key=lambda each: (each[0], each[1].bend))
    default = next(trial for trial in curves[0] if trial.width == DEFAULT)
    return Tuning(tuple(chain(*curves)), default, chosen, tuple(layers))


def tuned(recipe: Recipe, data_folder: Path | None) -> tuple[Recipe, Tuning]:
    """The recipe with width and gain chosen on its first training images, and what was measured.

    Raises as `tune` and the data set's ``load`` do.
    """
    tuning = tune(recipe, next(first_batches(recipe, data_folder, MOST_IMAGES)))
    return with_choice(recipe, tuning.chosen.width, tuning.chosen.gain), tuning


def with_choice(recipe: Recipe, width: float, gain: float) -> Recipe:
    """The recipe with another width of the surrogate and initial gain."""
    return replace(
        recipe,
        surrogate=replace(recipe.surrogate, width=width),
        train=replace(recipe.train, gain=gain),
    )


def choice(curve: Sequence[Trial]) -> float:
    """The width at which the growth is 1, between two trials on a line of logarithms (the nearest
    to `DEFAULT` if there are several), within the bounds; without one, the flattest trial's."""
    widths: list[float] = []
    for left, right in pairwise(curve):
        a, b = left.slope, right.slope
        if a * b <= 0 and math.isfinite(a - b) and a != b:
            widths.append(left.width * (right.width / left.width) ** (a / (a - b)))
    if widths:
        nearest = min(widths, key=lambda width: abs(math.log(width / DEFAULT)))
        return min(max(nearest, LEAST), MOST)
    allowed = [trial for trial in curve if LEAST <= trial.width <= MOST]
    return min(allowed, key=lambda trial: trial.bend).width


@contextmanager
def _drawn(recipe: Recipe, width: float, gain: float) -> Iterator[nn.Module]:
    """The recipe's network in training, drawn as a run draws it, with another width and gain; what
    is random in the block is the same each time."""
    device = torch.device(recipe.train.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.train.seed)
        yield build(with_choice(recipe, width, gain)).to(device).train()


def measure(recipe: Recipe, width: float, gain: float, batch: Batch) -> Trial:
    """The gradients of one pass of the recipe's network with this width and gain.

    Raises RequestError (E_RECIPE) where there are less than two populations to compare.
    """
    settings = recipe.train
    if recipe.neuron.name == "relu":
        raise RequestError(
            "E_RECIPE",
            "surrogate.width is auto, but neuron.name is relu, which has no surrogate; expected a "
            "number",
        )
    lesson = Lesson(rule_of(recipe), Objective(recipe.loss), batch, settings.steps, settings.norm)
    with _drawn(recipe, width, gain) as model:
        found = at_currents(model, lesson)
    if len(found) < 2:
        raise RequestError(
            "E_RECIPE",
            f"surrogate.width is auto, but {len(found)} population of network "
            f"'{recipe.model.name}' has a gradient at its currents; expected two or more to "
            "compare, give a number",
        )
    layers, gradients = zip(*found, strict=True)
    return Trial(width, gain, layers, gradients)


def first_batches(recipe: Recipe, data_folder: Path | None, most: int) -> Iterator[Batch]:
    """Batches as the recipe's training begins with, of at most ``most`` images, without end."""
    settings, data = recipe.train, seen(recipe)
    images, labels = data.source.load(data_folder, "train", settings.steps)
    limit = settings.limit or len(images)
    kept, _ = hold_out((images[:limit], labels[:limit]), recipe.data.validation, settings.seed)
    batches = Batches(
        *stored_on(torch.device(settings.device), kept),
        data.source.scale,
        recipe.data,
        min(settings.batch, most),
        settings.seed,
        data.classes,
        steps=settings.steps,
    )
    return chain.from_iterable(batches.epoch(number) for number in count(1))
