"""Triangle over the threshold, zero beyond the width on either side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)
class Triangle:
    """h(x) = max(0, 1 - |x| / width) / width."""

    width: float = 1.0
    name: ClassVar[str] = "triangle"

    def __call__(self, x: Tensor) -> Tensor:
        """h(x), elementwise."""
        slope = 1.0 / self.width
        return (slope - x.abs() * slope**2).clamp(min=0.0)


PLUGIN = Triangle
