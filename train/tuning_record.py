"""What a tuning leaves in a run: its curve and choice as data, and as a picture."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..files import write_file, write_text
from .checkpoint import RECIPE
from .distributed import place, summed
from .recipe import Recipe
from .recipe_file import to_toml
from .tuning import Trial, Tuning, tuned, with_choice

TUNING, PICTURE = "tuning.json", "tuning.png"


def resolved(recipe: Recipe, data_folder: Path | None, run: Path, device: torch.device) -> Recipe:
    """The recipe with numbers for a width that is ``auto`` and the gain that goes with it.

    The first process's choice holds for all; it leaves in the folder of the run the recipe, the
    curve and, where matplotlib is installed, its picture. Raises as `tuning.tuned` does.
    """
    if recipe.surrogate.width != "auto":
        return recipe
    # All of them measure the same: normalisation adds up over the processes.
    _, tuning = tuned(recipe, data_folder)
    found = [0.0, 0.0]
    if place().first:
        found = [tuning.chosen.width, tuning.chosen.gain]
        leave(tuning, run)
    found = summed(found, device)
    recipe = with_choice(recipe, *found)
    if place().first:
        write_text(run / RECIPE, to_toml(recipe))
    return recipe


def leave(tuning: Tuning, run: Path) -> None:
    """Write curve and choice, and their picture where matplotlib is installed."""
    write_text(run / TUNING, json.dumps(as_data(tuning), indent=2, allow_nan=False) + "\n")
    if find_spec("matplotlib") is not None:
        write_file(run / PICTURE, lambda path: draw(tuning, path))


def as_data(tuning: Tuning) -> dict[str, Any]:
    """For JSON: a growth that is infinite, or of a gradient that is lost, is None."""
    return {
        "width": tuning.chosen.width,
        "gain": tuning.chosen.gain,
        "growth": growth(tuning.chosen),
        "growth_by_default": growth(tuning.default),
        "curve": [
            {"width": trial.width, "gain": trial.gain, "growth": growth(trial)}
            for trial in tuning.trials
        ],
        "gradients": {
            name: {"width": trial.width, **dict(zip(trial.layers, trial.gradients, strict=True))}
            for name, trial in (("default", tuning.default), ("chosen", tuning.chosen))
        },
        "layers": [asdict(layer) for layer in tuning.layers],
        "warnings": tuning.warnings,
    }


def growth(trial: Trial) -> float | None:
    """The growth, where it is a number."""
    return trial.growth if math.isfinite(trial.slope) else None


def draw(tuning: Tuning, path: Path) -> None:
    """A PNG: the growth over the width, and the gradient over depth at the default and the choice.

    Needs matplotlib.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for gain in dict.fromkeys(trial.gain for trial in tuning.trials):
        curve = [trial for trial in tuning.trials if trial.gain == gain]
        shown = [trial for trial in curve if math.isfinite(trial.slope)]
        left.loglog(
            [trial.width for trial in shown], [trial.growth for trial in shown], "o-",
            label=f"gain {gain:.3g}",
        )  # fmt: skip
    left.axhline(1.0, color="0.7", lw=0.8)
    left.axvline(tuning.chosen.width, color="0.7", lw=0.8)
    left.set_xticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
    left.set_xticks([], minor=True)
    left.set_xlabel("width, in thresholds")
    left.set_ylabel("growth of the gradient per population")
    left.legend()
    for trial, name in ((tuning.default, "default"), (tuning.chosen, "chosen")):
        label = f"{name}: width {trial.width:.3g}, gain {trial.gain:.3g}"
        right.semilogy(range(1, len(trial.gradients) + 1), trial.gradients, "o-", label=label)
    low, high = right.get_ylim()
    right.set_ylim(low / 3, high * 3)
    right.set_xlabel("population, from the input to the output")
    right.set_ylabel("norm of the gradient at its currents")
    right.legend()
    figure.savefig(path, dpi=100, format="png")
