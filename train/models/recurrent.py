"""Convolutions, then dense layers that feed themselves, and a linear read-out."""

from __future__ import annotations

from torch import nn

from ...errors import RequestError
from ..blocks import convolutions, flat, neurons, only, sequence
from ..modules import Recurrent
from ..recipe import Recipe


class RecurrentNet:
    """One population per entry of ``channels`` (there may be none), then one recurrent population
    per entry of ``hidden``; normalised are the currents that come from the layer before."""

    def build(self, recipe: Recipe, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A module for frames (C, H, W) = ``shape``; RequestError (E_RECIPE) without ``hidden``."""
        only(recipe, "channels", "strides", "hidden", "dropout")
        if not recipe.model.hidden:
            raise RequestError(
                "E_RECIPE", "model.hidden is empty, expected the width of a recurrent layer"
            )
        layers, features = convolutions(recipe, shape)
        layers += flat(recipe)
        for index, width in enumerate(recipe.model.hidden, len(recipe.model.channels) + 1):
            spiking = neurons(recipe)
            if isinstance(spiking, nn.ReLU):
                raise RequestError(
                    "E_RECIPE",
                    "neuron.name is relu, but the layers of model 'recurrent' feed themselves "
                    "through time; expected neurons that spike",
                )
            layers += [
                (f"fc{index}", nn.Linear(features, width, bias=False)),
                (f"bn{index}", nn.BatchNorm1d(width)),
                (f"rec{index}", Recurrent(spiking, nn.Linear(width, width))),
            ]
            features = width
        return sequence([*layers, ("fc", nn.Linear(features, classes))])


PLUGIN = RecurrentNet()
