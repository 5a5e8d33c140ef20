"""A trained network that another one learns from: its outputs are targets, as soft as they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RequestError
from .checkpoint import HISTORY, load_run
from .coding import Seen, seen
from .evaluate import outputs
from .recipe import Recipe

MEMBERS = ("shape", "classes", "scale", "coding")


@dataclass(frozen=True, eq=False)
class Teacher:
    """The module of a run folder in evaluation, and how many steps it runs."""

    model: nn.Module
    steps: int

    @staticmethod
    def of(recipe: Recipe, device: torch.device) -> Teacher:
        """The recipe's teacher.

        Raises RequestError (E_TEACHER) when it is no finished run, or does not see what the student
        sees: inputs of the same shape, scale and coding, the same number of classes and, for what
        changes in time, the same number of steps.
        """
        run = Path(recipe.loss.teacher)
        record(run)
        model, own = load_run(run)
        _compare(run, seen(own), seen(recipe))
        if seen(recipe).coding == "events" and own.train.steps != recipe.train.steps:
            raise RequestError(
                "E_TEACHER",
                f"{run}: the teacher sees {own.train.steps} frames, the student "
                f"{recipe.train.steps}; of what changes in time both must see the same",
            )
        return Teacher(model.to(device), own.train.steps)

    def __call__(self, frames: Tensor) -> Tensor:
        """Mean outputs (B, K), no graph; ``frames`` as of a learning rule."""
        return outputs(self.model, frames, self.steps).mean(0)


def record(run: Path) -> dict[str, Any]:
    """What a student's history says of its teacher: its run and its own test accuracy.

    Raises RequestError (E_TEACHER) when ``run`` is no finished run.
    """
    try:
        last = json.loads((run / HISTORY).read_text(encoding="utf-8"))["test"]["last"]
        correct, n = int(last["correct"]), int(last["n"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            "E_TEACHER",
            f"loss.teacher is '{run}', whose {HISTORY} cannot be read ({error!r}); expected the "
            "folder of a finished run",
        ) from error
    return {"run": str(run), "accuracy": correct / n, "correct": correct, "n": n}


def _compare(run: Path, teacher: Seen, student: Seen) -> None:
    for name in MEMBERS:
        theirs, ours = getattr(teacher, name), getattr(student, name)
        if theirs != ours:
            raise RequestError(
                "E_TEACHER",
                f"{run}: the teacher's {name} is {theirs} ('{teacher.name}'), the student's {ours} "
                f"('{student.name}'); expected the same",
            )
