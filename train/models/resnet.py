"""Residual blocks that add spikes to spikes, hidden dense layers, a linear read-out.

Fang et al., "Deep Residual Learning in Spiking Neural Networks", arXiv 2102.04159 (SEW-ADD).
"""

from __future__ import annotations

from torch import nn

from ..blocks import Named, dense, population, sequence
from ..carried import Carried, V
from ..recipe import Recipe


class Block(nn.Module):
    """Two populations on x, and x added to their spikes; where the shape changes, the spikes of a
    population on x in its place."""

    def __init__(self, recipe: Recipe, channels: int, count: int, stride: int) -> None:
        super().__init__()
        first = nn.Conv2d(channels, count, 3, stride, padding=1, bias=False)
        second = nn.Conv2d(count, count, 3, padding=1, bias=False)
        self.body = sequence(
            population(recipe, 1, "conv", first, nn.BatchNorm2d(count))
            + population(recipe, 2, "conv", second, nn.BatchNorm2d(count))
        )
        self.short: nn.Module = nn.Identity()
        if (channels, stride) != (count, 1):
            short = nn.Conv2d(channels, count, 1, stride, bias=False)
            self.short = sequence(population(recipe, 1, "conv", short, nn.BatchNorm2d(count)))

    def forward(self, x: Carried[V]) -> Carried[V]:
        """Sums of spikes (B, C, H, W) to sums of spikes, carried through time."""
        total: Carried[V] = self.body(x) + self.short(x)
        return total


class ResNet:
    """A population for the first entry of ``channels``, a block for each further one."""

    def build(self, recipe: Recipe, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A module for images (C, H, W) = ``shape``; strides shrink them, nothing is pooled."""
        channels, height, width = shape
        layers: Named = []
        plan = zip(recipe.model.channels, recipe.model.strides, strict=True)
        for index, (count, stride) in enumerate(plan, 1):
            if index == 1:
                conv = nn.Conv2d(channels, count, 3, stride, padding=1, bias=False)
                layers += population(recipe, 1, "conv", conv, nn.BatchNorm2d(count))
            else:
                layers.append((f"block{index}", Block(recipe, channels, count, stride)))
            channels, height, width = count, -(-height // stride), -(-width // stride)
        next_index = len(recipe.model.channels) + 1
        return sequence(layers + dense(recipe, channels * height * width, next_index, classes))


PLUGIN = ResNet()
