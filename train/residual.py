"""Residual networks of published shape: a stem, stages of blocks, the mean over the image, dense.

He et al., arXiv 1512.03385, gave stages and blocks. The spiking variants put the neurons behind the
sum (`plain`, `bottleneck`: arXiv 2410.11488, 2006.04436), in front of it (`sew`: arXiv 2102.04159),
or in front of the convolutions, so that currents are summed (`pre_activation`: arXiv 2112.08954).

Where the published ImageNet nets pool the spikes behind the stem by their maximum, these sum its
currents over 2x2, in front of the normalisation that takes the factor out: a maximum of spikes is
not linear, so no rate goes through it and no Network holds it; a sum of currents folds away and
leaves the blocks with spikes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ..errors import RequestError
from .blocks import Named, convolved, dense, neurons, only, sequence
from .carried import Carried, V
from .modules import SumPool2d
from .recipe import Recipe

EXPANSION = 4
"""Channels that a bottleneck gives, in its width."""


class Block(nn.Module):
    """``after(body(x) + short(x))``."""

    def __init__(self, body: Named, short: Named, after: nn.Module) -> None:
        super().__init__()
        self.body, self.after = sequence(body), after
        self.short = sequence(short) if short else nn.Identity()

    def forward(self, x: Carried[V]) -> Carried[V]:
        """(B, C, H, W) to (B, C', H', W'), carried through time."""
        total: Carried[V] = self.after(self.body(x) + self.short(x))
        return total


Make = Callable[[Recipe, int, int, int], tuple[Block, int]]
"""A block out of the recipe, the channels it takes, its width and its stride; and the channels it
gives."""


def _short(recipe: Recipe, channels: int, count: int, stride: int) -> Named:
    """Nothing where the shape stays; else a population of the new shape."""
    if (channels, stride) == (count, 1):
        return []
    return convolved(recipe, 1, channels, count, 1, stride)


def _two(recipe: Recipe, channels: int, width: int, stride: int) -> Named:
    return convolved(recipe, 1, channels, width, 3, stride) + convolved(recipe, 2, width, width, 3)


def plain(recipe: Recipe, channels: int, width: int, stride: int) -> tuple[Block, int]:
    """Two convolutions; neurons behind the first, and on the sum of currents."""
    short = _short(recipe, channels, width, stride)[:-1]
    return Block(_two(recipe, channels, width, stride)[:-1], short, neurons(recipe)), width


def bottleneck(recipe: Recipe, channels: int, width: int, stride: int) -> tuple[Block, int]:
    """1x1, 3x3 (with the stride) and 1x1 convolutions; neurons between, and on the sum."""
    count = EXPANSION * width
    body = (
        convolved(recipe, 1, channels, width, 1)
        + convolved(recipe, 2, width, width, 3, stride)
        + convolved(recipe, 3, width, count, 1)[:-1]
    )
    short = _short(recipe, channels, count, stride)[:-1]
    return Block(body, short, neurons(recipe)), count


def sew(recipe: Recipe, channels: int, width: int, stride: int) -> tuple[Block, int]:
    """Two populations, to whose spikes those around the block are added."""
    short = _short(recipe, channels, width, stride)
    return Block(_two(recipe, channels, width, stride), short, nn.Identity()), width


def pre_activation(recipe: Recipe, channels: int, width: int, stride: int) -> tuple[Block, int]:
    """Neurons in front of each of two convolutions; currents are added to currents."""
    (conv1, bn1, neuron1), (conv2, bn2, neuron2) = (
        convolved(recipe, 1, channels, width, 3, stride),
        convolved(recipe, 2, width, width, 3),
    )
    body = [neuron1, conv1, bn1, neuron2, conv2, bn2]
    return Block(body, _short(recipe, channels, width, stride)[:-1], nn.Identity()), width


@dataclass(frozen=True)
class Residual:
    """An architecture: so many blocks a stage, each stage twice as wide as the one before.

    ``width`` and ``hidden`` are the published ones, for which ``model.width`` and ``model.hidden``
    may put others; ``stem_fires``: whether neurons stand in front of the first block.
    """

    block: Make
    blocks: tuple[int, ...]
    width: int = 64
    hidden: tuple[int, ...] = ()
    stem_fires: bool = True

    def build(self, recipe: Recipe, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A module for images (C, H, W) = ``shape``: ``conv0``, ``block1`` ... ``fc``."""
        only(recipe, "width", "stem", "hidden", "dropout")
        width = recipe.model.width or self.width
        layers = _stem(recipe, shape, width)
        if not self.stem_fires:
            layers = layers[:-1]
        channels, number = width, 0
        for stage, count in enumerate(self.blocks):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                block, channels = self.block(recipe, channels, width * 2**stage, stride)
                number += 1
                layers.append((f"block{number}", block))
        layers.append(("mean", nn.AdaptiveAvgPool2d(1)))
        hidden = recipe.model.hidden or self.hidden
        return sequence(layers + dense(recipe, hidden, channels, 1, classes))


def _stem(recipe: Recipe, shape: tuple[int, ...], width: int) -> Named:
    """cifar: 3x3; imagenet: 7x7 in strides of 2, then sums of 2x2."""
    if recipe.model.stem == "cifar":
        return convolved(recipe, 0, shape[0], width, 3)
    if min(shape[1:]) < 3:
        raise RequestError(
            "E_RECIPE",
            f"model.stem is imagenet, but the images are {shape[1]}x{shape[2]}; expected 3x3 or "
            "more, or the stem cifar",
        )
    conv, *rest = convolved(recipe, 0, shape[0], width, 7, 2)
    return [conv, ("pool0", SumPool2d(2)), *rest]
