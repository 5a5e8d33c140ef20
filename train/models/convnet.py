"""Convolutions 3x3 with batch normalisation and neurons, hidden dense layers, a linear read-out."""

from __future__ import annotations

from torch import nn

from ..blocks import Named, dense, population, sequence
from ..recipe import Recipe


class ConvNet:
    """One population per entry of ``channels``; strides shrink the image, nothing is pooled."""

    def build(self, recipe: Recipe, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A module for images (C, H, W) = ``shape``."""
        channels, height, width = shape
        layers: Named = []
        plan = zip(recipe.model.channels, recipe.model.strides, strict=True)
        for index, (count, stride) in enumerate(plan, 1):
            conv = nn.Conv2d(channels, count, 3, stride, padding=1, bias=False)
            layers += population(recipe, index, "conv", conv, nn.BatchNorm2d(count))
            channels, height, width = count, -(-height // stride), -(-width // stride)
        next_index = len(recipe.model.channels) + 1
        return sequence(layers + dense(recipe, channels * height * width, next_index, classes))


PLUGIN = ConvNet()
