"""One recipe trained from several seeds; rules compared in pairs that share seed and data order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ..errors import RequestError
from ..files import write_text
from ..runs import unfinished
from .build import check
from .checkpoint import HISTORY, RECIPE
from .distributed import joined, place, summed
from .machine import device_of
from .recipe import Recipe
from .recipe_file import read_recipe
from .run import train_run, usable
from .state import same_recipe

SERIES = "seeds.json"
INTERVAL, EQUIVALENCE = 0.95, 0.90
"""Of a mean; of a paired difference: inside the margin, its 90 % interval shows equivalence at the
5 % level (two one-sided tests, Schuirmann, J. Pharmacokin. Biopharm. 15 (1987) 657)."""

Told = Callable[[str], None]


@dataclass(frozen=True)
class Spread:
    """What n measurements say of their mean: the interval is mean +- ``half_width``, by Student's
    t; ``deviation`` is of the sample, with the divisor n - 1."""

    n: int
    mean: float
    deviation: float
    level: float
    half_width: float


def spread(values: Sequence[float], level: float) -> Spread:
    """Of two or more values."""
    n = len(values)
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * deviation / n**0.5
    return Spread(n, mean, deviation, level, half)


def by_rules(recipe: Recipe, rules: Sequence[str]) -> dict[str, Recipe]:
    """The recipe under each rule; RequestError (E_RECIPE) where one cannot train with it."""
    variants = {
        name: replace(recipe, rule=replace(recipe.rule, name=name))
        for name in rules or [recipe.rule.name]
    }
    for variant in variants.values():
        check(variant)
    return variants


def train_series(
    variants: Mapping[str, Recipe],
    count: int,
    data_folder: Path | None,
    out: Path,
    told: Told,
) -> dict[str, Any]:
    """Train each variant from ``count`` seeds, ``train.seed`` the first; accuracies are those of
    the last epoch on the test images, 0 to 1.

    A run lies in ``out/seed-<n>``, of several variants in ``out/<variant>/seed-<n>``. What has
    finished there is not trained again, what has not goes on. Leaves ``out/seeds.json`` and returns
    it. Raises as `train_run`, and RequestError (E_RUN) where ``out`` is a run itself.
    """
    with usable(out):
        is_run = (out / RECIPE).is_file()
    if is_run:
        raise RequestError("E_RUN", f"{out} is a run; name a folder for the runs of all seeds")
    first = next(iter(variants.values()))
    seeds = range(first.train.seed, first.train.seed + count)
    if seeds[-1] >= 2**32:
        raise RequestError(
            "E_RECIPE",
            f"train.seed is {seeds[0]} and {count} seeds follow on it; expected them to end below "
            f"{2**32}",
        )
    accuracies: dict[str, list[float]] = {name: [] for name in variants}
    with joined(device_of(first.train.device)):
        for seed in seeds:
            for name, recipe in variants.items():
                run = out / name / f"seed-{seed}" if len(variants) > 1 else out / f"seed-{seed}"
                own = replace(recipe, train=replace(recipe.train, seed=seed))
                accuracies[name].append(_accuracy(own, data_folder, run))
                told(f"{run}: {100 * accuracies[name][-1]:.2f} %")
        document = _document(accuracies, list(seeds))
        if place().first:
            write_text(out / SERIES, json.dumps(document, indent=2) + "\n")
    return document


def _accuracy(recipe: Recipe, data_folder: Path | None, run: Path) -> float:
    """Of a finished run, or of one that is trained now."""
    done = place().first and (run / RECIPE).is_file() and not unfinished(run)
    found = 0.0
    if done:
        same_recipe(recipe, asdict(read_recipe(run / RECIPE)), run)
        found = _measured(run)
    device = device_of(recipe.train.device)
    # The first process looks, so that all do the same.
    is_done, accuracy, goes_on = summed([done, found, place().first and unfinished(run)], device)
    if is_done:
        return accuracy
    facts = train_run(recipe, data_folder, run, resume=bool(goes_on))
    return float(facts["test"]["last"]["accuracy"])


def _measured(run: Path) -> float:
    """The accuracy that a finished run's history tells; RequestError (E_RUN) where it does not."""
    path = run / HISTORY
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return float(facts["test"]["last"]["accuracy"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            "E_RUN",
            f"{path}: not the history of a finished run ({error!r}); remove {run}, and the same "
            "command trains it again",
        ) from error


def _document(accuracies: Mapping[str, list[float]], seeds: list[int]) -> dict[str, Any]:
    reference, *others = accuracies
    differences = {
        f"{reference} - {other}": asdict(
            spread(np.subtract(accuracies[reference], accuracies[other]).tolist(), EQUIVALENCE)
        )
        for other in others
    }
    return {
        "seeds": seeds,
        "variants": {
            name: {"accuracies": values, **asdict(spread(values, INTERVAL))}
            for name, values in accuracies.items()
        },
        "differences": differences,
    }
