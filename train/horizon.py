"""How many steps of a batch are passed: all of them, or a number drawn for each batch.

A network that learned at every T answers well after few steps too. Recordings and coded images are
cut to their first frames: what is looked at is what an early answer will have seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..errors import RequestError
from .recipe import Recipe


@dataclass(frozen=True)
class Horizon:
    """T of every update, the same in all processes and after an interruption."""

    steps: int
    drawn: bool
    seed: int

    @staticmethod
    def of(recipe: Recipe) -> Horizon:
        """As the recipe says.

        Raises RequestError (E_RECIPE) where a rule's setting asks for a number of steps of its own.
        """
        train, rule = recipe.train, recipe.rule
        for name in ("windows", "chosen"):
            found = getattr(rule, name)
            if train.draw_steps and found != 1:
                raise RequestError(
                    "E_RECIPE",
                    f"rule.{name} is {found} with train.draw_steps, which draws T = 1 too; "
                    "expected 1",
                )
        return Horizon(train.steps, train.draw_steps, train.seed)

    def at(self, update: int) -> int:
        """T of an update, counted from 0: uniform from 1 to ``steps`` where it is drawn."""
        if not self.drawn:
            return self.steps
        draw = np.random.default_rng((self.seed, update))
        return int(draw.integers(1, self.steps, endpoint=True))


def first(frames: Tensor, steps: int) -> Tensor:
    """Frames (B, ...), or the first ``steps`` of (T, B, ...)."""
    return frames[:steps] if frames.dim() in (3, 5) else frames
