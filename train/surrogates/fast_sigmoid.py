"""Slope of x / (1 + k|x|): the heaviest tails; k = 2 / width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)
class FastSigmoid:
    """h(x) = (k / 2) / (1 + k |x|)^2 with k = 2 / width."""

    width: float = 1.0
    name: ClassVar[str] = "fast_sigmoid"

    def __call__(self, x: Tensor) -> Tensor:
        """h(x), elementwise."""
        k = 2.0 / self.width
        return 0.5 * k / (1.0 + k * x.abs()) ** 2


PLUGIN = FastSigmoid
