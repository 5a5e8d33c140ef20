"""Convolutional networks after VGG: 3x3 convolutions between average pools, then dense layers.

Simonyan and Zisserman, arXiv 1409.1556; the spiking ones of arXiv 2410.11488 and 2202.11946 pool by
the mean, which is linear: a rate goes through it, and a Network holds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from ..errors import RequestError
from .blocks import Named, convolved, dense, only, sequence
from .recipe import Recipe

PUBLISHED_WIDTH = 64
Entry = int | Literal["pool", "mean"]


@dataclass(frozen=True)
class VGG:
    """An architecture: ``plan`` holds the channels of a population, "pool" for the mean over 2x2
    (a last odd row or column is left out), "mean" for that over the image.

    ``model.width`` puts other channels for the first population's, and scales all by it.
    """

    plan: tuple[Entry, ...]

    def build(self, recipe: Recipe, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A module for images (C, H, W) = ``shape``; RequestError (E_RECIPE) for too small ones."""
        only(recipe, "width", "hidden", "dropout")
        channels, height, width = shape
        layers: Named = []
        index = 0
        for entry in self.plan:
            match entry:
                case "pool":
                    height, width = height // 2, width // 2
                    layers.append((f"pool{index}", nn.AvgPool2d(2)))
                case "mean":
                    layers.append(("mean", nn.AdaptiveAvgPool2d(1)))
                    height, width = min(height, 1), min(width, 1)
                case count:
                    index += 1
                    wide = count * (recipe.model.width or PUBLISHED_WIDTH) // PUBLISHED_WIDTH
                    layers += convolved(recipe, index, channels, wide, 3)
                    channels = wide
        if 0 in (height, width):
            halved = self.plan.count("pool")
            raise RequestError(
                "E_RECIPE",
                f"model '{recipe.model.name}' halves images {halved} times, and those of the data "
                f"set are {shape[1]}x{shape[2]}; expected {2**halved}x{2**halved} or more",
            )
        features = channels * height * width
        return sequence(layers + dense(recipe, recipe.model.hidden, features, index + 1, classes))
