"""Slope of an arc tangent: heavy tails; alpha = 2 / width."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)
class Arctan:
    """h(x) = (1 / width) / (1 + (pi x / width)^2)."""

    width: float = 1.0
    name: ClassVar[str] = "arctan"

    def __call__(self, x: Tensor) -> Tensor:
        """h(x), elementwise."""
        return 1.0 / (self.width * (1.0 + (math.pi / self.width * x) ** 2))


PLUGIN = Arctan
