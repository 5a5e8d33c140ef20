"""Convolutions 3x3 with batch normalisation and neurons, hidden dense layers, a linear read-out."""

from __future__ import annotations

from torch import nn

from ..blocks import convolutions, dense, only, sequence
from ..recipe import Recipe


class ConvNet:
    """One population per entry of ``channels``, then one per entry of ``hidden``."""

    def build(self, recipe: Recipe, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A module for images (C, H, W) = ``shape``."""
        only(recipe, "channels", "strides", "hidden", "dropout")
        layers, features = convolutions(recipe, shape)
        first = len(recipe.model.channels) + 1
        return sequence(layers + dense(recipe, recipe.model.hidden, features, first, classes))


PLUGIN = ConvNet()
