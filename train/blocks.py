"""The pieces the architectures are made of, named as the layers they become."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from .. import plugins
from .modules import IF, LIF
from .recipe import Recipe

Named = list[tuple[str, nn.Module]]


def neurons(recipe: Recipe) -> LIF | IF:
    """The recipe's neuron with the recipe's surrogate."""
    neuron = recipe.neuron
    surrogate = plugins.load("surrogates", recipe.surrogate.name)(recipe.surrogate.width)
    rest = (neuron.threshold, neuron.reset, neuron.compare, neuron.detach_reset, surrogate)
    return LIF(neuron.decay, *rest) if neuron.name == "lif" else IF(*rest)


def population(recipe: Recipe, index: int, kind: str, linear: nn.Module, norm: nn.Module) -> Named:
    """A linear map, its normalisation and the neurons: ``conv1``, ``bn1``, ``lif1``."""
    return [
        (f"{kind}{index}", linear),
        (f"bn{index}", norm),
        (f"{recipe.neuron.name}{index}", neurons(recipe)),
    ]


def convolutions(recipe: Recipe, shape: tuple[int, ...]) -> tuple[Named, int]:
    """The populations of ``channels`` and ``strides`` on images (C, H, W) = ``shape``, and how many
    values they leave; strides shrink the image, nothing is pooled."""
    channels, height, width = shape
    layers: Named = []
    plan = zip(recipe.model.channels, recipe.model.strides, strict=True)
    for index, (count, stride) in enumerate(plan, 1):
        conv = nn.Conv2d(channels, count, 3, stride, padding=1, bias=False)
        layers += population(recipe, index, "conv", conv, nn.BatchNorm2d(count))
        channels, height, width = count, -(-height // stride), -(-width // stride)
    return layers, channels * height * width


def dense(recipe: Recipe, features: int, first: int, classes: int) -> Named:
    """``flatten``, the hidden populations from number ``first`` on, and the read-out ``fc``."""
    layers: Named = [("flatten", nn.Flatten())]
    for index, width in enumerate(recipe.model.hidden, first):
        linear = nn.Linear(features, width, bias=False)
        layers += population(recipe, index, "fc", linear, nn.BatchNorm1d(width))
        features = width
    return [*layers, ("fc", nn.Linear(features, classes))]


def sequence(layers: Sequence[tuple[str, nn.Module]]) -> nn.Sequential:
    """One after the other, under their names."""
    return nn.Sequential(OrderedDict(layers))
