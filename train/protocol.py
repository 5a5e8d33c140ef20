"""What a learning rule, a surrogate, a loss and an architecture are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from .recipe import LossForm, NormForm

if TYPE_CHECKING:
    from .recipe import Recipe
    from .spiking import Population

Watch = Callable[["Population", Tensor], None]
"""Called with a neuron module and its spikes (n, B, ...), or what stands for them: rates, each the
mean of as many steps. In training they carry a graph."""


@dataclass(frozen=True, eq=False)
class Part:
    """Outputs (n, B, K) with a graph: of n steps, or n means of equally many.

    ``share``: the share of all steps that they cover.
    """

    outputs: Tensor
    share: float = 1.0

    @property
    def mean(self) -> Tensor:
        """(B, K)."""
        return self.outputs.mean(0)


class LearningRule(Protocol):
    """How a forward pass through a spiking module becomes gradients.

    A plug-in is a dataclass of its settings, each a field of the recipe's section ``rule``.
    ``trains`` holds the losses it may train with under each form of batch normalisation.
    """

    name: str
    trains: Mapping[NormForm, tuple[LossForm, ...]]
    why: str
    """Why not with the others: a clause that follows "rule ... cannot train so: "."""
    online: bool
    """Whether the optimiser may step after every part."""

    def __call__(
        self,
        model: nn.Module,
        frames: Tensor,
        steps: int,
        norm: NormForm = "joint",
        watch: Watch | None = None,
    ) -> Iterator[Part]:
        """One or more parts; go backward from each before the next is asked for.

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
        """1 / peak, in the membrane's units."""
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
