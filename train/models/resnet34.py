"""ResNet-34, neurons behind the sums: sixteen blocks of two convolutions."""

from __future__ import annotations

from ..residual import Residual, plain

PLUGIN = Residual(plain, (3, 4, 6, 3))
