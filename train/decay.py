"""Decays that are learned: one number per layer, on the grid that every target can hold.

What is trained is what is exported: multiples of 1/4096 are exact in float32 and are Loihi's
12-bit decays, so nothing is left to be rounded.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

GRID = 4096
"""Learned decays are multiples of 1 / GRID, from 0 to 1 - 1 / GRID."""


class _OnGrid(torch.autograd.Function):
    """Rounded to the grid; backward as if it were not."""

    @staticmethod
    def forward(ctx: object, decay: Tensor) -> Tensor:  # noqa: ARG004 - torch's signature
        return (decay * GRID).round().clamp(0, GRID - 1) / GRID

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # noqa: ARG004 - torch's signature
        return gradient


def logit(decay: float) -> nn.Parameter:
    """The parameter () to learn a decay from: that whose sigmoid it is, or nearly, at 0 and 1."""
    within = min(max(decay, 0.25 / GRID), 1 - 0.25 / GRID)
    return nn.Parameter(torch.tensor(math.log(within / (1 - within))))


def learned(logit: Tensor) -> Tensor:
    """The decay (), the sigmoid of its parameter on the grid, with a straight-through gradient."""
    decay: Tensor = _OnGrid.apply(torch.sigmoid(logit))  # type: ignore[no-untyped-call]
    return decay
