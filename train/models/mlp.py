"""Dense layers with batch normalisation and neurons, and a linear read-out."""

from __future__ import annotations

import math

from torch import nn

from ..blocks import dense, sequence
from ..recipe import Recipe


class MLP:
    """One population per entry of ``hidden``."""

    def build(self, recipe: Recipe, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A module for inputs of ``shape``, flattened."""
        return sequence(dense(recipe, math.prod(shape), 1, classes))


PLUGIN = MLP()
