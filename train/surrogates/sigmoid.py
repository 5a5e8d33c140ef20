"""Slope of a sigmoid: smooth, never zero; alpha = 4 / width (the default)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sigmoid:
    """h(x) = alpha z / (1 + z)^2 with z = exp(-alpha |x|), alpha = 4 / width."""

    width: float = 1.0
    name: ClassVar[str] = "sigmoid"

    def __call__(self, x: Tensor) -> Tensor:
        """h(x), elementwise."""
        alpha = 4.0 / self.width
        # alpha s (1 - s) in a form whose relative error stays small far from the threshold.
        z = torch.exp(-alpha * x.abs())
        return alpha * z / (1.0 + z) ** 2


PLUGIN = Sigmoid
