"""What a module does in evaluation: outputs per step, spikes, accuracy. No gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import RequestError
from .dataset import Lazy
from .distributed import place, summed
from .examples import in_order
from .frames import in_time, scaled, through
from .precision import true_float32
from .protocol import Watch
from .rules.bptt import Unrolled


@torch.no_grad()
def outputs(model: nn.Module, frames: Tensor, steps: int, watch: Watch | None = None) -> Tensor:
    """Outputs per step (T, B, K) of a module in evaluation; ``watch`` sees every population.

    ``frames``: as of a learning rule. Raises RequestError (E_MODEL) when the module is training.
    """
    if model.training:
        raise RequestError("E_MODEL", "the module is in training mode; call model.eval() first")
    with true_float32():
        value = through(model, in_time(frames, steps), Unrolled(steps, watch))
    return value.expand(steps, *value.shape[1:])


@dataclass(frozen=True)
class Score:
    """How many of ``n`` samples were classified as labelled."""

    correct: int
    n: int

    @property
    def accuracy(self) -> float:
        """The share, 0 to 1."""
        return self.correct / self.n


def score(
    model: nn.Module,
    images: Tensor | Lazy,
    labels: Tensor,
    scale: float,
    steps: int,
    batch: int = 500,
) -> Score:
    """Classify stored images (N, C, H, W) or recordings (N, T, C, H, W) by the largest sum of
    outputs over ``steps``."""
    correct = 0
    for stored, expected in in_order(images, labels, batch):
        frames = scaled(stored, scale)
        # Sums in float64, as network.trace.predictions: a tie of rounded sums decides nothing.
        total = outputs(model, frames, steps).double().sum(0)
        correct += int((total.argmax(1) == expected).sum())
    return Score(correct, len(images))


def score_together(
    model: nn.Module, images: Tensor | Lazy, labels: Tensor, scale: float, steps: int
) -> Score:
    """As `score`, each process on its share of the images; all are told of all."""
    here = place()
    own = slice(here.rank, None, here.world)
    found = score(model, images[own], labels[own], scale, steps)
    return Score(int(summed([found.correct], labels.device)[0]), len(labels))
