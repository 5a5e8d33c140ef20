"""What a learning rule, a surrogate and an architecture are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    from .recipe import Recipe

Loss = Literal["mean_output"]
"""What a loss may look at: the output averaged over time, (B, K)."""


class LearningRule(Protocol):
    """How a forward pass through a spiking module becomes gradients.

    ``losses`` are the losses it may train with.
    """

    name: str
    losses: tuple[Loss, ...]

    def __call__(self, model: nn.Module, frames: Tensor, steps: int) -> Tensor:
        """Mean output over time (B, K), with a graph to the parameters.

        ``frames``: (B, F) or (B, C, H, W), shown at every step, or the same with T in front.
        """
        ...


class Surrogate(Protocol):
    """What stands for the derivative of a spike: unit area, peak 1 / width at the threshold.

    A plug-in is a callable that takes the width and gives one.
    """

    @property
    def name(self) -> str:
        """The plug-in's name."""
        ...

    @property
    def width(self) -> float:
        """1 / peak, in units of the threshold."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """h(x), elementwise; x = membrane before the decision minus threshold."""
        ...


class Architecture(Protocol):
    """A network architecture that a recipe can name."""

    def build(self, recipe: Recipe, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A module for inputs of ``shape`` (C, H, W); its children's names become layer names.

        Raises RequestError (E_RECIPE) when the recipe's sizes do not fit.
        """
        ...
