"""The pieces the architectures are made of, named as the layers they become."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import fields

from torch import nn

from .. import plugins
from ..errors import RequestError
from .modules import IF, LIF, CubaLIF
from .recipe import ModelPart, Recipe

Named = list[tuple[str, nn.Module]]


def only(recipe: Recipe, *settings: str) -> None:
    """Refuse a setting of the model that its architecture has no use for: RequestError (E_RECIPE).

    ``settings``: the fields of `ModelPart` that it has.
    """
    for field in fields(ModelPart):
        found = getattr(recipe.model, field.name)
        if field.name not in ("name", *settings) and found != field.default:
            shown = list(found) if isinstance(found, tuple) else found
            raise RequestError(
                "E_RECIPE",
                f"model.{field.name} is {shown}, but model '{recipe.model.name}' has no such "
                f"setting; its own: {', '.join(settings)}",
            )


def neurons(recipe: Recipe) -> LIF | IF | CubaLIF | nn.ReLU:
    """The recipe's neuron with the recipe's surrogate, or what stands in its place in an ANN.

    Raises RequestError (E_RECIPE) where it has no decay to learn, or an ANN more than one step.
    """
    neuron = recipe.neuron
    if neuron.name == "relu":
        if recipe.train.steps != 1:
            raise RequestError(
                "E_RECIPE",
                f"neuron.name is relu with train.steps = {recipe.train.steps}; an ANN has no time, "
                "expected 1",
            )
        return nn.ReLU()
    width = recipe.surrogate.width
    if width == "auto":
        raise RequestError(
            "E_RECIPE", "surrogate.width is auto; a network is built once it was chosen (tuning)"
        )
    surrogate = plugins.load("surrogates", recipe.surrogate.name)(width * neuron.threshold)
    rest = (neuron.threshold, neuron.reset, neuron.compare, neuron.detach_reset, surrogate)
    match neuron.name:
        case "lif":
            return LIF(neuron.decay, *rest, neuron.learn_decay)
        case "cuba_lif":
            return CubaLIF(neuron.synaptic_decay, neuron.decay, *rest, neuron.learn_decay)
        case "if":
            if neuron.learn_decay:
                raise RequestError(
                    "E_RECIPE", "neuron.learn_decay is true, but neuron 'if' has no decay to learn"
                )
            return IF(*rest)


def population(recipe: Recipe, index: int, kind: str, linear: nn.Module, norm: nn.Module) -> Named:
    """A linear map, its normalisation and the neurons: ``conv1``, ``bn1``, ``lif1``."""
    return [
        (f"{kind}{index}", linear),
        (f"bn{index}", norm),
        (f"{recipe.neuron.name}{index}", neurons(recipe)),
    ]


def convolved(
    recipe: Recipe, index: int, channels: int, count: int, kernel: int, stride: int = 1
) -> Named:
    """A population behind a square convolution that keeps the size of an image, or divides it by
    its stride: ``conv1``, ``bn1``, ``lif1``."""
    conv = nn.Conv2d(channels, count, kernel, stride, padding=kernel // 2, bias=False)
    return population(recipe, index, "conv", conv, nn.BatchNorm2d(count))


def convolutions(recipe: Recipe, shape: tuple[int, ...]) -> tuple[Named, int]:
    """The populations of ``channels`` and ``strides`` on images (C, H, W) = ``shape``, and how many
    values they leave; strides shrink the image, nothing is pooled."""
    channels, height, width = shape
    layers: Named = []
    plan = zip(recipe.model.channels, recipe.model.strides, strict=True)
    for index, (count, stride) in enumerate(plan, 1):
        layers += convolved(recipe, index, channels, count, 3, stride)
        channels, height, width = count, -(-height // stride), -(-width // stride)
    return layers, channels * height * width


def flat(recipe: Recipe) -> Named:
    """``flatten``, and the recipe's ``dropout``: the same values are silenced at every step."""
    layers: Named = [("flatten", nn.Flatten())]
    if recipe.model.dropout:
        layers.append(("dropout", nn.Dropout(recipe.model.dropout)))
    return layers


def dense(recipe: Recipe, hidden: Sequence[int], features: int, first: int, classes: int) -> Named:
    """`flat`, the ``hidden`` populations from number ``first`` on, and the read-out ``fc``."""
    layers = flat(recipe)
    for index, width in enumerate(hidden, first):
        linear = nn.Linear(features, width, bias=False)
        layers += population(recipe, index, "fc", linear, nn.BatchNorm1d(width))
        features = width
    return [*layers, ("fc", nn.Linear(features, classes))]


def sequence(layers: Sequence[tuple[str, nn.Module]]) -> nn.Sequential:
    """One after the other, under their names."""
    return nn.Sequential(OrderedDict(layers))
