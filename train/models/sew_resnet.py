"""A residual net of chosen size: blocks that add spikes to spikes, dense layers, a linear read-out.

Fang et al., "Deep Residual Learning in Spiking Neural Networks", arXiv 2102.04159 (ADD).
"""

from __future__ import annotations

from torch import nn

from ..blocks import Named, convolved, dense, only, sequence
from ..recipe import Recipe
from ..residual import sew


class SEWResNet:
    """A population for the first entry of ``channels``, a block for each further one."""

    def build(self, recipe: Recipe, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A module for images (C, H, W) = ``shape``; strides shrink them, nothing is pooled."""
        only(recipe, "channels", "strides", "hidden", "dropout")
        channels, height, width = shape
        layers: Named = []
        plan = zip(recipe.model.channels, recipe.model.strides, strict=True)
        for index, (count, stride) in enumerate(plan, 1):
            if index == 1:
                layers += convolved(recipe, 1, channels, count, 3, stride)
                channels = count
            else:
                block, channels = sew(recipe, channels, count, stride)
                layers.append((f"block{index}", block))
            height, width = -(-height // stride), -(-width // stride)
        first = len(recipe.model.channels) + 1
        features = channels * height * width
        return sequence(layers + dense(recipe, recipe.model.hidden, features, first, classes))


PLUGIN = SEWResNet()
