"""What a finished training says of itself beside its accuracy: precision, teacher, operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from .coding import Seen
from .dataset import Stored
from .energy import Energy
from .precision import in_words
from .recipe import Recipe
from .teacher import record


def account(recipe: Recipe, model: nn.Module, data: Seen, test: Stored) -> dict[str, Any]:
    """For the history. Synaptic operations stand there beside the budget, where there was one."""
    facts: dict[str, Any] = {"precision": in_words(recipe.train)}
    if recipe.loss.teacher:
        facts["teacher"] = record(Path(recipe.loss.teacher))
    if recipe.loss.max_synops:
        energy = Energy.of(model, data, recipe.train.steps)
        spent = energy.of_images(model, test, data.scale)
        facts["synops"] = {
            "per_inference": int(spent.sum()) / len(test),
            "budget": recipe.loss.max_synops,
            "n": len(test),
        }
    return facts
