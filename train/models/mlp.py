"""Dense layers with batch normalisation and neurons, and a linear read-out."""

from __future__ import annotations

import math

from torch import nn

from ..blocks import dense, only, sequence
from ..recipe import Recipe


class MLP:
    """One population per entry of ``hidden``."""

    def build(self, recipe: Recipe, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A module for inputs of ``shape``, flattened."""
        only(recipe, "hidden", "dropout")
        return sequence(dense(recipe, recipe.model.hidden, math.prod(shape), 1, classes))


PLUGIN = MLP()
