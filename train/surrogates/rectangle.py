"""Rectangle around the threshold, half a width on either side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)
class Rectangle:
    """h(x) = 1 / width where |x| <= width / 2, else 0."""

    width: float = 1.0
    name: ClassVar[str] = "rectangle"

    def __call__(self, x: Tensor) -> Tensor:
        """h(x), elementwise."""
        return (x.abs() <= self.width / 2).to(x.dtype) / self.width


PLUGIN = Rectangle
